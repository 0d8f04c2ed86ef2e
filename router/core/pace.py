"""Learns the speed of one replica from the first tokens and the streams that pass by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from router.core.regression import Regression

if TYPE_CHECKING:
    from policies.forecast import Forecast, Prefill, Stream

SAME_STEP_S = 0.004
"""First tokens that come so close together are of one step of the engine."""

PROBE_TOKENS = 16
"""A stream is measured over so many tokens at least, or over :data:`PROBE_S`."""

PROBE_S = 1.0

DOUBT = 0.7
"""How far the first terms may be off, as a share of each."""

NOISE = 0.25
"""How far one observation may be off, as a share of it."""

MEMORY = 200.0
"""Observations by which the terms are learned."""

FOLLOW = 0.1
"""Share of a change of speed that is believed at each observation: two thirds after ten."""


class Pace:
    """What is observed of one replica, and the terms of its speed learned from it.

    Prefills: the engine works them off in the order in which they were sent, so from one first
    token to the next (or from its sending, if it came to an idle engine) is what one prefill
    took. First tokens of one step are one observation.

    Decodes: all streams take the same steps, so one of them is enough to count them. What is left
    of its time when the time of prefills is taken out, was spent on the steps that these did not
    carry::

        time - prefills' time = step time x (steps - prefills - steps_per_token x their tokens)
    """

    __slots__ = (
        "_counted",
        "_decode",
        "_group",
        "_last_s",
        "_prefill",
        "_probe_counted",
        "_probe_s",
        "_probe_tokens",
        "forecast",
        "probe",
    )

    def __init__(self, forecast: Forecast) -> None:
        self.forecast = forecast
        speed = forecast.speed
        self._prefill = Regression(
            [speed.prefill_s, speed.token_s * 1e3, speed.pair_s * 1e6], DOUBT, NOISE, MEMORY
        )
        self._decode = Regression(
            [
                speed.step_s,
                speed.stream_s,
                speed.context_s * 1e4,
                speed.step_s * speed.steps_per_token * 1e3,
            ],
            DOUBT,
            NOISE,
            MEMORY,
        )
        self._last_s = 0.0
        self._group = (0.0, 0.0, 0.0)
        """Tokens, pairs of tokens and seconds of the prefills whose first tokens came last."""
        self._counted = (0.0, 0.0, 0)
        """Seconds, tokens and groups of all prefills."""
        self.probe: object = None
        """The key of the stream that is measured; :meth:`progress` needs to hear of no other."""
        self._probe_s = 0.0
        self._probe_tokens = 0
        self._probe_counted = self._counted

    def first_token(self, prefill: Prefill, now: float) -> None:
        """The prefill of a request ended."""
        tokens = prefill.new_tokens
        pairs = tokens * (prefill.cached_tokens + tokens / 2)
        took_s = max(now - max(prefill.sent_s, self._last_s), 0.0)
        seconds, all_tokens, groups = self._counted
        if now - self._last_s <= SAME_STEP_S:
            before = self._group
            self._group = (before[0] + tokens, before[1] + pairs, before[2] + took_s)
        else:
            self._learn_prefill()
            self._group = (tokens, pairs, took_s)
            groups += 1
        self._counted = (seconds + took_s, all_tokens + tokens, groups)
        self._last_s = now

    def unseen_prefill(self, now: float) -> None:
        """A prefill ended that gave no sign of it: the next one begins here."""
        self._last_s = now

    def progress(self, key: object, stream: Stream, now: float) -> None:
        """A stream was seen to have come further."""
        if self.probe is not key:
            if self.probe is None:
                self._watch(key, stream.tokens, now)
            return
        steps = stream.tokens - self._probe_tokens
        if steps < PROBE_TOKENS and now - self._probe_s < PROBE_S:
            return
        (seconds, tokens, groups), before = self._counted, self._probe_counted
        seconds, tokens, groups = seconds - before[0], tokens - before[1], groups - before[2]
        rest_s = now - self._probe_s - seconds
        if steps - groups >= 4 and rest_s > 0:
            self._learn_decode(steps - groups, rest_s, tokens)
        self._watch(key, stream.tokens, now)

    def gone(self, key: object) -> None:
        """A stream ended."""
        if self.probe is key:
            self.probe = None

    def _watch(self, key: object, tokens: int, now: float) -> None:
        self.probe, self._probe_tokens, self._probe_s = key, tokens, now
        self._probe_counted = self._counted

    def _learn_prefill(self) -> None:
        tokens, pairs, took_s = self._group
        if took_s <= 0:
            return
        speed = self.forecast.speed
        terms = [1.0, tokens / 1e3, pairs / 1e6]
        took_s /= speed.prefill_factor
        speed.prefill_factor *= 1 + FOLLOW * _off(took_s, self._prefill.predict(terms))
        self._prefill.learn(terms, took_s)
        base, per_1000, per_million_pairs = self._prefill.values
        speed.prefill_s, speed.token_s, speed.pair_s = base, per_1000 / 1e3, per_million_pairs / 1e6

    def _learn_decode(self, steps: float, rest_s: float, prefill_tokens: float) -> None:
        speed, forecast = self.forecast.speed, self.forecast
        streams, context = len(forecast.streams), forecast.context_tokens / 1e4
        terms = [steps, steps * streams, steps * context, -prefill_tokens / 1e3]
        rest_s /= speed.step_factor
        expected_s = max(self._decode.predict(terms), 1e-3)
        speed.step_factor *= 1 + FOLLOW / 2 * _off(rest_s, expected_s)
        self._decode.learn(terms, rest_s)
        base, per_stream, per_10000, carried = self._decode.values
        speed.step_s, speed.stream_s, speed.context_s = base, per_stream, per_10000 / 1e4
        step_s = base + per_stream * streams + per_10000 * context
        speed.steps_per_token = carried / 1e3 / step_s


def _off(seen_s: float, expected_s: float) -> float:
    """How far something is off, as a share, and no further than an outlier may count."""
    return min(max(seen_s / expected_s - 1, -0.7), 0.7)
