"""Text Generation Inference: a batch and a queue, nothing of the KV cache."""

from __future__ import annotations

from router.core.sample import Sample
from router.engines.base import UnrecognisedPageError
from router.engines.gauges import total, values
from router.engines.scan import has_prefix, series


class Tgi:
    """TGI's router."""

    name = "tgi"
    metrics_paths = ("/metrics",)
    health_path = "/health"
    health_optional = False

    def recognises(self, page: bytes) -> bool:
        """Whether a line starts with ``tgi_``."""
        return has_prefix(page, b"tgi_")

    def parse(self, page: bytes) -> Sample:
        """The gauges; see :class:`router.engines.base.Dialect`."""
        if not self.recognises(page):
            msg = "no line starts with tgi_ (TGI publishes none before its first request)"
            raise UnrecognisedPageError(msg)
        return Sample(
            running=total(values(series(page, b"tgi_batch_current_size"))),
            waiting=total(values(series(page, b"tgi_queue_size"))),
        )

    def unfit(self, page: bytes) -> str | None:  # noqa: ARG002 - the page tells nothing of it
        """Never by its metrics."""
        return None

    def gaps(self, sample: Sample) -> tuple[str, ...]:
        """The two gauges that there are."""
        missed = []
        if sample.running is None:
            missed.append("no usable tgi_batch_current_size")
        if sample.waiting is None:
            missed.append("no usable tgi_queue_size")
        return tuple(missed)
