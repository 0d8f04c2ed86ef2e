"""Metric families in pieces.

A fleet of 500 replicas has 25,000 series, which take a quarter of a second to write. Streams would
stand still for so long, so a family is made and written in pieces with a breath between them (see
:mod:`router.telemetry.page`). Pieces of one family follow each other and have the same name.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from router.telemetry.histogram import Histogram

PIECE_SAMPLES = 100
"""About a millisecond of work."""

HISTOGRAMS_PER_PIECE = 5

_T = TypeVar("_T")


def gauges(
    name: str, text: str, labels: Sequence[str], rows: Iterable[tuple[Sequence[str], float]]
) -> Iterator[Metric]:
    """Yield a family of gauges.

    Args:
        name: Its name, with the unit.
        text: What it tells.
        labels: Names of its labels.
        rows: Values of the labels, and the value.
    """
    for block in _blocks(rows, PIECE_SAMPLES):
        family = GaugeMetricFamily(name, text, labels=labels)
        for values, value in block:
            family.add_metric(values, value)
        yield family


def counters(
    name: str, text: str, labels: Sequence[str], rows: Iterable[tuple[Sequence[str], float]]
) -> Iterator[Metric]:
    """Yield a family of counters; ``_total`` is added to the name.

    Args:
        name: Its name, with the unit.
        text: What it tells.
        labels: Names of its labels.
        rows: Values of the labels, and the count.
    """
    for block in _blocks(rows, PIECE_SAMPLES):
        family = CounterMetricFamily(name, text, labels=labels)
        for values, value in block:
            family.add_metric(values, value)
        yield family


def histograms(
    name: str, text: str, labels: Sequence[str], rows: Iterable[tuple[Sequence[str], Histogram]]
) -> Iterator[Metric]:
    """Yield a family of histograms.

    Args:
        name: Its name, with the unit.
        text: What it tells.
        labels: Names of its labels.
        rows: Values of the labels, and the histogram.
    """
    for block in _blocks(rows, HISTOGRAMS_PER_PIECE):
        family = HistogramMetricFamily(name, text, labels=labels)
        for values, histogram in block:
            family.add_metric(values, histogram.buckets(), histogram.total)
        yield family


def _blocks(rows: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Cut into blocks; at least one, as a family without series still has its help text."""
    source = iter(rows)
    yield list(islice(source, size))
    while block := list(islice(source, size)):
        yield block
