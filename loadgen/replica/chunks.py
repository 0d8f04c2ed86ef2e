"""Server-sent events of a streamed answer, in vLLM's words.

Most of an event is the same for all tokens of a stream, so it is made once. The texts of the
simulated model need no escapes in JSON.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from loadgen.replica import logprobs

if TYPE_CHECKING:
    from loadgen.replica.job import Choice, Job

DONE = b"data: [DONE]\n\n"
FINGERPRINT = "vllm-0.32.0-simulated"

_json = msgspec.json.encode


def error_event(error: bytes) -> bytes:
    """An error in the middle of a stream; vLLM closes such a stream in good order."""
    return b"data: " + error + b"\n\n" + DONE


def usage(job: Job, completion_tokens: int) -> dict[str, object]:
    """The ``usage`` object."""
    prompt_tokens = len(job.prompt)
    return {
        "prompt_tokens": prompt_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "completion_tokens": completion_tokens,
        "prompt_tokens_details": {"cached_tokens": job.cached_tokens},
    }


class ChunkOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the client wants to see in a stream."""

    include_usage: bool = False
    continuous_usage: bool = False
    token_ids: bool = False
    top_logprobs: int | None = None
    """None: no log probabilities."""


class Chunks(Protocol):
    """Makes the events of one streamed response."""

    def opening(self) -> bytes:
        """What comes with the first token, before it."""

    def token(self, choice: Choice, index: int) -> bytes:
        """The event of one token."""

    def closing(self) -> bytes:
        """What comes after the last token."""


class _OpenAiChunks:
    """What chat and completions have in common."""

    object_name: str

    def __init__(self, job: Job, response_id: str, created: int, options: ChunkOptions) -> None:
        self._job = job
        self._options = options
        self._sent = 0
        self._prologue = b'data: {"id":%b,"object":"%b","created":%d,"model":%b,"choices":[' % (
            _json(response_id),
            self.object_name.encode(),
            created,
            _json(job.model),
        )

    def opening(self) -> bytes:
        """Nothing, on completions."""
        return b""

    def closing(self) -> bytes:
        """The usage, if it was asked for, and the end mark."""
        if not self._options.include_usage:
            return DONE
        total = _json(usage(self._job, self._job.completion_tokens))
        fingerprint = FINGERPRINT.encode()
        return b'%b],"usage":%b,"system_fingerprint":"%b"}\n\n%b' % (
            self._prologue,
            total,
            fingerprint,
            DONE,
        )

    def _epilogue(self) -> bytes:
        if not self._options.continuous_usage:
            return b"}\n\n"
        self._sent += 1
        return b',"usage":%b}\n\n' % _json(usage(self._job, self._sent))

    def _ids(self, choice: Choice, index: int) -> bytes:
        return b"[%d]" % choice.answer.tokens[index] if self._options.token_ids else b"null"


class ChatChunks(_OpenAiChunks):
    """Events of ``/v1/chat/completions``."""

    object_name = "chat.completion.chunk"

    def __init__(self, job: Job, response_id: str, created: int, options: ChunkOptions) -> None:
        super().__init__(job, response_id, created, options)
        self._heads = [
            b'%b{"index":%d,"delta":{"content":"' % (self._prologue, choice.index)
            for choice in job.choices
        ]
        self._plain = not (
            options.continuous_usage or options.token_ids or options.top_logprobs is not None
        )

    def opening(self) -> bytes:
        """The role chunk of each choice."""
        ids = _json(self._job.prompt) if self._options.token_ids else b"null"
        return b"".join(
            b'%b{"index":%d,"delta":{"role":"assistant","content":""},"logprobs":null,'
            b'"finish_reason":null}],"prompt_token_ids":%b,"prompt_text":null}\n\n'
            % (self._prologue, choice.index, ids)
            for choice in self._job.choices
        )

    def token(self, choice: Choice, index: int) -> bytes:
        """The event of one token."""
        answer = choice.answer
        head = self._heads[choice.index] + answer.pieces[index].encode()
        last = index == len(answer.tokens) - 1
        if self._plain and not last:
            return head + b'"},"logprobs":null,"finish_reason":null,"token_ids":null}]}\n\n'
        reasons = b'"finish_reason":null'
        if last:
            reasons = b'"finish_reason":"%b","stop_reason":%b' % (
                answer.finish_reason.encode(),
                _json(answer.stop_reason),
            )
        return b'%b"},"logprobs":%b,%b,"token_ids":%b}]%b' % (
            head,
            self._logprobs(choice, index),
            reasons,
            self._ids(choice, index),
            self._epilogue(),
        )

    def _logprobs(self, choice: Choice, index: int) -> bytes:
        top = self._options.top_logprobs
        if top is None:
            return b"null"
        return _json(logprobs.of_chat(choice.answer, index, index + 1, top))


class CompletionChunks(_OpenAiChunks):
    """Events of ``/v1/completions``."""

    object_name = "text_completion"

    def token(self, choice: Choice, index: int) -> bytes:
        """The event of one token."""
        answer = choice.answer
        reasons = b'"finish_reason":null,"stop_reason":null'
        if index == len(answer.tokens) - 1:
            reasons = b'"finish_reason":"%b","stop_reason":%b' % (
                answer.finish_reason.encode(),
                _json(answer.stop_reason),
            )
        prompt_ids = b"null"
        if self._options.token_ids and not index:
            prompt_ids = _json(self._job.prompt)
        return (
            b'%b{"index":%d,"text":"%b","logprobs":%b,%b,"prompt_token_ids":%b,"token_ids":%b}]%b'
            % (
                self._prologue,
                choice.index,
                answer.pieces[index].encode(),
                self._logprobs(choice, index),
                reasons,
                prompt_ids,
                self._ids(choice, index),
                self._epilogue(),
            )
        )

    def _logprobs(self, choice: Choice, index: int) -> bytes:
        top = self._options.top_logprobs
        if top is None:
            return b"null"
        return _json(logprobs.of_completion(choice.answer, index, index + 1, top))
