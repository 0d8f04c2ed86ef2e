"""LMetric: the product, what each factor holds, and that nothing needs a unit."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from policies.base import RequestFacts
from policies.lmetric import LMetric
from policies.testing import View


def busy(name, in_flight, queued=0, last=0):
    return View(name, in_flight=in_flight, in_flight_prefill_tokens=queued, last_dispatch=last)


def chosen(*replicas, prompt=1000, cached=None):
    request = RequestFacts(prompt_tokens=prompt, cached=cached or {})
    return LMetric().choose(request, replicas, Random(0)).replica.name


def test_the_product_of_new_tokens_and_batch_decides():
    # (1000 - 600) x 11 = 4400 against 1000 x 5 = 5000 and 1000 x 4 = 4000.
    assert chosen(busy("a", 10), busy("b", 4), cached={"a": 600}) == "a"
    assert chosen(busy("a", 10), busy("b", 3), cached={"a": 600}) == "b"


def test_queued_prefills_add_to_the_new_tokens():
    # (300 + 1000) x 3 = 3900 against 1000 x 4 = 4000; with 400 queued it is 4200.
    assert chosen(busy("a", 2, queued=300), busy("b", 3)) == "a"
    assert chosen(busy("a", 2, queued=400), busy("b", 3)) == "b"


def test_of_idle_replicas_the_one_with_the_prefix_wins():
    # Without the request itself in the batch both products would be zero.
    assert chosen(busy("a", 0), busy("b", 0, last=1), cached={"b": 10}) == "b"


def test_a_prompt_that_is_cached_everywhere_goes_to_the_smaller_batch():
    # One token at least is computed, so a full hit does not make every batch equal.
    assert chosen(busy("a", 8), busy("b", 5), cached={"a": 1000, "b": 1000}) == "b"
    assert chosen(busy("a", 8), busy("b", 5), cached={"a": 1000, "b": 2000}) == "b"


def test_equal_products_go_to_the_smaller_batch_and_then_in_turn():
    # 1500 x 2 = 1000 x 3.
    assert chosen(busy("a", 2), busy("b", 1, queued=500)) == "b"
    assert chosen(busy("a", 2, last=9), busy("b", 2, last=4), busy("c", 2, last=7)) == "b"


loads = st.lists(
    st.tuples(st.integers(0, 500), st.integers(0, 10**5), st.integers(0, 999)),
    min_size=1,
    max_size=10,
)


@given(loads, st.integers(2, 1000))
def test_the_unit_of_tokens_does_not_matter(loads, factor):
    def choose(unit):
        replicas = [busy(f"r{i}", n, queued * unit) for i, (n, queued, _) in enumerate(loads)]
        cached = {f"r{i}": c * unit for i, (_, _, c) in enumerate(loads)}
        return chosen(*replicas, prompt=1000 * unit, cached=cached)

    assert choose(1) == choose(factor)


@given(loads)
def test_nobody_is_better_in_everything_than_the_chosen_one(loads):
    replicas = [busy(f"r{i}", n, queued) for i, (n, queued, _) in enumerate(loads)]
    cached = {f"r{i}": c for i, (_, _, c) in enumerate(loads)}
    best = next(r for r in replicas if r.name == chosen(*replicas, cached=cached))
    for other in replicas:
        assert not (
            other.in_flight < best.in_flight
            and other.in_flight_prefill_tokens < best.in_flight_prefill_tokens
            and cached[other.name] > cached[best.name]
        )
