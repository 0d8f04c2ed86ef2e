"""The shape of an engine's dialect.

A dialect knows names and places, nothing else: it does no I/O and keeps no state. (It is not
called an adapter, because an adapter is a LoRA here.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from router.core.sample import Sample


class UnrecognisedPageError(ValueError):
    """The page is not one of this engine's; the message says what was missed."""


class Dialect(Protocol):
    """How one engine tells its load and its health."""

    @property
    def name(self) -> str:
        """The name in the configuration."""

    @property
    def metrics_paths(self) -> tuple[str, ...]:
        """Where its load can be read, best first; empty: nowhere."""

    @property
    def health_path(self) -> str:
        """Where its health can be read."""

    @property
    def health_optional(self) -> bool:
        """Whether a server without that path may be alive all the same."""

    def recognises(self, page: bytes) -> bool:
        """Whether ``page`` was written by this engine."""

    def parse(self, page: bytes) -> Sample:
        """The gauges on ``page``; those that are missing, NaN or absurd are None.

        Raises:
            UnrecognisedPageError: The page is not one of this engine's.
            ValueError: The page is this engine's and broken.
        """

    def unfit(self, page: bytes) -> str | None:
        """Why, by its own account on ``page``, the replica cannot serve; None when it can."""

    def gaps(self, sample: Sample) -> tuple[str, ...]:
        """What a page of this engine should have told and did not, in words for the operator.

        Without this a renamed gauge goes unnoticed, and every replica looks idle for ever.
        """
