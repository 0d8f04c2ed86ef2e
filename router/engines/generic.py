"""Any server that speaks the OpenAI API and publishes no metrics that we know."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from router.engines.base import UnrecognisedPageError

if TYPE_CHECKING:
    from router.core.sample import Sample


class Generic:
    """No metrics; alive when it answers HTTP at all, unless its ``/health`` says otherwise."""

    name = "generic"
    metrics_paths: tuple[str, ...] = ()
    health_path = "/health"
    health_optional = True

    def recognises(self, page: bytes) -> bool:  # noqa: ARG002 - it has no page
        """Never: what no other engine recognises is left to this one."""
        return False

    def parse(self, page: bytes) -> NoReturn:  # noqa: ARG002 - it has no page
        """There is nothing to parse.

        Raises:
            UnrecognisedPageError: Always.
        """
        msg = "a generic engine publishes no metrics"
        raise UnrecognisedPageError(msg)

    def unfit(self, page: bytes) -> str | None:  # noqa: ARG002 - it has no page
        """Never."""
        return None

    def gaps(self, sample: Sample) -> tuple[str, ...]:  # noqa: ARG002 - nothing is expected
        """None: nothing is expected."""
        return ()
