"""Who is told what the poller sees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from router.core.replica import Replica
    from router.core.sample import Sample


class Sink(Protocol):
    """The events of the fleet, as :class:`router.core.dispatcher.Dispatcher` takes them.

    What the methods return is not looked at, so a wrapper that performs the dispatcher's actions
    fits too.
    """

    def look_began(self, replica: Replica) -> object:
        """The metrics of ``replica`` are asked for now."""

    def sampled(self, replica: Replica, sample: Sample, now: float) -> object:
        """The metrics of ``replica`` were read at ``now``."""

    def sample_failed(self, replica: Replica, reason: str) -> object:
        """The metrics of ``replica`` could not be read."""

    def health_seen(self, replica: Replica, *, healthy: bool, reason: str) -> object:
        """The health of ``replica`` was looked at; ``reason`` says why it is what it is."""

    def engine_seen(self, replica: Replica, engine: str) -> object:
        """It was found out which engine ``replica`` runs."""

    def models_seen(
        self, replica: Replica, models: Iterable[str], entries: Mapping[str, bytes]
    ) -> object:
        """``replica`` listed its models; none: it serves whatever is asked of it.

        ``entries`` holds what it says of each, a JSON object.
        """
