from datetime import UTC, datetime, timedelta

import aiohttp
import msgspec
import pytest

from policies.base import Choice, Estimate
from router.addresses import Address
from router.admin.explained import ExplainPage
from router.admin.server import AdminServer
from tests.fakes.fake_router import FakeRouter


class Estimating:
    def choose(self, request, replicas, rng):
        costs = (Estimate(replicas[1].name, 0.5, 0.25, 3.0, 0.0, 64, 0.1, 1.5),)
        return Choice(replicas[1], "least_cost", ttft_s=0.75, estimates=costs)


@pytest.fixture
def router():
    return FakeRouter()


@pytest.fixture
async def get(router):
    server = AdminServer(router)
    await server.start(Address("127.0.0.1", 0))
    async with aiohttp.ClientSession(f"http://{server.address}") as session:

        async def get(path, method="GET"):
            async with session.request(method, path) as response:
                return response.status, msgspec.json.decode(await response.read())

        yield get
    await server.aclose()


async def test_a_request_is_explained(get, router):
    router.dispatcher.chooser.policy = Estimating()
    router.serve(e2e_s=2.0, prompt_tokens=77)
    router.time_s += 60
    status, page = await get("/explain/r")
    assert status == 200
    [decision] = page["decisions"]
    at = datetime.fromisoformat(decision.pop("at"))
    assert timedelta() < datetime.now(UTC) - timedelta(seconds=60) - at < timedelta(seconds=20)
    assert decision.pop("e2e_s") >= 0.75
    assert decision == {
        "request_id": "r",
        "model": "m",
        "prompt_tokens": 77,
        "attempt": 1,
        "chosen": "b:1",
        "reason": "least_cost",
        "candidates": 2,
        "held_s": 0.0,
        "ttft_s": 0.75,
        "seen_ttft_s": None,
        "took_s": 2.0,
        "outcome": "200",
        "estimates": [
            {
                "replica": "b:1",
                "queue_s": 0.5,
                "prefill_s": 0.25,
                "decode_s": 3.0,
                "kv_wait_s": 0.0,
                "cached_tokens": 64,
                "harm": 0.1,
                "cost": 1.5,
                "prefill_replica": "",
                "transfer_s": 0.0,
            }
        ],
    }
    assert (page["policy"], page["kept"]) == ("round_robin", 1)


async def test_the_last_decisions_are_listed(get, router):
    for number in range(30):
        router.serve(prompt_tokens=number)
    for path, count in (("/explain", 20), ("/explain?last=3", 3), ("/explain?last=500", 30)):
        status, page = await get(path)
        assert status == 200
        lengths = [d.prompt_tokens for d in msgspec.convert(page, ExplainPage).decisions]
        assert lengths == list(range(29, 29 - count, -1))


@pytest.mark.parametrize("last", ["0", "501", "-1", "x", "", "9" * 5000, "\u0663"])
async def test_a_number_that_is_none_is_refused(get, last):
    status, page = await get(f"/explain?last={last}")
    assert status == 400
    assert page["error"]["code"] == "invalid_query"
    assert page["error"]["message"].endswith("expected a number from 1 to 500.")


@pytest.mark.parametrize("request_id", ["nobody", "a/b", "%2F", "r%20"])
async def test_a_request_that_is_not_kept_is_not_found(get, router, request_id):
    router.serve()
    status, page = await get(f"/explain/{request_id}")
    assert status == 404
    assert page["error"]["code"] == "request_not_found"
    assert page["error"]["message"].startswith("The last 1 decisions hold none about a request ")


async def test_a_router_that_keeps_none_has_none(get, router):
    router.dispatcher.decisions = None
    assert (await get("/explain"))[1]["decisions"] == []
    assert (await get("/explain/r"))[0] == 404
    assert (await get("/explain", "POST"))[1]["error"]["message"] == "/explain answers GET only."
