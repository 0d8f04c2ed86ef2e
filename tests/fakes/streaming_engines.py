"""Engines as functions: a request in, the bytes of its stream out. No socket, no clock.

They speak the simulated model's language, so a continued answer can be compared to the unbroken
one, each in its own engine's words.
"""

import json

from loadgen.engine import language_model
from loadgen.replica import prompts
from loadgen.replica.answer import Limits, compose
from loadgen.replica.bodies import ChatBody, CompletionBody, decode
from loadgen.tokens import Special, token_text

DONE = b"data: [DONE]\n\n"
ROOM = 300


class RefusedError(Exception):
    """The engine would answer 400."""


def encoded(data):
    return (
        b"data: " + json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
    )


def lagging(raw, text, stops):
    """As vLLM: as many characters as could begin a stop string come only with the last token."""
    lag = max(map(len, stops), default=1) - 1
    whole, out, sent, seen = "".join(raw), [], 0, 0
    for piece in raw[:-1]:
        seen += len(piece)
        upto = max(sent, seen - lag)
        out.append(whole[sent:upto])
        sent = upto
    return [*out, text[sent:]]


def hasty(raw, text, _):
    """As SGLang: what turns out to be a stop string was streamed but for its last token."""
    return [*raw[:-1], text[len("".join(raw[:-1])) :]]


def waiting(raw, text, stops):
    """As llama.cpp: nothing comes as long as the end of the text could begin a stop string."""
    out, sent, seen = [], 0, ""
    for piece in raw[:-1]:
        seen += piece
        tails = (seen[-size:] for size in range(1, len(seen) + 1))
        if any(stop.startswith(tail) for tail in tails for stop in stops):
            out.append("")
        else:
            out.append(seen[sent:])
            sent = len(seen)
    return [*out, text[sent:]]


class Engine:
    """vLLM's words; its relatives change some."""

    name = "vllm"
    streams_text = staticmethod(lagging)
    keep_field = "include_stop_str_in_output"
    knows_ids = True
    role_in_each = False
    trims_end = False
    first_id = 100

    def __init__(self, number=0):
        self.number = number
        self.requests = []

    def stream(self, path, body):
        """The events of the answer, each by itself."""
        self.requests.append((path, json.loads(body)))
        if path == b"/v1/chat/completions":
            return self._chat(decode(body, ChatBody), json.loads(body))
        if path == b"/v1/completions":
            return self._completion(decode(body, CompletionBody), json.loads(body))
        raise RefusedError(path)

    def _answer(self, ids, given, asked, default):
        most = asked or default or ROOM
        stops = given.get("stop") or []
        stops = [stops] if isinstance(stops, str) else stops
        limits = Limits(
            most=most,
            least=given.get("min_tokens") or 0,
            stop=tuple(stops),
            include_stop=self.keep_field is None or bool(given.get(self.keep_field)),
        )
        state = language_model.read(language_model.start("m"), ids)
        answer = compose(state, len(ids), limits)
        raw = ["" if token == Special.END_OF_TEXT else token_text(token) for token in answer.tokens]
        stream_text = hasty if limits.include_stop else self.streams_text
        return answer, stream_text(raw, "".join(answer.pieces), limits.stop)

    def _chat(self, body, given):
        if given.get("continue_final_message") and body.messages[-1].role == "assistant":
            if given.get("add_generation_prompt") is not False and self.name == "vllm":
                raise RefusedError("both flags")
            if self.trims_end:
                body.messages[-1].content = body.messages[-1].content.rstrip()
        # a final message that is gone on with looks like an answer that was begun
        continues = bool(body.continue_final_message)
        ids = prompts.of_chat(
            body.messages, add_generation_prompt=not continues, continue_final_message=continues
        )
        asked = body.max_completion_tokens or body.max_tokens
        answer, pieces = self._answer(ids, given, asked, None)
        return self._events("chat", ids, answer, pieces, given)

    def _completion(self, body, given):
        ids = prompts.of_completion(body.prompt)
        default = None if "max_tokens" in given else 16
        answer, pieces = self._answer(ids, given, body.max_tokens, default)
        return self._events("completion", ids, answer, pieces, given)

    def _events(self, kind, ids, answer, pieces, given):
        wants_ids = self.knows_ids and bool(given.get("return_token_ids"))
        options = given.get("stream_options") or {}
        events = []
        if kind == "chat" and not self.role_in_each:
            choice = {
                "index": 0,
                "delta": {"role": "assistant", "content": ""},
                "logprobs": None,
                "finish_reason": None,
            }
            more = {"prompt_token_ids": ids if wants_ids else None, "prompt_text": None}
            events.append(self._event(kind, [choice], **more))
        for index, piece in enumerate(pieces):
            last = index == len(pieces) - 1
            choice = self._choice(kind, piece, answer if last else None)
            if wants_ids:
                choice["token_ids"] = [answer.tokens[index]]
                if kind == "completion":
                    choice["prompt_token_ids"] = None if index else ids
            more = {}
            if options.get("continuous_usage_stats"):
                more["usage"] = self._usage(ids, index + 1)
            events.append(self._event(kind, [choice], **more))
        events += self._closing(kind, ids, answer, options)
        return [*events, DONE]

    def _closing(self, kind, ids, answer, options):
        if not options.get("include_usage"):
            return []
        usage = self._usage(ids, len(answer.tokens))
        return [self._event(kind, [], usage=usage)]

    def _choice(self, kind, text, answer):
        choice = {"index": 0, "logprobs": None, "finish_reason": None}
        if kind == "chat":
            choice["delta"] = {"content": text}
            if self.role_in_each:
                choice["delta"]["role"] = "assistant"
        else:
            choice["text"] = text
        if answer is not None:
            choice["finish_reason"] = answer.finish_reason
            choice["stop_reason"] = answer.stop_reason
        return choice

    def _usage(self, ids, made):
        return {
            "prompt_tokens": len(ids),
            "total_tokens": len(ids) + made,
            "completion_tokens": made,
        }

    def _event(self, kind, choices, **more):
        name = "chatcmpl" if kind == "chat" else "cmpl"
        return encoded(
            {
                "id": f"{name}-{self.number}",
                "object": "chat.completion.chunk" if kind == "chat" else "text_completion",
                "created": 1000 + self.number,
                "model": "m",
                "choices": choices,
                **more,
            }
        )


