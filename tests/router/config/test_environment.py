import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.config.environment import UnsetVariableError, expand

ENVIRON = {"HOST": "gpu-1", "EMPTY": "", "TRICKY": "${HOST} $$"}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("http://${HOST}:8000", "http://gpu-1:8000"),
        ("${HOST}${HOST}", "gpu-1gpu-1"),
        ("${EMPTY}", ""),
        ("${EMPTY:-x}", "x"),
        ("${NONE:-}", ""),
        ("${NONE:-a:-b}", "a:-b"),
        ("${HOST:-x}", "gpu-1"),
        ("$${HOST}", "${HOST}"),
        ("$$$$", "$$"),
        ("$HOST costs $5", "$HOST costs $5"),
        ("${TRICKY}", "${HOST} $$"),
    ],
)
def test_references_are_expanded_once(text, expanded):
    assert expand(text, ENVIRON) == expanded


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("${NONE}", "NONE is not set; ${NONE:-default}"),
        ("${HOST", "write $$ for a plain $"),
        ("${}", "write $$ for a plain $"),
        ("${1X}", "write $$ for a plain $"),
        ("${HO ST}", "write $$ for a plain $"),
        ("${HOST:-${HOST}}", "write $$ for a plain $"),
    ],
)
def test_what_cannot_be_expanded_says_why(text, says):
    with pytest.raises(UnsetVariableError) as caught:
        expand(text, ENVIRON)
    assert says in str(caught.value)


@given(st.text())
def test_escaped_text_comes_back(text):
    assert expand(text.replace("$", "$$"), {}) == text
