import logging

import pytest

from router.core.request import Failure, State
from router.telemetry.telemetry import (
    E2E_BOUNDS_S,
    MAX_MODELS,
    OTHER_MODEL,
    PROMPT_BOUNDS_TOKENS,
    TTFT_BOUNDS_S,
    Telemetry,
)
from tests.fakes.fake_router import FakeRouter


def values(histogram):
    return sum(histogram.counts), histogram.total


def test_an_answered_request_is_counted_once_in_each_histogram():
    router = FakeRouter(replicas=["a:1"])
    router.serve(ttft_s=0.25, e2e_s=4.0, prompt_tokens=700)
    [(key, series)] = router.telemetry.series.items()
    assert key == ("m", "a:1")
    assert series.ended == {(State.DONE, 2): 1}
    assert values(series.ttft_s) == (1, 0.25)
    assert values(series.e2e_s[2]) == (1, 4.0)
    assert values(router.telemetry.prompt_tokens["m"]) == (1, 700)


def test_an_error_of_the_replica_has_no_ttft_and_its_own_e2e():
    router = FakeRouter(replicas=["a:1"])
    router.serve(status=503, e2e_s=0.5)
    [series] = router.telemetry.series.values()
    assert series.ended == {(State.DONE, 5): 1}
    assert values(series.ttft_s) == (0, 0.0)
    assert list(series.e2e_s) == [5]


def test_a_refused_request_belongs_to_no_replica():
    router = FakeRouter(replicas=[])
    router.arrive()
    [(key, series)] = router.telemetry.series.items()
    assert key == (OTHER_MODEL, "none")
    assert series.ended == {(State.REFUSED, 5): 1}
    assert series.e2e_s == {}


def test_a_client_that_left_is_counted_apart():
    router = FakeRouter(replicas=["a:1"])
    router.dispatcher.client_gone(router.arrive(), 101.0)
    [series] = router.telemetry.series.values()
    assert series.ended == {(State.GONE, 0): 1}
    assert series.e2e_s == {}


def test_a_failed_request_belongs_to_the_last_replica_tried():
    router = FakeRouter(replicas=["a:1", "b:1", "c:1"])
    request = router.arrive()
    while request.attempt is not None:
        router.dispatcher.attempt_failed(request.attempt, Failure.PROTOCOL, 101.0)
    [(key, series)] = router.telemetry.series.items()
    assert key == ("m", request.tried[-1].name)
    assert series.ended == {(State.FAILED, 5): 1}


def test_a_request_without_a_model_is_none():
    router = FakeRouter(replicas=["a:1"])
    router.serve(model=None)
    assert list(router.telemetry.series) == [("none", "a:1")]


def test_names_that_clients_make_up_share_one_series_and_no_memory():
    router = FakeRouter(replicas=["any:1"], models=[])  # lists nothing, so it serves all
    for number in range(1000):
        router.serve(model=f"made-up-{number}")
    assert list(router.telemetry.series) == [(OTHER_MODEL, "any:1")]
    assert router.telemetry._by_name == {}
    assert values(router.telemetry.prompt_tokens[OTHER_MODEL])[0] == 1000


def test_a_fleet_with_thousands_of_adapters_has_a_bounded_number_of_series():
    adapters = [f"adapter-{number}" for number in range(MAX_MODELS + 50)]
    router = FakeRouter(replicas=["a:1"], models=adapters)
    for _ in range(2):
        for adapter in adapters:
            router.serve(model=adapter)
    assert len(router.telemetry.prompt_tokens) == MAX_MODELS + 1
    assert len(router.telemetry.series) == MAX_MODELS + 1
    assert sum(s.ended[State.DONE, 2] for s in router.telemetry.series.values()) == 2 * len(
        adapters
    )


def test_the_series_of_a_replica_that_left_are_dropped():
    router = FakeRouter(replicas=["a:1", "b:1"])
    for _ in range(4):
        router.serve()
    router.telemetry.forget(router.fleet.remove("a:1"))
    assert list(router.telemetry.series) == [("m", "b:1")]
    router.join("a:1", ["m"])
    router.serve()
    router.serve()
    assert router.telemetry.series["m", "a:1"].ended == {(State.DONE, 2): 1}


@pytest.mark.parametrize("bounds", [TTFT_BOUNDS_S, E2E_BOUNDS_S, PROMPT_BOUNDS_TOKENS])
def test_bounds_rise(bounds):
    assert list(bounds) == sorted(set(bounds))


def test_a_failing_policy_is_logged_once_a_minute_with_its_traceback(caplog):
    times = iter((0.0, 1.0, 59.9, 60.0, 61.0))
    telemetry = Telemetry(lambda: next(times))

    def fail():
        try:
            [].pop()
        except IndexError as error:
            telemetry.policy_failed(error)

    with caplog.at_level(logging.ERROR, "pointsman.policy"):
        for _ in range(5):
            fail()
    first, second = caplog.records
    assert "pop from empty list" in first.exc_text
    assert "[].pop()" in first.exc_text
    assert "(0 more failures" in first.getMessage()
    assert "(2 more failures" in second.getMessage()
