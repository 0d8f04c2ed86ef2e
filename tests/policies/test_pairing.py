from hypothesis import given
from hypothesis import strategies as st

from policies.pairing import Answer, Pair, Prompt, cheapest_pairs
from policies.testing import View

halves = st.lists(st.floats(0, 10), min_size=1, max_size=6)


def prompts_of(costs):
    return [Prompt(View(f"p{n}"), 0.0, 0.0, 0, 0.0, cost) for n, cost in enumerate(costs)]


def answers_of(costs):
    return [Answer(View(f"d{n}"), 0.0, 0, 0.0, cost) for n, cost in enumerate(costs)]


def sums(more, calls=None):
    """Weighs a pair as its halves and what ``more`` says of it."""

    def weigh(prompt, answer):
        if calls is not None:
            calls.append((prompt, answer))
        extra = more(prompt.replica.name, answer.replica.name)
        return Pair(prompt, answer, 0.0, prompt.cost + answer.cost + extra)

    return weigh


@given(halves, halves, st.dictionaries(st.tuples(st.integers(0, 5), st.integers(0, 5)), halves))
def test_no_pair_is_cheaper_than_the_first(prompt_costs, answer_costs, extras):
    def more(prompt, answer):
        return extras.get((int(prompt[1:]), int(answer[1:])), [0.0])[0]

    prompts, answers = prompts_of(prompt_costs), answers_of(answer_costs)
    found = cheapest_pairs(prompts, answers, sums(more), 8)
    every = [sums(more)(prompt, answer).cost for prompt in prompts for answer in answers]
    assert found[0].cost == min(every)
    assert [pair.cost for pair in found] == sorted(pair.cost for pair in found)


def test_one_pair_is_weighed_where_one_replica_stands_out_on_each_side():
    calls = []
    prompts, answers = prompts_of([float(n) for n in range(50)]), answers_of([*range(50)])
    cheapest_pairs(prompts, answers, sums(lambda *_: 0.0, calls), 8)
    assert len(calls) == 1


def test_a_replica_is_no_pair_with_itself():
    replica, other = View("a"), View("b")
    prompt = Prompt(replica, 0.0, 0.0, 0, 0.0, 1.0)
    answers = [Answer(replica, 0.0, 0, 0.0, 1.0), Answer(other, 0.0, 0, 0.0, 5.0)]
    [pair] = cheapest_pairs([prompt], answers, sums(lambda *_: 0.0), 8)
    assert pair.answer.replica is other
    assert cheapest_pairs([prompt], answers[:1], sums(lambda *_: 0.0), 8) == []


def test_without_answers_there_is_no_pair():
    assert cheapest_pairs(prompts_of([1.0]), [], sums(lambda *_: 0.0), 8) == []
