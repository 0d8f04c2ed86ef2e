from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client import Histogram as TheirHistogram

from router.telemetry.histogram import Histogram

BOUNDS = (0.1, 1.0, 10.0)


def theirs(values):
    registry = CollectorRegistry()
    histogram = TheirHistogram("x", "x", buckets=BOUNDS, registry=registry)
    for value in values:
        histogram.observe(value)
    samples = [s for metric in registry.collect() for s in metric.samples]
    buckets = [(s.labels["le"], s.value) for s in samples if s.name == "x_bucket"]
    return buckets, next(s.value for s in samples if s.name == "x_sum")


@given(st.lists(st.sampled_from([0.0, 0.1, 1.0, 10.0]) | st.floats(0, 100), max_size=20))
def test_it_counts_as_prometheus_does(values):
    histogram = Histogram(BOUNDS)
    for value in values:
        histogram.observe(value)
    assert (histogram.buckets(), histogram.total) == theirs(values)
