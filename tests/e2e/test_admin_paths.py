"""What administers a replica is not reachable through the router, however it is spelled."""

from __future__ import annotations

import pytest

from tests.e2e.marks import e2e
from tests.fakes.raw_client import raw_client, request

pytestmark = e2e("admin-paths")

CONFIG = {"forward_paths": ["/wanted", "/tree/*"]}

ADMINISTRATION = """
    sleep wake_up flush_cache load_lora_adapter unload_lora_adapter metrics server_info
    get_server_info load get_load abort_request pause resume reset_prefix_cache shutdown
    update_weights_from_disk init_weights_update_group start_profile stop_profile is_sleeping
    collective_rpc slots props set_internal_state configure_logging docs openapi.json version
"""


def spellings(name):
    encoded = "".join(f"%{ord(letter):02x}" for letter in name)
    yield from (
        f"/{name}",
        f"//{name}",
        f"///{name}",
        f"/{name}/",
        f"/{name}?",
        f"/{name}?x=/v1/completions",
        f"/./{name}",
        f"/../{name}",
        f"/{name}/.",
        f"/{name};v=1",
        f"/;/{name}",
        f"/{name.upper()}",
        f"/{name.capitalize()}",
        f"/{encoded}",
        f"/{encoded.upper()}",
        f"/%2f{name}",
        f"/%2e/{name}",
        f"/%252e%252e/{name}",
        f"/v1/../{name}",
        f"/v1/./../{name}",
        f"/v1//../{name}",
        f"/v1/chat/../../{name}",
        f"/v1/%2e%2e/{name}",
        f"/v1/%2E%2E/{name}",
        f"/v1/.%2e/{name}",
        f"/v1/..%2f{name}",
        f"/v1/%2e%2e%2f{name}",
        f"/v1/%252e%252e/{name}",
        f"/v1/..;/{name}",
        f"/v1/..\\{name}",
        f"/v1\\..\\{name}",
        f"/v1/..%5c{name}",
        f"/\\{name}",
        f"/%5c{name}",
        f"/v1/completions/../../{name}",
        f"/tree/../{name}",
        f"/tree/%2e%2e/{name}",
        f"/tree/a/../../{name}",
        f"/tree/..%2f{name}",
        f"/wanted/../{name}",
        f"/wanted/{name}",
        "/wanted/",
        f"/{name}%00",
        f"/{name}%20",
        f"/%20{name}",
        f"/{name}%0d%0a",
        f"http://pointsman.test/{name}",
        f"http://pointsman.test//{name}",
        f"http://pointsman.test/v1/../{name}",
        f"HTTP://pointsman.test/{name}",
    )


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("name", ADMINISTRATION.split())
async def test_administration_is_not_forwarded(router, replica, name, method):
    async with raw_client(router.url) as client:
        for target in spellings(name):
            client.write(request(method, target, None if method == "GET" else b""))
            answer = await client.answer()
            assert (answer.status, target) == (404, target)
            assert answer.json["error"]["code"] == "path_not_found"
    assert replica.requests == []


@pytest.mark.parametrize("name", ["load_lora_adapter", "unload_lora_adapter"])
async def test_administration_below_v1_is_not_forwarded(router, replica, name):
    targets = [
        f"/v1/{name}",
        f"/v1/{name}/",
        f"/v1//{name}",
        f"//v1/{name}",
        f"/v1/{name.upper()}",
        f"/V1/{name}",
        f"/v1/%{ord(name[0]):x}{name[1:]}",
        f"/v1/%25{ord(name[0]):x}{name[1:]}",
        f"/v1/./{name}",
        f"/v1/x/../{name}",
        f"/v1/x/%2e%2e/{name}",
        f"/v1/{name};x",
        f"/v1\\{name}",
        f"/v1/{name}%20",
        f"/v1/{name}?x",
        f"/tree/../v1/{name}",
    ]
    async with raw_client(router.url) as client:
        for target in targets:
            client.write(request("POST", target, b""))
            assert ((await client.answer()).status, target) == (404, target)
    assert replica.requests == []


@pytest.mark.parametrize(
    "target", ["\\sleep", "sleep", "/sleep#x", "/sleep HTTP/1.1", "*", "?", ""]
)
async def test_what_is_no_path_is_not_forwarded(router, replica, target):
    async with raw_client(router.url) as client:
        client.write(request("GET", target, None))
        assert (await client.answer()).status in {400, 404}
    assert replica.requests == []


@pytest.mark.parametrize(
    "target", ["/wanted", "/wanted?a=b", "/tree/x", "/tree/a//b%2Fc?d", "/tree/a/../b"]
)
async def test_what_the_configuration_lists_is_forwarded(router, replica, target):
    async with raw_client(router.url) as client:
        client.write(request("GET", target, None))
        assert (await client.answer()).status == 200
    assert replica.requests[0].target == target.encode()
