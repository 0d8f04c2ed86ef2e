"""Streams of the engines' own APIs: SGLang's, TGI's and llama.cpp's."""

import json
from itertools import pairwise

import pytest

from loadgen.engine import language_model
from loadgen.replica import prompts
from loadgen.replica.answer import Limits, compose
from loadgen.tokens import Special, token_text
from router.continuation.budget import Budget
from router.continuation.continuation import Continuation, Ending
from router.continuation.eligibility import judge
from router.continuation.reasons import Reason
from router.continuation.resume import Resume
from router.continuation.wish import Wish
from tests.fakes.streaming_engines import DONE, encoded

STORY = "Tell me a story"


def answer_to(prompt, most):
    ids = prompts.of_completion(prompt)
    state = language_model.read(language_model.start("m"), ids)
    answer = compose(state, len(ids), Limits(most=most))
    return ids, answer


def sglang(given, number, incremental=False):
    wanted = given.get("sampling_params") or {}
    ids, answer = answer_to(
        given.get("input_ids") or given["text"], wanted.get("max_new_tokens", 128)
    )
    events = []
    for made in range(1, len(answer.tokens) + 1):
        since = made - 1 if incremental else 0
        finish = (
            {"type": answer.finish_reason, "length": made} if made == len(answer.tokens) else None
        )
        meta = {
            "id": f"r{number}",
            "finish_reason": finish,
            "prompt_tokens": len(ids),
            "completion_tokens": made,
        }
        text = "".join(answer.pieces[since:made])
        events.append(
            encoded({"text": text, "output_ids": answer.tokens[since:made], "meta_info": meta})
        )
    return [*events, DONE]


def sglang_incremental(given, number):
    return sglang(given, number, incremental=True)


def tgi(given, number):
    wanted = given.get("parameters") or {}
    ids, answer = answer_to(given["inputs"], wanted.get("max_new_tokens", 100))
    events = []
    for index, token in enumerate(answer.tokens):
        last = index == len(answer.tokens) - 1
        end = token == Special.END_OF_TEXT
        details = {
            "finish_reason": answer.finish_reason,
            "generated_tokens": len(answer.tokens),
            "input_length": len(ids),
            "seed": None,
        }
        event = {
            "index": index + 1,
            "token": {"id": token, "text": token_text(token), "logprob": -1.0, "special": end},
            "generated_text": "".join(answer.pieces) if last else None,
            "details": details if last else None,
        }
        events.append(b"data:" + encoded(event)[6:])
    return events


def llamacpp(given, number):
    ids, answer = answer_to(given["prompt"], given.get("n_predict", 50))
    events = []
    for index, piece in enumerate(answer.pieces):
        events.append(
            encoded(
                {
                    "index": 0,
                    "content": piece,
                    "tokens": [],
                    "stop": False,
                    "id_slot": number,
                    "tokens_predicted": index + 1,
                    "tokens_evaluated": len(ids),
                }
            )
        )
    final = {
        "index": 0,
        "content": "",
        "stop": True,
        "stop_type": "limit" if answer.finish_reason == "length" else "eos",
        "tokens_predicted": len(answer.tokens),
        "tokens_evaluated": len(ids),
        "prompt": "…",
    }
    return [*events, encoded(final)]


CASES = {
    "sglang": (b"/generate", sglang, {"text": STORY, "sampling_params": {"max_new_tokens": 12}}),
    "sglang of tokens": (
        b"/generate",
        sglang,
        {"input_ids": [1, 2, 3], "sampling_params": {"max_new_tokens": 12}},
    ),
    "sglang incremental": (
        b"/generate",
        sglang_incremental,
        {"text": STORY, "sampling_params": {"max_new_tokens": 12}},
    ),
    "tgi": (b"/generate_stream", tgi, {"inputs": STORY, "parameters": {"max_new_tokens": 12}}),
    "llamacpp": (b"/completion", llamacpp, {"prompt": STORY, "n_predict": 12}),
}


def tell(path, engine, name, given, cut):
    body = json.dumps({"stream": True, **given}).encode()
    wish = judge(path, body)
    assert isinstance(wish, Wish), wish
    continuation = Continuation(wish, Budget(1 << 24), 1 << 20)
    sent = continuation.start(name)
    first = b"".join(engine(json.loads(sent), 0))
    got = continuation.passed(first[:cut])
    if cut >= len(first):
        assert continuation.complete
        return got
    resumed = continuation.resume(name)
    if isinstance(resumed, Ending):
        return got + resumed.data
    assert isinstance(resumed, Resume), resumed
    assert resumed.path is None
    got += continuation.passed(b"".join(engine(json.loads(resumed.body), 1)))
    assert continuation.complete
    return got


def events_of(data):
    return [
        json.loads(line[5:])
        for line in data.splitlines()
        if line.startswith((b"data: {", b"data:{"))
    ]


@pytest.mark.parametrize("case", CASES)
def test_a_cut_anywhere_is_not_seen(case):
    path, engine, given = CASES[case]
    whole = b"".join(engine(given, 0))
    for cut in range(0, len(whole) + 1, 5):
        got = tell(path, engine, case.partition(" ")[0], given, cut)
        check(case, events_of(got), events_of(whole))
        assert got.count(DONE) == whole.count(DONE)


def check(case, got, wanted):
    if case.startswith("sglang"):
        if "incremental" in case:
            assert "".join(event["text"] for event in got) == "".join(e["text"] for e in wanted)
        else:
            texts = [event["text"] for event in got]
            assert all(later.startswith(text) for text, later in pairwise(texts))
            assert texts[-1] == wanted[-1]["text"]
        assert len({event["meta_info"]["id"] for event in got}) == 1
        assert {**got[-1]["meta_info"], "id": "r0"} == wanted[-1]["meta_info"]
    elif case == "tgi":
        assert "".join(e["token"]["text"] for e in got if not e["token"]["special"]) == "".join(
            e["token"]["text"] for e in wanted if not e["token"]["special"]
        )
        assert got[-1]["generated_text"] == wanted[-1]["generated_text"]
        assert got[-1]["details"] == wanted[-1]["details"]
        assert [event["index"] for event in got] == [event["index"] for event in wanted]
    else:
        assert "".join(event["content"] for event in got) == "".join(e["content"] for e in wanted)
        for field in ("stop", "stop_type", "tokens_predicted", "tokens_evaluated"):
            assert got[-1][field] == wanted[-1][field]


def test_only_its_own_engine_goes_on_with_such_an_answer():
    path, engine, given = CASES["tgi"]
    body = json.dumps({"stream": True, **given}).encode()
    continuation = Continuation(judge(path, body), Budget(1 << 20), 1 << 20)
    continuation.start("tgi")
    continuation.passed(b"".join(engine(given, 0)[:3]))
    assert continuation.resume("vllm") is Reason.ENGINE
    assert isinstance(continuation.resume("tgi"), Resume)
