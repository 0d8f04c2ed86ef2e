import aiohttp
import msgspec
import pytest

from router.addresses import Address
from router.admin.server import AdminServer
from tests.fakes.fake_router import FakeRouter


@pytest.fixture
def router():
    return FakeRouter(replicas=["a:1", "unix:/run/B.sock"])


@pytest.fixture
async def post(router):
    server = AdminServer(router)
    await server.start(Address("127.0.0.1", 0))
    async with aiohttp.ClientSession(f"http://{server.address}") as session:

        async def post(path, method="POST", **headers):
            async with session.request(method, path, headers=headers) as response:
                return response.status, msgspec.json.decode(await response.read())

        yield post
    await server.aclose()


def states(router):
    return [replica.health.state.value for replica in router.fleet.replicas.values()]


async def test_a_replica_is_drained_and_undrained(post, router):
    busy = router.arrive()
    name = busy.attempt.replica.name
    status, page = await post(f"/drain/{name}")
    assert (status, page["replica"], page["in_flight"]) == (200, name, 1)
    assert (page["health"]["state"], page["health"]["cause"]) == ("draining", "drain_asked")
    assert {router.arrive().attempt.replica.name for _ in range(4)}.isdisjoint({name})
    assert (await post(f"/drain/{name}"))[0] == 200, "twice is once"
    status, page = await post(f"/undrain/{name}")
    assert status == 200
    assert page["health"]["state"] != "draining"


@pytest.mark.parametrize(
    "given", ["unix:/run/B.sock", "http://unix:/run/B.sock", "http%3A%2F%2Funix%3A%2Frun%2FB.sock"]
)
async def test_a_replica_is_named_by_its_name_or_its_url(post, router, given):
    assert (await post(f"/drain/{given}"))[0] == 200
    assert states(router) == ["ready", "draining"]


async def test_the_order_of_a_rolling_restart_is_told(post, router):
    busy = router.arrive().attempt.replica.name
    (idle,) = set(router.fleet.replicas) - {busy}
    assert await post("/rolling-order", "GET") == (200, {"waves": [[idle], [busy]]})
    await post(f"/drain/{busy}")
    assert await post("/rolling-order", "GET") == (200, {"waves": [[busy], [idle]]})
    status, page = await post("/rolling-order?at_once=none", "GET")
    assert (status, page["error"]["message"]) == (
        400,
        "at_once='none' is not allowed; expected a number from 1 on.",
    )


async def test_a_fleet_of_one_cannot_be_restarted_in_turn():
    server = AdminServer(FakeRouter(replicas=["a:1"]))
    await server.start(Address("127.0.0.1", 0))
    async with (
        aiohttp.ClientSession(f"http://{server.address}") as session,
        session.get("/rolling-order") as response,
    ):
        page = msgspec.json.decode(await response.read())
    await server.aclose()
    assert (response.status, page["error"]["code"]) == (409, "drain_refused")
    assert page["error"]["message"].startswith("Not even a:1 can be restarted: of 1 replicas")


async def test_the_last_one_is_drained_by_force_only(post, router):
    await post("/drain/a:1")
    for path in ("/drain/unix:/run/B.sock", "/drain/unix:/run/B.sock?force=0"):
        status, page = await post(path)
        assert (status, page["error"]["code"]) == (409, "drain_refused")
        assert page["error"]["message"] == (
            "Draining unix:/run/B.sock would leave 0 replicas in service, at least 1 must stay;"
            " force it to drain all the same."
        )
    assert states(router) == ["draining", "ready"]
    assert (await post("/drain/unix:/run/B.sock?force=1"))[0] == 200
    assert states(router) == ["draining", "draining"]


async def test_what_frees_requests_sends_them(post, router):
    for name in list(router.fleet.replicas):
        await post(f"/drain/{name}?force")
    waiting = router.arrive()
    assert waiting.attempt is None
    router.performed.clear()
    await post("/undrain/a:1")
    assert [action.attempt.request for action in router.performed] == [waiting]


@pytest.mark.parametrize("path", ["/drain/c:1", "/undrain/c:1", "/drain/a:1/", "/drain/http://c"])
async def test_an_unknown_replica_is_told_with_those_that_there_are(post, path):
    status, page = await post(path)
    assert (status, page["error"]["code"]) == (404, "replica_not_found")
    assert page["error"]["message"].endswith("there are: a:1, unix:/run/B.sock.")


async def test_orders_are_posted_by_no_web_page(post, router):
    status, page = await post("/drain/a:1", "GET")
    assert (status, page["error"]["message"]) == (405, "/drain/a:1 answers POST only.")
    status, page = await post("/drain/a:1", Origin="http://evil")
    assert (status, page["error"]["code"]) == (403, "forbidden")
    status, page = await post("/drain/a:1?force=maybe")
    assert (status, page["error"]["code"]) == (400, "invalid_query")
    assert states(router) == ["ready", "ready"]
