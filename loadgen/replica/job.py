"""One request in the engine: a sequence for each answer that it asks for."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol
from zlib import crc32

from loadgen.engine import language_model
from loadgen.engine.sequence import Leg, Sequence
from loadgen.replica.answer import Answer, Limits, compose
from loadgen.replica.kv.part import WHOLE, Part
from loadgen.replica.refusal import Refusal

if TYPE_CHECKING:
    from loadgen.replica.bodies import Sampling
    from loadgen.replica.driver import EngineDriver

MOST_CHOICES = 64


class Sink(Protocol):
    """Where the tokens of a streamed request go."""

    def deliver(self, choice: Choice, generated: int) -> None:
        """``choice`` has ``generated`` tokens; it knows how many were delivered before."""

    def fail(self, refusal: Refusal) -> None:
        """There will be no more."""


class Choice:
    """One answer on its way: listens to the engine."""

    __slots__ = ("answer", "finish_reason", "index", "job", "sent", "sequence")

    def __init__(self, job: Job, index: int, answer: Answer, sequence: Sequence) -> None:
        self.job = job
        self.index = index
        self.answer = answer
        self.sequence = sequence
        self.finish_reason = answer.finish_reason
        self.sent = 0
        """Tokens delivered so far."""

    def kv_room(self) -> None:
        """There is room for its KV, which is to come from elsewhere."""
        if not self.job.room.done():
            self.job.room.set_result(None)

    def progress(self, generated: int) -> None:
        """There are ``generated`` tokens by now."""
        if generated > self.sent and self.job.sink is not None:
            self.job.sink.deliver(self, generated)
            self.sent = generated

    def finished(self) -> None:
        """All tokens are there."""
        self.job.one_finished()


class Job:
    """A request between its acceptance and its last token."""

    def __init__(self, prompt: list[int], model: str, part: Part) -> None:
        loop = asyncio.get_running_loop()
        self.prompt = prompt
        self.part = part
        self.room: asyncio.Future[None] = loop.create_future()
        """Done when there is room for what comes from elsewhere."""
        self.model = model
        """As the client called it."""
        self.choices: list[Choice] = []
        self.sink: Sink | None = None
        self.done: asyncio.Future[None] = loop.create_future()
        self._left = 0

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens that the prefix cache had; where KV was brought, all but the last."""
        if self.part.leg is Leg.DECODE:
            return len(self.prompt) - 1
        return self.choices[0].sequence.cached_tokens

    @property
    def completion_tokens(self) -> int:
        """Tokens in all answers together."""
        return sum(len(choice.answer.tokens) for choice in self.choices)

    def start(self, driver: EngineDriver) -> None:
        """Hand all sequences to the engine."""
        self._left = len(self.choices)
        for choice in self.choices:
            driver.submit(choice.sequence, choice, streams=self.sink is not None)

    def abort(self, driver: EngineDriver) -> None:
        """Nobody waits any more."""
        for choice in self.choices:
            driver.abort(choice.sequence)

    def one_finished(self) -> None:
        """One of the answers is whole."""
        self._left -= 1
        if not self._left and not self.done.done():
            self.done.set_result(None)

    def fail(self, refusal: Refusal) -> None:
        """The engine has died."""
        if self.done.done():
            return
        if self.sink is None:
            self.done.set_exception(refusal)
        else:
            self.sink.fail(refusal)
            self.done.set_result(None)


def make_job(
    prompt: list[int],
    limits: Limits,
    body: Sampling,
    *,
    model: str,
    language: str,
    block: int,
    part: Part = WHOLE,
) -> Job:
    """Compose all answers to a request.

    Args:
        prompt: Token ids.
        limits: What ends each answer.
        body: The request.
        model: The model's name in the answer.
        language: The model or adapter that speaks.
        block: Tokens that one prefix key stands for.
        part: What part of the request this is.
    """
    job = Job(prompt, model, part)
    if part.leg is Leg.PREFILL:
        limits = replace(limits, most=1, least=0)
    start = language_model.start(language)
    state, keys = language_model.read_blocks(start, prompt, block)
    full = len(keys) * block
    salt = crc32(body.cache_salt.encode("utf-8", "surrogatepass")) if body.cache_salt else 0
    for index in range(body.n or 1):
        # answers after the first differ, as sampled ones do; only the first can be resumed
        own = state if not index else language_model.read(state, (index,))
        answer = compose(own, len(prompt), limits)
        last = keys[-1] if keys else start
        more = language_model.read_blocks(last, prompt[full:] + answer.tokens, block)[1]
        salted = [key ^ salt for key in (*keys, *more)]
        sequence = Sequence(len(prompt), len(answer.tokens), salted, part.leg)
        job.choices.append(Choice(job, index, answer, sequence))
    return job


def limits_of(
    body: Sampling, asked: int | None, default: int | None, prompt_tokens: int, model_tokens: int
) -> Limits:
    """What ends the answers to ``body``.

    Args:
        body: The request.
        asked: Its own largest number of output tokens.
        default: What holds when it asks for none; None: as many as there is room for.
        prompt_tokens: Length of its prompt.
        model_tokens: Longest sequence that the model can have.

    Raises:
        Refusal: The request asks for what cannot be.
    """
    room = _room(asked, prompt_tokens, model_tokens)
    most = min(room, asked or default or room)
    least = body.min_tokens or 0
    if not 0 <= least <= most:
        raise Refusal(400, f"min_tokens must be between 0 and max_tokens={most}, got {least}.")
    if body.n is not None and not 1 <= body.n <= MOST_CHOICES:
        raise Refusal(400, f"n must be between 1 and {MOST_CHOICES}, got {body.n}.", param="n")
    stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    if "" in stop:
        raise Refusal(400, "stop cannot contain an empty string.", param="stop")
    return Limits(
        most=most,
        least=least,
        ignore_eos=bool(body.ignore_eos),
        stop=stop,
        stop_token_ids=frozenset(body.stop_token_ids or ()),
        include_stop=bool(body.include_stop_str_in_output),
    )


def _room(asked: int | None, prompt_tokens: int, model_tokens: int) -> int:
    """Tokens that an answer can have; refuses what is asked for beyond it."""
    room = model_tokens - prompt_tokens
    if room < 1:
        raise Refusal(
            400,
            f"This model's maximum context length is {model_tokens} tokens. However, your request "
            f"has {prompt_tokens} input tokens. Please reduce the length of the input messages.",
            param="input_tokens",
        )
    if asked is not None and asked < 1:
        raise Refusal(400, f"max_tokens must be at least 1, got {asked}.", param="max_tokens")
    if asked is not None and asked > room:
        raise Refusal(
            400,
            "'max_tokens' or 'max_completion_tokens' is too large: "
            f"{asked}. This model's maximum context length is {model_tokens} tokens and your "
            f"request has {prompt_tokens} input tokens ({asked} > {model_tokens} - "
            f"{prompt_tokens}).",
            param="max_tokens",
        )
    return room