class SglangEngine(Engine):
    """Its reason to finish comes in a chunk of its own; chats tell no tokens."""

    name = "sglang"
    streams_text = staticmethod(hasty)
    keep_field = "no_stop_trim"

    def _events(self, kind, ids, answer, pieces, given):
        if kind == "chat":
            given = {**given, "return_token_ids": False}
        *events, _ = super()._events(kind, ids, answer, pieces, given)
        return [*events, DONE]

    def _choice(self, kind, text, answer):
        choice = super()._choice(kind, text, None)
        choice["matched_stop"] = None
        if answer is not None and kind == "completion":
            choice["finish_reason"] = answer.finish_reason
        return choice

    def _closing(self, kind, ids, answer, options):
        usage = super()._closing(kind, ids, answer, options)
        if kind != "chat":
            return usage
        choice = {
            "index": 0,
            "delta": {"role": None, "content": None},
            "logprobs": None,
            "finish_reason": answer.finish_reason,
            "matched_stop": answer.stop_reason,
        }
        return [self._event(kind, [choice]), *usage]


class TgiEngine(Engine):
    """Says who speaks in each chunk, and goes on with a last message of the assistant."""

    name = "tgi"
    streams_text = staticmethod(hasty)
    keep_field = None
    knows_ids = False
    role_in_each = True
    trims_end = True

    def _choice(self, kind, text, answer):
        choice = super()._choice(kind, text, answer)
        if kind == "completion" and answer is None:
            choice["finish_reason"] = ""
        return choice


class LlamacppEngine(Engine):
    """A last chunk without text; on completions the usage is in it."""

    name = "llamacpp"
    streams_text = staticmethod(waiting)
    keep_field = "none such"
    knows_ids = False

    def _choice(self, kind, text, answer):
        return super()._choice(kind, text, None)

    def _closing(self, kind, ids, answer, options):
        choice = {"index": 0, "logprobs": None, "finish_reason": answer.finish_reason}
        usage = self._usage(ids, len(answer.tokens))
        if kind == "chat":
            told = super()._closing(kind, ids, answer, options)
            return [self._event(kind, [{**choice, "delta": {}}]), *told]
        return [self._event(kind, [{**choice, "text": ""}], usage=usage)]


def text_of(data, kind):
    """The text of a stream, and all its chunks."""
    chunks = [json.loads(line[5:]) for line in data.splitlines() if line.startswith(b"data: {")]
    text = ""
    for chunk in chunks:
        for choice in chunk["choices"]:
            got = choice["delta"].get("content") if kind == "chat" else choice["text"]
            text += got or ""
    return text, chunks
