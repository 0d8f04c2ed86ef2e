"""llama.cpp's server: gauges with ``--metrics`` (501 without), else its slots."""

from __future__ import annotations

import msgspec

from router.core.sample import Sample
from router.engines.base import UnrecognisedPageError
from router.engines.gauges import mean_share, total, values
from router.engines.scan import has_prefix, series


class _Slot(msgspec.Struct):
    is_processing: bool


_JSON = msgspec.json.Decoder(list[_Slot])


class Llamacpp:
    """``llama-server``."""

    name = "llamacpp"
    metrics_paths = ("/metrics", "/slots")
    health_path = "/health"
    health_optional = False

    def recognises(self, page: bytes) -> bool:
        """Whether a line starts with ``llamacpp:``, or the page is a list of slots."""
        if has_prefix(page, b"llamacpp:"):
            return True
        try:
            return bool(_slots(page))
        except UnrecognisedPageError:
            return False

    def parse(self, page: bytes) -> Sample:
        """The gauges; see :class:`router.engines.base.Dialect`.

        The slots tell what runs; what waits stands on the metrics page only. Older builds
        published a KV gauge too.
        """
        if page.lstrip()[:1] == b"[":
            return Sample(running=sum(slot.is_processing for slot in _slots(page)))
        if not has_prefix(page, b"llamacpp:"):
            msg = "no line starts with llamacpp:"
            raise UnrecognisedPageError(msg)
        processed = total(values(series(page, b"llamacpp:prompt_tokens_total")))
        cached = total(values(series(page, b"llamacpp:prompt_tokens_cached_total")))
        known = processed is not None and cached is not None
        return Sample(
            running=total(values(series(page, b"llamacpp:requests_processing"))),
            waiting=total(values(series(page, b"llamacpp:requests_deferred"))),
            kv_occupancy=mean_share(values(series(page, b"llamacpp:kv_cache_usage_ratio"))),
            prefix_queries_total=(processed or 0) + (cached or 0) if known else None,
            prefix_hits_total=cached if known else None,
        )

    def unfit(self, page: bytes) -> str | None:  # noqa: ARG002 - the page tells nothing of it
        """Never by its metrics."""
        return None

    def gaps(self, sample: Sample) -> tuple[str, ...]:
        """What both kinds of page should tell; the KV gauge is gone from llama.cpp."""
        missed = []
        if sample.running is None:
            missed.append("no usable llamacpp:requests_processing")
        if sample.waiting is None:
            missed.append("no usable llamacpp:requests_deferred (/slots has none; --metrics)")
        return tuple(missed)


def _slots(page: bytes) -> list[_Slot]:
    try:
        return _JSON.decode(page)
    except msgspec.MsgspecError as error:
        msg = f"neither gauges nor slots of llama.cpp: {error}"
        raise UnrecognisedPageError(msg) from error
