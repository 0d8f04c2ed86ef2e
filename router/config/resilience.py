"""What an operator may want to turn of how the router deals with failure; see ``structs``."""

from __future__ import annotations

from typing import Annotated

import msgspec

from router.config.bounds import Count, Positive, Seconds, Share, Span, Times

Status = Annotated[int, msgspec.Meta(ge=429, le=599)]


class HealthConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """When a replica is taken out of service for what its requests say, and how it comes back."""

    failures_in_a_row: Positive = 3
    """So many failed requests without a good one between eject a replica. Failed: no connection,
    reset, garbled, or a 5xx other than 503, which like 429 only says that it is busy."""

    failure_share: Share = 0.5
    """And so does this share of failed requests, from 0 to 1 …"""

    failure_window_s: Seconds = 60.0
    """… over so long …"""

    failure_window_requests: Positive = 10
    """… if there were at least so many."""

    eject_s: Seconds = 5.0
    """The first ejection lasts so long, each further one twice as long …"""

    max_eject_s: Seconds = 120.0
    """… but never longer than this. Then one live request at a time shows how the replica fares."""

    max_ejected: Share = 0.5
    """Largest share of the replicas that may be ejected; at least one may, the last one never. One
    that makes no token at all is ejected beyond that."""

    panic_share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.5
    """With less than this share of the replicas in service, ejected ones are used as well; 0:
    never."""

    slow_start_s: Span = 20.0
    """A replica that comes back gets its full share by and by, after so long at the latest; 0: at
    once."""


class RetryConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Requests that are sent again, to another replica."""

    max_attempts: Positive = 3
    """Tries of one request, each on another replica, before anything was relayed; 1: no retries."""

    statuses: list[Status] = msgspec.field(default_factory=lambda: [429, 500, 502, 503])
    """Answers that are tried elsewhere: 429 or 5xx. Any other one is the client's."""

    share: Share = 0.2
    """Retries under way, as a share of all open requests; and retries because of a status, as a
    share of all requests."""

    minimum: Count = 3
    """But so many retries under way, however few requests are open."""

    hedge_after_s: Span = 0.0
    """A stream whose first token takes so long, and twice as long as expected, is sent to a second
    replica as well; the first to begin its answer goes on, the other is dropped. Counts as a retry.
    The head of an answer then comes with its first token. 0: never."""


class StallConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """How long a replica that has work may make no token at all before it is ejected, whatever its
    health endpoint says. To the first three is added what its work is expected to take."""

    least_s: Seconds = 3.0
    """With streams on their way: so long at least."""

    first_token_s: Seconds = 10.0
    """With prompts only of which nothing came yet."""

    whole_answer_s: Seconds = 30.0
    """With answers only that come in one piece."""

    most_s: Seconds = 60.0
    """With streams or prompts on their way: never longer than this."""

    stuck_s: Seconds = 60.0
    """A single stream may be silent for so long while its replica works."""


class GrayConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Replicas that work, but slower than they did, unlike their peers."""

    slow: Times = 2.0
    """So many times slower: its share of the requests is cut to match."""

    eject: Times = 4.0
    """So many times slower: it is ejected, where the others can carry the load."""

    looks: Positive = 2
    """But only after so many looks in a row, one a second."""
