"""Tokens that are no whole characters, and events that hold several tokens.

The engine here has one token for each byte, and does as vLLM does: text comes when its characters
are whole, an event may hold several tokens, and who goes on behind half a character is told all of
the prompt again.
"""

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.continuation.budget import Budget
from router.continuation.continuation import Continuation, Ending
from router.continuation.eligibility import judge
from router.continuation.resume import Method, Resume
from router.continuation.wish import Wish
from tests.fakes.streaming_engines import DONE, encoded, text_of

PROMPT = "Erzähl: "
CHAT = b"/v1/chat/completions"
COMPLETIONS = b"/v1/completions"
SCRIPT = "Zug 🚂 nach 東京, ä-ö-ü: naïve\n\n  ok 🙂🙂 fin. "


class ByteEngine:
    """Says the rest of a script."""

    def __init__(self, script, starts):
        self.script = script.encode()
        self.starts = starts
        """Where events begin, in tokens of the answer."""

    def stream(self, path, body):
        given = json.loads(body)
        kind = "chat" if path == CHAT else "completion"
        prompt = self._prompt(given)
        at = len(prompt) - len(PROMPT.encode())
        most = given.get("max_completion_tokens") or given.get("max_tokens") or 10**6
        tokens = self.script[at : at + most]
        finish = "stop" if at + len(tokens) == len(self.script) else "length"
        events = []
        if kind == "chat":
            events.append(
                self._event(kind, {"delta": {"role": "assistant", "content": ""}}, prompt)
            )
        edges = [0, *(start - at for start in self.starts if 0 < start - at < len(tokens))]
        texts = self._texts(prompt, tokens, [*edges, len(tokens)])
        for (start, end), text in zip(pairwise([*edges, len(tokens)]), texts, strict=True):
            said = {"delta": {"content": text}} if kind == "chat" else {"text": text}
            if given.get("return_token_ids"):
                said["token_ids"] = list(tokens[start:end])
            said["finish_reason"] = finish if end == len(tokens) else None
            told = prompt if kind == "completion" and not start else None
            events.append(self._event(kind, said, told))
        if (given.get("stream_options") or {}).get("include_usage"):
            usage = {"prompt_tokens": len(prompt), "completion_tokens": len(tokens)}
            events.append(encoded({"id": "x", "choices": [], "usage": usage}))
        return b"".join([*events, DONE])

    def _prompt(self, given):
        if "prompt" in given:
            prompt = given["prompt"]
            return prompt.encode() if isinstance(prompt, str) else bytes(prompt)
        last = given["messages"][-1]
        said = last["content"] if last["role"] == "assistant" else ""
        return (PROMPT + said).encode()

    def _texts(self, prompt, tokens, edges):
        """The text of each event; what is no whole character waits."""
        try:
            prompt.decode()
            before = b""
        except UnicodeDecodeError:
            before = prompt  # the leak
        texts, sent = [], 0
        for start, end in pairwise(edges):
            whole = before + tokens[:end]
            text = whole.decode(errors="ignore" if end < len(tokens) else "replace")
            if not start and before and len(text) <= len(before.decode(errors="ignore")):
                text = ""
            texts.append(text[sent:])
            sent = max(sent, len(text))
        return texts

    def _event(self, kind, said, prompt):
        choice = {"index": 0, "finish_reason": None, **said}
        data = {"id": "x", "created": 1, "model": "m", "object": kind, "choices": [choice]}
        if prompt is not None:
            data["prompt_token_ids"] = list(prompt)
        return encoded(data)


def body_for(kind, **fields):
    fields = {"stream": True, "max_tokens": 1000, **fields}
    if kind == "chat":
        return json.dumps({"messages": [{"role": "user", "content": "?"}], **fields}).encode()
    return json.dumps({"prompt": PROMPT, **fields}).encode()


def tell(kind, body, engines, cuts):
    path = CHAT if kind == "chat" else COMPLETIONS
    wish = judge(path, body)
    assert isinstance(wish, Wish)
    continuation = Continuation(wish, Budget(1 << 24), 1 << 20)
    sent, got, methods = continuation.start("vllm"), b"", []
    for engine, cut in zip(engines, [*cuts, None], strict=True):
        stream = engine.stream(path, sent)
        got += continuation.passed(stream[:cut])
        if cut is None or cut >= len(stream):
            assert continuation.complete
            return got, methods
        resumed = continuation.resume("vllm")
        if isinstance(resumed, Ending):
            return got + resumed.data, methods
        assert isinstance(resumed, Resume)
        methods.append(resumed.method)
        path = resumed.path or (CHAT if kind == "chat" else COMPLETIONS)
        sent = resumed.body
    raise AssertionError("the last stream was not complete")


one_by_one = range(len(SCRIPT.encode()))


@pytest.mark.parametrize("kind", ["chat", "completion"])
def test_a_cut_inside_of_a_character_is_not_seen(kind):
    body = body_for(kind)
    engine = ByteEngine(SCRIPT, one_by_one)
    length = len(engine.stream(COMPLETIONS, body_for("completion", return_token_ids=True)))
    for cut in range(0, length, 37):
        got, methods = tell(kind, body, [engine, engine], [cut])
        assert text_of(got, kind)[0] == SCRIPT
        assert set(methods) <= {Method.TOKENS, Method.AGAIN}
        assert got.count(DONE) == 1


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_whatever_an_event_holds_no_character_is_lost_or_told_twice(data):
    kind = data.draw(st.sampled_from(["chat", "completion"]))
    script = data.draw(st.text(alphabet="ab \nä東🚂", min_size=1, max_size=60)) * data.draw(
        st.sampled_from([1, 1, 15])
    )
    size = len(script.encode())
    starts = st.lists(st.integers(1, size), max_size=40).map(sorted)
    fields = data.draw(st.sampled_from([{}, {"temperature": 0}]))
    engines = [ByteEngine(script, data.draw(starts)) for _ in range(3)]
    most = data.draw(st.one_of(st.none(), st.integers(1, size)))
    if most is not None:
        fields = {**fields, "max_tokens": most}
    body = body_for(kind, **fields)
    unbroken = engines[0].stream(CHAT if kind == "chat" else COMPLETIONS, body)
    cuts = data.draw(st.lists(st.integers(0, 2 * len(unbroken)), min_size=2, max_size=2))
    got, methods = tell(kind, body, engines, cuts)
    wanted = text_of(unbroken, kind)[0]
    if most is None or set(methods) <= {Method.TOKENS, Method.AGAIN}:
        assert text_of(got, kind)[0] == wanted
    assert PROMPT not in text_of(got, kind)[0]
    assert got.count(DONE) == 1
