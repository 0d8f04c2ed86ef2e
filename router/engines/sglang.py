"""SGLang: Prometheus gauges with ``--enable-metrics``, JSON loads without.

The JSON is ``/v1/loads`` (0.5.23), before that ``/get_load``. Gauges carry rank labels: schedulers
of one data-parallel rank all report the same batch, once for each tensor- and pipeline-parallel
rank, when SGLang runs with ``--enable-metrics-for-all-schedulers``. So values are taken once a
data-parallel rank. With priority scheduling the total stands under ``priority=""`` beside a line
for each priority, which must not be added to it.
"""

from __future__ import annotations

import math

import msgspec

from router.core.sample import Sample
from router.engines.base import UnrecognisedPageError
from router.engines.gauges import JsonCount, mean_share, total
from router.engines.scan import Series, has_prefix, series


class _Load(msgspec.Struct):
    """One data-parallel rank, on either JSON page."""

    num_waiting_reqs: JsonCount
    num_running_reqs: JsonCount | None = None
    num_reqs: JsonCount | None = None
    """``/get_load``: running and waiting together."""
    token_usage: float | None = None

    @property
    def running(self) -> float:
        """Requests in the batch; NaN when the page tells it in neither way."""
        if self.num_running_reqs is not None:
            return self.num_running_reqs
        return math.nan if self.num_reqs is None else max(0, self.num_reqs - self.num_waiting_reqs)


class _Loads(msgspec.Struct):
    loads: list[_Load]


_JSON = msgspec.json.Decoder(_Loads | list[_Load])


class Sglang:
    """SGLang's HTTP server."""

    name = "sglang"
    metrics_paths = ("/metrics", "/v1/loads?include=core", "/get_load")
    health_path = "/health"
    health_optional = False

    def recognises(self, page: bytes) -> bool:
        """Whether a line starts with ``sglang:``, or the page is its JSON."""
        if has_prefix(page, b"sglang:"):
            return True
        try:
            return bool(_loads(page))
        except UnrecognisedPageError:
            return False

    def parse(self, page: bytes) -> Sample:
        """The gauges; see :class:`router.engines.base.Dialect`."""
        if page.lstrip()[:1] in (b"{", b"["):
            return _from_loads(_loads(page))
        if not has_prefix(page, b"sglang:"):
            msg = "no line starts with sglang:"
            raise UnrecognisedPageError(msg)
        return Sample(
            running=total(_by_rank(page, b"sglang:num_running_reqs")),
            waiting=total(_by_rank(page, b"sglang:num_queue_reqs")),
            kv_occupancy=mean_share(_by_rank(page, b"sglang:token_usage")),
            preemptions_total=total(_by_rank(page, b"sglang:num_retracted_requests_total")),
            prefix_queries_total=_counted(page, b"sglang:prompt_tokens_total"),
            prefix_hits_total=_counted(page, b"sglang:cached_tokens_total"),
            kv_block_tokens=_any(page, b"sglang:page_size"),
            kv_blocks=total(_by_rank(page, b"sglang:num_pages")),
        )

    def unfit(self, page: bytes) -> str | None:  # noqa: ARG002 - the page tells nothing of it
        """Never by its metrics: ``/health`` runs a real generation and so knows better."""
        return None

    def gaps(self, sample: Sample) -> tuple[str, ...]:
        """What both kinds of page should tell."""
        missed = []
        if sample.running is None:
            missed.append("no usable sglang:num_running_reqs")
        if sample.waiting is None:
            missed.append("no usable sglang:num_queue_reqs")
        if sample.kv_occupancy is None:
            missed.append("no usable sglang:token_usage (/get_load has none; --enable-metrics)")
        return tuple(missed)


def _by_rank(page: bytes, name: bytes) -> list[float]:
    """One value a data-parallel rank: the largest of its schedulers'."""
    ranks: dict[str, float] = {}
    for line in _totals(series(page, name)):
        rank = line.labels.get("dp_rank", "")
        ranks[rank] = max(line.value, ranks.get(rank, line.value))
    return list(ranks.values())


def _totals(lines: list[Series]) -> list[Series]:
    """The lines less the breakdown by priority."""
    if len(lines) == 1:
        return lines
    return [line for line in lines if not line.labels.get("priority")]


def _counted(page: bytes, name: bytes) -> int | None:
    """A counter of the tokenizer process, split by cache source and by the request's own labels."""
    return total(line.value for line in series(page, name))


def _any(page: bytes, name: bytes) -> int | None:
    return total(_by_rank(page, name)[:1])


def _loads(page: bytes) -> list[_Load]:
    try:
        decoded = _JSON.decode(page)
    except msgspec.MsgspecError as error:
        msg = f"neither gauges nor loads of SGLang: {error}"
        raise UnrecognisedPageError(msg) from error
    return decoded.loads if isinstance(decoded, _Loads) else decoded


def _from_loads(loads: list[_Load]) -> Sample:
    return Sample(
        running=total(load.running for load in loads),
        waiting=total(load.num_waiting_reqs for load in loads),
        kv_occupancy=mean_share(load.token_usage for load in loads if load.token_usage is not None),
    )
