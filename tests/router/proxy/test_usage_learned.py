"""The length that an engine tells of a prompt teaches how long a token is."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from policies.base import RequestFacts
from router.core.token_ratio import USUAL_BYTES_PER_TOKEN, TokenRatio
from router.proxy.usage import learn_usage

TOLD = b'{"choices": [], "usage": {"prompt_tokens": 2000, "completion_tokens": 3}}'
ENDS = [
    TOLD,
    b"data: " + TOLD + b"\n\ndata: [DONE]\n\n",
    b"5\r\ndata:\r\n" + TOLD + b"\r\n0\r\n\r\n",
]


def attempt(prompt_tokens):
    facts = RequestFacts(model="m", prompt_tokens=prompt_tokens)
    return SimpleNamespace(request=SimpleNamespace(facts=facts))


@pytest.mark.parametrize("last", ENDS)
def test_what_is_told_last_is_learned(last):
    ratio = TokenRatio()
    learn_usage(ratio, attempt(1000), last)
    assert ratio.of("m") < USUAL_BYTES_PER_TOKEN
    learn_usage(ratio, attempt(4000), last)
    learn_usage(ratio, attempt(4000), last)
    assert ratio.of("m") > USUAL_BYTES_PER_TOKEN


@pytest.mark.parametrize("last", [b"", b"data: [DONE]\n\n", b'{"usage": null}'])
def test_an_answer_that_tells_nothing_teaches_nothing(last):
    ratio = TokenRatio()
    learn_usage(ratio, attempt(1000), last)
    assert ratio.of("m") == USUAL_BYTES_PER_TOKEN
