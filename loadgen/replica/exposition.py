"""The Prometheus text format, with the labels of each sample sorted as its Python client does."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadgen.replica.statistics import Histogram


class Page:
    """A metrics page in the making.

    Args:
        labels: The labels of every sample, if nothing else is said.
        created_s: When counting began, for the ``_created`` samples that Python servers have;
            None: there are none.
    """

    def __init__(
        self, labels: Mapping[str, str] | None = None, created_s: float | None = None
    ) -> None:
        self._labels = dict(labels or {})
        self._created_s = created_s
        self._lines: list[str] = []

    def gauge(self, name: str, text: str, value: float) -> None:
        """A gauge with one sample."""
        self._head(name, "gauge", text)
        self._lines.append(f"{name}{_braces(self._labels)} {float(value)}")

    def counter(self, name: str, text: str, value: float) -> None:
        """A counter with one sample."""
        self._head(name, "counter", text)
        self._lines.append(f"{name}{_braces(self._labels)} {float(value)}")
        self._created(name.removesuffix("_total"), text, self._labels)

    def family(
        self, name: str, kind: str, text: str, label: str, samples: Mapping[str, float]
    ) -> None:
        """Samples that differ in the value of ``label``."""
        self._head(name, kind, text)
        for key, value in samples.items():
            self._lines.append(f"{name}{_braces({**self._labels, label: key})} {float(value)}")

    def info(self, name: str, text: str, labels: Mapping[str, str], value: float = 1) -> None:
        """A gauge whose labels, and no others, are what it is about."""
        self._head(name, "gauge", text)
        self._lines.append(f"{name}{_braces(labels)} {float(value)}")

    def histogram(
        self, name: str, text: str, histogram: Histogram, own: Mapping[str, str] | None = None
    ) -> None:
        """A histogram, by cumulated buckets; ``own`` labels join those of the page."""
        self._head(name, "histogram", text)
        labels = {**self._labels, **(own or {})}
        before, _, after = _braces({**labels, "le": "\0"}).partition("\0")
        counts = list(accumulate(histogram.counts))
        self._lines += [
            f"{name}_bucket{before}{bound}{after} {float(count)}"
            for bound, count in zip((*histogram.bounds, "+Inf"), counts, strict=True)
        ]
        self._lines.append(f"{name}_count{_braces(labels)} {float(counts[-1])}")
        self._lines.append(f"{name}_sum{_braces(labels)} {histogram.total}")
        self._created(name, text, labels)

    def render(self) -> bytes:
        """The page."""
        return ("\n".join(self._lines) + "\n").encode()

    def _created(self, name: str, text: str, labels: Mapping[str, str]) -> None:
        if self._created_s is not None:
            self._head(f"{name}_created", "gauge", text)
            self._lines.append(f"{name}_created{_braces(labels)} {self._created_s}")

    def _head(self, name: str, kind: str, text: str) -> None:
        self._lines.append(f"# HELP {name} {text}")
        self._lines.append(f"# TYPE {name} {kind}")


def _braces(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{key}="{_escaped(labels[key])}"' for key in sorted(labels)) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
