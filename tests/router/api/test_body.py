import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.api.body import MalformedBodyError, read_json, understand_json, with_model
from router.api.multipart import understand_multipart, with_form_model


def facts(text: str | bytes, session=None):
    body = text if isinstance(text, bytes) else text.encode()
    return understand_json(read_json(body), session)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('{"model":"m","stream":true}', {"model": "m", "streamed": True}),
        ('{"model":"m","stream":null,"max_tokens":null,"n":null}', {"max_output_tokens": None}),
        ('{"mod\\u0065l":"m"}', {"model": "m"}),
        ('{"max_tokens":64.0}', {"max_output_tokens": 64}),
        ('{"max_tokens":9,"max_completion_tokens":5}', {"max_output_tokens": 5}),
        ('{"max_tokens":9,"n":3}', {"max_output_tokens": 27, "choices": 3}),
        ('{"max_output_tokens":7}', {"max_output_tokens": 7}),
        ('{"inputs":"hi","parameters":{"max_new_tokens":5}}', {"max_output_tokens": 5}),
        ('{"text":"hi","sampling_params":{"max_new_tokens":6}}', {"max_output_tokens": 6}),
        ('{"sampling_params":[1]}', {"max_output_tokens": None}),
        ('{"max_tokens":1e999}', {"max_output_tokens": None}),
        ('{"seed":123456789012345678901234567890}', {"model": None}),
        ('{"max_tokens":123456789012345678901234567890}', {"max_output_tokens": None}),
        ('{"model":"m","x":"\\ud800"}', {"model": "m"}),
        ('{"model":"m","x":NaN}', {"model": "m"}),
        ('{"model":"m","stream":1}', {"model": "m", "streamed": True}),
        ('{"model":7,"user":"u"}', {"model": None, "session": "u"}),
        ('{"model":"a","model":"b"}', {"model": "b"}),
        ('{"prompt":[1,22,333]}', {"prompt_tokens": 3}),
        ('{"prompt":[[1,2],[3,4]]}', {"prompt_tokens": 4}),
        ('{"input_ids":[ 1 , 2]}', {"prompt_tokens": 2}),
        ('{"prompt":"' + "x" * 38 + '"}', {"prompt_tokens": 10}),
        ('{"messages":[{"role":"user","content":"' + "x" * 100 + '"}]}', {"prompt_tokens": 32}),
        ('{"instructions":"' + "x" * 38 + '","input":"' + "x" * 38 + '"}', {"prompt_tokens": 20}),
        ('{"priority":-2}', {"priority": -2}),
        ('{"user":"u","session_id":"s"}', {"session": "s"}),
        ('{"user":"u","prompt_cache_key":"k"}', {"session": "k"}),
    ],
)
def test_what_is_read(body, expected):
    seen = facts(body)
    assert {name: getattr(seen, name) for name in expected} == expected


def test_encodings_that_python_reads():
    assert facts(b"\xef\xbb\xbf" + b'{"model":"m"}').model == "m"
    assert facts('{"model":"m"}'.encode("utf-16")).model == "m"


def test_session_of_the_head_wins():
    assert facts('{"user":"u"}', "h").session == "h"


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'"x"', b"\xff\xfe\x00", b'{"a":' + b"[" * 100_000, b"{} x"]
)
def test_malformed(body):
    with pytest.raises(MalformedBodyError):
        read_json(body)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), json_values, max_size=6))
def test_any_object_is_understood_and_only_its_model_replaced(fields):
    body = json.dumps(fields).encode()
    seen = facts(body)
    model = fields.get("model")
    assert seen.model == (model if isinstance(model, str) else None)
    changed = json.loads(with_model(body, "other"))
    assert repr(changed) == repr({**fields, "model": "other"}) or changed == {
        **json.loads(body),
        "model": "other",
    }


def test_replacing_the_model_keeps_other_values_byte_for_byte():
    body = b'{"temperature": 1.0, "model" :"m", "x": 1e400, "ids": [1,  2]}'
    assert with_model(body, 'n"') == b'{"temperature":1.0,"model":"n\\"","x":1e400,"ids":[1,  2]}'


FORM = (
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="a; name=model"\r\n'
    b"Content-Type: audio/wav\r\n\r\n\x00\r\n\r\n\xff--b\r\n"
    b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\nwhisper\r\n'
    b"--b\r\nContent-Disposition: form-data; name=stream\r\n\r\ntrue\r\n--b--\r\n"
)


def test_multipart_fields():
    seen = understand_multipart(FORM, b'multipart/form-data; boundary="b"', None)
    assert (seen.model, seen.streamed) == ("whisper", True)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [(FORM, None), (FORM, b"application/json"), (b"nothing", b"multipart/form-data; boundary=b")],
)
def test_malformed_multipart(body, content_type):
    with pytest.raises(MalformedBodyError):
        understand_multipart(body, content_type, None)


def test_replacing_the_model_of_a_form_keeps_all_else():
    kind = b"multipart/form-data; boundary=b"
    changed = with_form_model(FORM, kind, "other/name")
    assert changed == FORM.replace(b"whisper", b"other/name")
    assert understand_multipart(changed, kind, None).model == "other/name"


@given(st.binary(max_size=200))
def test_no_form_breaks_the_reader(junk):
    understand_multipart(b"--b" + junk, b"multipart/form-data; boundary=b", None)
