"""What the router tells of its decisions, and the objectives that requests name."""

from __future__ import annotations

import re

from tests.e2e.marks import e2e
from tests.fakes.command import pointsman
from tests.fakes.raw_client import raw_client, request

pytestmark = e2e("decisions")

REPLICAS = [["m"], ["m"]]
CONFIG = {
    "policy": {"name": "least_estimated_completion"},
    "slo": {"models": {"m": "ttft=1s"}, "classes": {"batch": "ttft=60s", "agent": "tpot=20ms"}},
    "tenant_header": "X-Tenant",
}
BODY = b'{"model": "m", "prompt": "a few words", "stream": true}'
DECISION = re.compile(
    rb"replica=127\.0\.0\.1:\d+; reason=\w+(; ttft=\d+\.\d{3})?; candidates=2; held=0\.\d{3}"
)


async def ask(router, *fields):
    async with raw_client(router.url) as client:
        client.write(request("POST", "/v1/completions", BODY, *fields))
        return await client.answer()


async def test_an_answer_tells_its_decision_when_it_is_asked_to(router, replicas):
    answer = await ask(router, "X-Pointsman-Explain: 1")
    told = answer.value("x-pointsman-decision")
    assert DECISION.fullmatch(told)
    assert told.startswith(b"replica=%b;" % answer.value("x-pointsman-replica"))
    assert (await ask(router)).value("x-pointsman-decision") is None
    seen = [recorded for replica in replicas for recorded in replica.requests]
    assert len(seen) == 2
    assert all(recorded.value(b"x-pointsman-explain") is None for recorded in seen)


async def test_a_class_of_objectives_is_taken_or_refused(router, replicas):
    assert (await ask(router, "x-pointsman-slo: batch", "X-Tenant: t")).status == 200
    answer = await ask(router, "x-pointsman-slo: bulk")
    assert answer.status == 400
    error = answer.json["error"]
    assert error["code"] == "invalid_header"
    assert error["message"] == "The header `x-pointsman-slo` is 'bulk'; known: agent, batch."
    assert sum(len(replica.requests) for replica in replicas) == 1


async def test_a_request_is_explained_by_the_command(router, replicas):
    answer = await ask(router, "X-Request-Id: this-one", "X-Pointsman-Explain: 1")
    chosen = answer.value("x-pointsman-replica").decode()
    status, out, err = await pointsman("explain", "this-one", "--admin", router.admin_url)
    assert (status, err) == (0, "")
    out = " ".join(out.split())
    assert out.startswith("this-one, model m, 3 prompt tokens, attempt 1 20")
    assert f"sent to {chosen}; candidates: 2; reason: " in out
    assert f"{chosen} * " in out
    assert "Why: It costs " in out
    status, out, _ = await pointsman("explain", "--last", "1", "--admin", router.admin_url)
    assert status == 0
    assert "this-one" in out
    status, out, err = await pointsman("explain", "another", "--admin", router.admin_url)
    assert (status, out) == (2, "")
    assert err.endswith("hold none about a request 'another'\n")
