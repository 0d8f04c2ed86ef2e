"""Several models in one fleet, aliases, and the errors that the router gives by itself."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.e2e.marks import e2e
from tests.fakes.raw_client import raw_client, request
from tests.fakes.raw_connection import DEADLINE_S
from tests.fakes.serve_process import eventually

pytestmark = e2e("models")

REPLICAS = [["small"], ["small", "adapter"], ["org/large"]]
CONFIG = {"aliases": {"gpt-4o": "org/large", "cheap": "small"}}


async def ask(router, body, path="/v1/chat/completions", *fields):
    await asyncio.wait_for(eventually(lambda: all_ready(router)), DEADLINE_S)
    async with raw_client(router.url) as client:
        client.write(request("POST", path, body, *fields))
        return await client.answer()


async def all_ready(router):
    return all(replica["ready"] for replica in (await router.fleet())["replicas"])


@pytest.mark.parametrize(
    ("model", "served_by"),
    [
        ("small", {0, 1}),
        ("adapter", {1}),
        ("org/large", {2}),
        ("gpt-4o", {2}),
        ("cheap", {0, 1}),
        ("sm\\u0061ll", {0, 1}),
    ],
)
async def test_a_request_goes_where_its_model_is(router, replicas, model, served_by):
    for _ in range(4):
        assert (await ask(router, b'{"model": "%b"}' % model.encode())).status == 200
    assert {number for number, replica in enumerate(replicas) if replica.requests} == served_by


async def test_an_alias_is_resolved_and_nothing_else_of_the_body_touched(router, replicas):
    body = b'{"a": 1.50, "model": "gpt-4o", "seed": 123456789012345678901234567890, "x": [ 1 ]}'
    assert (await ask(router, body)).status == 200
    received = replicas[2].requests[0]
    assert json.loads(received.content)["model"] == "org/large"
    assert b"1.50" in received.content
    assert b"123456789012345678901234567890" in received.content
    assert received.value(b"content-length") == b"%d" % len(received.content)


async def test_multipart_goes_where_its_model_is(router, replicas):
    body = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n\x00\xff\r\n'
        b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\norg/large\r\n--b--\r\n'
    )
    kind = "Content-Type: multipart/form-data; boundary=b"
    assert (await ask(router, body, "/v1/audio/transcriptions", kind)).status == 200
    assert replicas[2].requests[0].content == body


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"model": "unknown"}', 404),
        (b'{"model": "unknown", "stream": true}', 404),
        (b'{"model": ""}', 404),
        (b'{"model": "Small"}', 404),
        (b'{"messages": []}', 400),
        (b'{"model": null}', 400),
        (b'{"model": 7}', 400),
        (b"{", 400),
        (b"", 400),
        (b"[]", 400),
        (b'"small"', 400),
        (b"\x00", 400),
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
async def test_what_cannot_be_routed_is_refused(router, replicas, body, status, path):
    answer = await ask(router, body, path)
    assert answer.status == status
    error = answer.json["error"]
    assert error["message"]
    if path == "/v1/messages":
        assert answer.json["type"] == "error"
        assert error["type"] == ("not_found_error" if status == 404 else "invalid_request_error")
    elif status == 404:
        assert error["code"] == "model_not_found"
    assert all(replica.requests == [] for replica in replicas)


async def test_the_list_is_the_union(router, replicas):
    await asyncio.wait_for(eventually(lambda: all_ready(router)), DEADLINE_S)
    listed = (await router.get("/v1/models")).json
    assert listed["object"] == "list"
    ids = [model["id"] for model in listed["data"]]
    assert len(ids) == len(set(ids))
    assert {"small", "adapter", "org/large", "gpt-4o", "cheap"} == set(ids)
    assert all(model["object"] == "model" for model in listed["data"])
