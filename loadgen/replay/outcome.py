"""How one request of a replay ended."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Failure(Enum):
    """Kinds of failure; a status other than 200 is reported as ``status NNN``."""

    CONNECT = "connect"
    """No connection could be made."""
    NO_ANSWER = "no_answer"
    """The connection broke before the head of an answer came."""
    TIMEOUT = "timeout"
    """The request had not ended after the time-out."""
    STATUS = "status"
    """The status was not 200."""
    TRUNCATED = "truncated"
    """The stream ended before the answer did: neither a finish reason nor ``[DONE]``, or the
    connection broke before ``[DONE]``."""
    ERROR_EVENT = "error_event"
    """The server reported an error inside a stream that had begun with 200."""
    BAD_ANSWER = "bad_answer"
    """The answer was no HTTP, no event stream, or had no token or an event that is no JSON."""


@dataclass(slots=True)
class Outcome:
    """Times are seconds of the client's clock since the run began."""

    number: int
    """Place of the request in its trace."""

    prompt_tokens: int
    """Wanted length of the prompt."""

    output_tokens: int
    """Wanted length of the answer."""

    scheduled_s: float
    sent_s: float
    ended_s: float = 0.0
    first_token_s: float | None = None
    replica: str | None = None
    generated_tokens: int = 0
    """Output tokens as the server counted them; events with tokens where it did not."""

    reported_prompt_tokens: int | None = None
    """Length of the prompt as the server counted it."""

    cached_tokens: int | None = None
    failure: Failure | None = None
    status: int | None = None
    detail: str = ""
    """What the failure said."""

    def fail(self, failure: Failure, detail: str) -> None:
        """Note a failure; the first one stays."""
        if self.failure is None:
            self.failure = failure
            self.detail = one_line(detail)

    @property
    def kind(self) -> str | None:
        """The kind of failure as it is reported; None for a success."""
        if self.failure is Failure.STATUS:
            return f"status {self.status}"
        return None if self.failure is None else self.failure.value

    @property
    def ttft_s(self) -> float | None:
        """From sending to the first token."""
        return None if self.first_token_s is None else self.first_token_s - self.sent_s

    @property
    def e2e_s(self) -> float:
        """From sending to the end."""
        return self.ended_s - self.sent_s

    @property
    def tpot_s(self) -> float | None:
        """(E2E - TTFT) / (n - 1); None for an answer of fewer than two tokens."""
        if self.first_token_s is None or self.generated_tokens < 2:
            return None
        return (self.ended_s - self.first_token_s) / (self.generated_tokens - 1)


def one_line(text: str) -> str:
    """``text`` as one line of bounded length."""
    return " ".join(text.split())[:300]
