import logging
import socket

import aiohttp
import msgspec
import pytest

from router import __version__
from router.addresses import Address, parse_address
from router.admin.server import AdminServer
from router.telemetry.status import Traffic
from tests.fakes.fake_router import FakeRouter


@pytest.fixture
def router():
    return FakeRouter(replicas=["a:1", "b:1"], models=["m2", "m1"])


@pytest.fixture
async def admin(router):
    server = AdminServer(router)
    await server.start(Address("127.0.0.1", 0))
    yield server
    await server.aclose()


@pytest.fixture
async def get(admin):
    async with aiohttp.ClientSession(f"http://{admin.address}") as session:

        async def get(path, method="GET", **headers):
            async with session.request(method, path, headers=headers) as response:
                return response.status, response.headers, await response.read()

        yield get


async def test_health_is_ok(get):
    status, headers, body = await get("/health")
    assert (status, headers["Content-Type"], body) == (
        200,
        "application/json",
        b'{"status":"ok"}',
    )


async def test_the_fleet_is_plain_json(get, router):
    router.sample("a:1", running=3, waiting=1, kv_occupancy=0.5)
    router.numbers = Traffic(
        client_connections=1,
        upstream_busy=2,
        upstream_idle=3,
        buffered_bytes=4,
        continuation_bytes=5,
    )
    router.arrive("m1")
    status, headers, body = await get("/fleet")
    assert (status, headers["Content-Type"]) == (200, "application/json")
    page = msgspec.json.decode(body)
    replicas = page.pop("replicas")
    assert page == {
        "version": __version__,
        "uptime_s": 10.0,
        "policy": "round_robin",
        "models": ["m1", "m2"],
        "open_requests": 1,
        "connections": {"client": 1, "upstream_busy": 2, "upstream_idle": 3},
        "buffered_bytes": 4,
        "continuation_bytes": 5,
        "held": {
            why: {"requests": 0, "prompt_tokens": 0}
            for why in ("better_moment", "no_replica", "lost_replica")
        },
        "prediction_error": {
            "ttft": {"count": 0, "p50": None, "p90": None},
            "e2e": {"count": 0, "p50": None, "p90": None},
        },
        "prefix_index": {"blocks": 0, "bytes": router.dispatcher.prefix_index.bytes},
    }
    assert replicas == msgspec.to_builtins(router.fleet.snapshot(router.now()))
    assert sum(replica["in_flight"] for replica in replicas) == 1


async def test_all_is_zero_once_the_request_has_ended(get, router):
    router.serve("m1")
    page = msgspec.json.decode((await get("/fleet"))[2])
    assert page["open_requests"] == 0
    assert [replica["in_flight"] for replica in page["replicas"]] == [0, 0]


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "text/plain; version=0.0.4"),
        ("*/*", "text/plain; version=0.0.4"),
        ("application/openmetrics-text; version=1.0.0", "application/openmetrics-text; version=1"),
    ],
)
async def test_metrics_come_in_the_format_that_was_asked_for(get, accept, kind):
    status, headers, body = await get("/metrics", Accept=accept)
    assert status == 200
    assert headers["Content-Type"].startswith(kind)
    assert b'pointsman_replica_ready{replica="a:1"} 1.0\n' in body
    assert body.endswith(b"# EOF\n") is ("openmetrics" in kind)


async def test_head_is_answered_like_get_without_a_body(get):
    status, headers, body = await get("/health", "HEAD")
    assert (status, headers["Content-Length"], body) == (200, "15", b"")


async def test_an_unknown_path_is_an_error_in_json(get):
    status, headers, body = await get("/v1/models?key=secret")
    assert (status, headers["Content-Type"]) == (404, "application/json")
    assert msgspec.json.decode(body) == {
        "error": {
            "message": "The admin plane has no /v1/models; it serves /metrics, /fleet, /health, "
            "/explain, /explain/REQUEST-ID and /rolling-order, and POST /drain/REPLICA and "
            "/undrain/REPLICA.",
            "type": "invalid_request_error",
            "param": None,
            "code": "path_not_found",
        }
    }


async def test_another_method_is_an_error_in_json_that_names_the_allowed_ones(get):
    status, headers, body = await get("/fleet", "POST")
    assert (status, headers["Allow"]) == (405, "GET,HEAD")
    assert msgspec.json.decode(body)["error"]["code"] == "method_not_allowed"


async def test_it_listens_on_a_unix_socket(router, tmp_path):
    server = AdminServer(router)
    address = await server.start(parse_address(f"unix:{tmp_path}/admin.sock"))
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(address.path)) as session,
        session.get("http://admin/health") as response,
    ):
        assert response.status == 200
    await server.aclose()


async def test_it_listens_on_ipv6(router):
    server = AdminServer(router)
    address = await server.start(Address("::1", 0))
    async with aiohttp.ClientSession() as session, session.get(f"http://{address}/health") as got:
        assert got.status == 200
    await server.aclose()


async def test_an_address_that_is_taken_is_named(router):
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = Address("127.0.0.1", other.getsockname()[1])
        server = AdminServer(router)
        with pytest.raises(OSError, match=f"the admin plane cannot listen on {address}: "):
            await server.start(address)
        assert server.address is None
        await server.aclose()


async def test_an_address_that_others_reach_is_warned_about(router, caplog):
    server = AdminServer(router)
    with caplog.at_level(logging.WARNING, "pointsman.admin"):
        await server.start(Address("127.0.0.1", 0))
        await server.aclose()
        assert caplog.records == []
        await server.start(Address("0.0.0.0", 0))
        await server.aclose()
    assert "has no password and is not loopback only" in caplog.text


async def test_it_can_be_closed_twice_and_listens_no_more(router):
    server = AdminServer(router)
    address = await server.start(Address("127.0.0.1", 0))
    await server.aclose()
    await server.aclose()
    with (
        pytest.raises(ConnectionRefusedError),
        socket.create_connection(("127.0.0.1", address.port)),
    ):
        pass
