"""Sending one request and reading its streamed answer."""

from __future__ import annotations

import os
from io import BytesIO
from time import monotonic
from typing import TYPE_CHECKING

import aiohttp
import msgspec

from loadgen.replay.answer import StreamedAnswer
from loadgen.replay.options import PATHS
from loadgen.replay.outcome import Failure, one_line

if TYPE_CHECKING:
    from array import array

    from loadgen.replay.options import Endpoint, ReplayOptions
    from loadgen.replay.outcome import Outcome
    from loadgen.trace.request import TraceRequest

CONNECT_TIMEOUT_S = 10.0
KEEP_ALIVE_S = 2.0
"""Shorter than any server's own (uvicorn closes after 5 s), so that no request is written to a
connection which the server is just closing."""

_RAW_BODY_BYTES = 1 << 20
"""aiohttp wants larger bodies as files, to send them piecemeal."""

_DETAIL_BYTES = 4096
_REPLICA_HEADER = "x-pointsman-replica"


class ServerError(Exception):
    """The server cannot be asked what it needs to be asked before a run."""


def open_session(options: ReplayOptions) -> aiohttp.ClientSession:
    """A session for a whole run, without a bound on connections; the caller closes it."""
    headers = {"Accept-Encoding": "identity"}
    if options.api_key is not None:
        headers["Authorization"] = f"Bearer {options.api_key}"
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S),
        timeout=aiohttp.ClientTimeout(
            total=options.timeout_s / options.speed, sock_connect=CONNECT_TIMEOUT_S
        ),
        headers=headers,
        cookie_jar=aiohttp.DummyCookieJar(),
    )


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model]


async def first_model(session: aiohttp.ClientSession, url: str) -> str:
    """The first model that the server lists.

    Raises:
        ServerError: It lists none, or cannot be asked.
    """
    try:
        async with session.get(f"{url}/v1/models") as response:
            body = await response.read()
            if response.status != 200:
                msg = f"{url}/v1/models answered {response.status}; name one with --model"
                raise ServerError(msg)
        return msgspec.json.decode(body, type=_Models).data[0].id
    except (aiohttp.ClientError, TimeoutError) as error:
        raise ServerError(f"{url} cannot be reached: {_describe(error)}") from error
    except (msgspec.DecodeError, IndexError) as error:
        raise ServerError(
            f"{url}/v1/models lists no model (is a replica ready?); name one with --model"
        ) from error


def request_body(request: TraceRequest, prompt: str, model: str, endpoint: Endpoint) -> bytes:
    """The JSON of ``request``: streamed, exactly as many output tokens as the trace says."""
    body: dict[str, object] = {"model": model}
    if endpoint == "chat":
        body["messages"] = [{"role": "user", "content": prompt}]
    else:
        body["prompt"] = prompt
    body |= {
        "max_tokens": max(request.output_tokens, 1),
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if request.session is not None:
        body["user"] = request.session
    return msgspec.json.encode(body)


class Client:
    """Sends requests and fills in their outcomes.

    Args:
        session: Where connections come from.
        options: Where to send to.
        started_s: When the run began, on the clock of :func:`time.monotonic`.
        gaps_s: Takes the gaps between output tokens of all answers.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        options: ReplayOptions,
        started_s: float,
        gaps_s: array[float],
    ) -> None:
        self._session = session
        self._url = options.url + PATHS[options.endpoint]
        self._headers = {"Content-Type": "application/json"}
        self._started_s = started_s
        self._gaps_s = gaps_s

    async def send(self, body: bytes, outcome: Outcome) -> None:
        """Send ``body`` now and read the answer to its end; every failure goes to ``outcome``."""
        answer = StreamedAnswer(self._gaps_s)
        outcome.sent_s = monotonic() - self._started_s
        try:
            async with self._session.post(
                self._url,
                data=body if len(body) < _RAW_BODY_BYTES else BytesIO(body),
                headers=self._headers,
                allow_redirects=False,
            ) as response:
                await self._read(response, answer, outcome)
        except (aiohttp.ClientError, OSError) as error:
            if answer.done_s is None:  # what comes after [DONE] cannot hurt the answer any more
                outcome.fail(_failure(error, outcome), _describe(error))
        ended_s = monotonic() if answer.done_s is None else answer.done_s
        outcome.ended_s = ended_s - self._started_s
        self._conclude(answer, outcome)

    async def _read(
        self, response: aiohttp.ClientResponse, answer: StreamedAnswer, outcome: Outcome
    ) -> None:
        outcome.status = response.status
        outcome.replica = response.headers.get(_REPLICA_HEADER)
        if response.status != 200:
            outcome.fail(Failure.STATUS, response.reason or "")
            detail = await response.content.read(_DETAIL_BYTES)
            outcome.detail = one_line(detail.decode(errors="replace")) or outcome.detail
            return
        if response.content_type != "text/event-stream":
            outcome.fail(Failure.BAD_ANSWER, f"the answer is {response.content_type}")
            return
        content = response.content
        while read := await content.readany():
            answer.feed(read, monotonic())
        if not answer.finished and answer.done_s is None:
            outcome.fail(
                Failure.TRUNCATED,
                f"the stream ended after {answer.token_events} events with tokens, "
                "without finish_reason or [DONE]",
            )

    def _conclude(self, answer: StreamedAnswer, outcome: Outcome) -> None:
        if answer.error is not None:
            outcome.failure = None  # an error that the server tells says more than how it ended
            outcome.fail(Failure.ERROR_EVENT, answer.error)
        if answer.malformed is not None:
            outcome.fail(Failure.BAD_ANSWER, answer.malformed)
        if answer.first_token_s is not None:
            outcome.first_token_s = answer.first_token_s - self._started_s
        else:
            outcome.fail(Failure.BAD_ANSWER, "the answer has no token")
        outcome.generated_tokens = answer.token_events
        if answer.usage is not None:
            outcome.generated_tokens = answer.usage.completion_tokens
            outcome.reported_prompt_tokens = answer.usage.prompt_tokens
            outcome.cached_tokens = answer.usage.cached_tokens


def _failure(error: BaseException, outcome: Outcome) -> Failure:
    """What kind of failure ``error`` is, given what had come before it."""
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        return Failure.CONNECT
    if isinstance(error, TimeoutError):
        return Failure.TIMEOUT
    if isinstance(error, aiohttp.ClientResponseError):
        return Failure.BAD_ANSWER
    return Failure.NO_ANSWER if outcome.status is None else Failure.TRUNCATED


def _describe(error: BaseException) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        errno = error.os_error.errno
        reason = os.strerror(errno) if errno and errno > 0 else str(error.os_error)
        return f"{error.host}:{error.port}: {reason}"
    if type(error) is TimeoutError:
        return "no end of the answer in time"
    return str(error) or type(error).__name__
