"""Notices a replica that has work and makes no token, whatever its health endpoint says.

Silence is measured for the replica as a whole: one stream may rest while the engine has preempted
it, but an engine that works gives a token to somebody. How long it may be silent follows from what
it is doing and how fast it is known to be. Long prefills block the streams beside them in many
engines, and answers that are not streamed say nothing at all until they end.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, frozen=True, kw_only=True)
class StallSettings:
    """How long a replica may be silent."""

    least_s: float = 3.0
    """With streams on their way: so long at least."""

    report_factor: float = 5.0
    """And so many times the learned time between two reports of tokens of one stream."""

    prefill_factor: float = 2.0
    """And so many times the expected time of all prefills there, which may block the streams."""

    peak_factor: float = 2.0
    """And at least so many times the longest silence that was heard to end lately."""

    first_token_s: float = 10.0
    """With prefills only, instead of ``least_s``: what else waits there is not known. Not for a
    replica whose speed is known and which is out: of it ``least_s`` is asked."""

    whole_answer_s: float = 30.0
    """With unstreamed answers only, beside twice the time that they should take."""

    unlearned_s: float = 30.0
    """No less than this before the replica's speed is known."""

    learned_reports: int = 10
    """It is known after so many reports of tokens."""

    crowded_factor: float = 4.0
    """``least_s`` and ``first_token_s`` are longer by this where others' requests or preemptions
    may keep ours from their turn."""

    most_s: float = 60.0
    """With streams or prefills on their way: never longer than this."""

    stuck_s: float = 60.0
    """A single stream may be silent for so long at least while its replica works."""

    stuck_factor: float = 10.0
    """And for so many times what the replica as a whole may be."""

    own_pause_s: float = 1.0
    """When the router itself did nothing for so long, it may have missed what replicas said."""


PEAK_HALVES_S = 60.0
"""The longest silence heard is forgotten by half in this time."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Work:
    """What a replica is doing for this router now."""

    streams: int = 0
    """Answers of which more than the first event came and whose client reads. A first event says
    little: some engines send one before the prefill."""

    prefills: int = 0
    """Streamed requests of which no more than that came."""

    unstreamed: int = 0
    """Requests whose answer comes in one piece."""

    report_s: float = 0.0
    """Expected between two reports of tokens of one stream: tokens in a report x step time."""

    prefill_s: float = 0.0
    """Expected time of all prefills there, of unstreamed requests too."""

    answer_s: float = 0.0
    """Expected from the first token to the last of the longest unstreamed answer, taking its
    bound for its length."""

    crowded: bool = False
    """Whether requests of others wait there, or it preempted some lately."""

    probing: bool = False
    """Whether it is out, and has a request to see whether it is well: which is soon sent elsewhere,
    as nobody is known to be before it there."""


@dataclass(slots=True, frozen=True)
class Stall:
    """A replica is silent for too long."""

    silent_s: float
    allowed_s: float
    detail: str


class Silence:
    """How long one replica has been silent. Its methods are called for each report of tokens."""

    __slots__ = ("_peak_at_s", "heard_s", "peak_s", "reports")

    def __init__(self, now: float) -> None:
        self.heard_s = now
        """When it last said anything, or began to have work."""
        self.peak_s = 0.0
        """The longest silence that was heard to end, fading."""
        self.reports = 0
        self._peak_at_s = now

    def woken(self, now: float) -> None:
        """It had nothing to do, and has now."""
        self.heard_s = now

    def heard(self, now: float) -> None:
        """It streamed tokens, or ended an answer."""
        gap_s = now - self.heard_s
        self.heard_s = now
        self.reports += 1
        if gap_s > self.peak_s:
            self.peak_s = gap_s
            self._peak_at_s = now

    def forget_peak(self) -> None:
        """It was not well while it was silent."""
        self.peak_s = 0.0

    def fade(self, now: float) -> None:
        """Time has passed."""
        self.peak_s *= 0.5 ** ((now - self._peak_at_s) / PEAK_HALVES_S)
        self._peak_at_s = now


class StallWatch:
    """Compares silences with what is allowed.

    Args:
        settings: How long that is.
    """

    def __init__(self, settings: StallSettings) -> None:
        self.settings = settings
        self._ticked_s: float | None = None
        self._back_s: float | None = None

    def tick(self, now: float) -> None:
        """Time has passed; a gap between two calls is a pause of the router itself.

        After one, every replica is heard out anew: what it said meanwhile may still be unread.
        """
        ticked_s, self._ticked_s = self._ticked_s, now
        if ticked_s is not None and now - ticked_s >= self.settings.own_pause_s:
            self._back_s = now

    def look(self, silence: Silence, work: Work, now: float) -> Stall | None:
        """Whether the replica of ``silence`` is silent for too long, given its ``work``."""
        silence.fade(now)
        silent_s = self.silent_s(silence.heard_s, now)
        allowed_s = allowed_silence_s(silence, work, self.settings)
        if allowed_s is None or silent_s <= allowed_s:
            return None
        doing = f"{work.streams} streams, {work.prefills} prefills, {work.unstreamed} unstreamed"
        detail = f"no token for {silent_s:.1f} s with {doing}; {allowed_s:.1f} s are allowed"
        return Stall(silent_s, allowed_s, detail)

    def silent_s(self, heard_s: float, now: float) -> float:
        """How long it is since ``heard_s``, without what the router itself has missed."""
        return now - (heard_s if self._back_s is None else max(heard_s, self._back_s))

    def stuck(self, heard_s: float, silence: Silence, work: Work, now: float) -> bool:
        """Whether a single stream, last heard at ``heard_s``, will hardly go on.

        That says nothing of its replica: the engine may have preempted or lost it.
        """
        settings = self.settings
        allowed_s = allowed_silence_s(silence, work, settings)
        if allowed_s is None:
            return False
        limit_s = max(settings.stuck_s, settings.stuck_factor * allowed_s)
        return self.silent_s(heard_s, now) > limit_s


def allowed_silence_s(silence: Silence, work: Work, settings: StallSettings) -> float | None:
    """How long a replica may be silent; None: for ever, it has nothing to do.

    Streams are judged by the time between two reports, prefills by the sum of what they should
    take (engines differ in whether the first one is told of before the last), unstreamed answers
    by what the longest of them should take.
    """
    crowded = settings.crowded_factor if work.crowded and not work.probing else 1.0
    prefill_s = settings.prefill_factor * work.prefill_s
    if work.streams:
        allowed_s = settings.least_s * crowded + settings.report_factor * work.report_s + prefill_s
        allowed_s = max(allowed_s, settings.peak_factor * silence.peak_s)
    elif work.prefills:
        first_s = settings.least_s if work.probing else settings.first_token_s
        allowed_s = first_s * crowded + prefill_s
    elif work.unstreamed:
        return settings.whole_answer_s + prefill_s + 2.0 * work.answer_s
    else:
        return None
    if silence.reports < settings.learned_reports:
        allowed_s = max(allowed_s, settings.unlearned_s)
    return min(allowed_s, settings.most_s)
