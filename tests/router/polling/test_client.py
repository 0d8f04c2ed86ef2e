from __future__ import annotations

import asyncio
import errno
import resource
import socket

import aiohttp
import pytest
from polling_rig import FakeReplica, Hang, started

from router.addresses import AddressError
from router.polling.client import ReplicaClient, _not_connected
from router.polling.connection import Blame, LookFailedError


async def test_an_answer_of_any_status_is_an_answer(fake):
    fake.headers = {"Server": "llama.cpp"}
    fake.answers["/x?y=%2F"] = (418, b"tea")
    async with ReplicaClient(fake.url, timeout_s=5) as client:
        answer = await client.get("/x?y=%2F")
    assert (answer.status, answer.body, answer.server) == (418, b"tea", "llama.cpp")
    assert not answer.ok
    assert not answer.absent


async def test_connections_are_kept_between_looks(fake):
    ports = set()

    async def note(request):
        ports.add(request.transport.get_extra_info("peername")[1])
        return aiohttp.web.Response()

    fake.answers["/health"] = note
    async with ReplicaClient(fake.url, timeout_s=5) as client:
        for _ in range(3):
            await client.get("/health")
    assert len(ports) == 1


async def test_an_answer_of_a_declared_length_over_the_limit_is_not_read(fake):
    fake.answers["/metrics"] = (200, b"x" * 1001)
    async with ReplicaClient(fake.url, timeout_s=5, max_page_bytes=1000) as client:
        with pytest.raises(LookFailedError, match="longer than 1000 bytes"):
            await client.get("/metrics")
        fake.answers["/metrics"] = (200, b"x" * 1000)
        assert len((await client.get("/metrics")).body) == 1000


async def test_an_endless_answer_is_cut_at_the_limit(fake):
    async def endless(request):
        response = aiohttp.web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 10_000)

    fake.answers["/metrics"] = endless
    async with ReplicaClient(fake.url, timeout_s=5, max_page_bytes=100_000) as client:
        with pytest.raises(LookFailedError, match="longer than 100000 bytes"):
            await client.get("/metrics")


async def test_an_answer_that_breaks_off_is_no_answer(fake):
    async def partly(request):
        response = aiohttp.web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b"x" * 10)
        request.transport.close()
        return response

    fake.answers["/metrics"] = partly
    async with ReplicaClient(fake.url, timeout_s=5) as client:
        with pytest.raises(LookFailedError, match="cut off"):
            await client.get("/metrics")


async def test_silence_is_bounded(fake):
    hang = Hang()
    fake.answers["/health"] = hang
    async with ReplicaClient(fake.url, timeout_s=0.05) as client:
        with pytest.raises(LookFailedError, match=r"no answer within 0.05 s") as caught:
            await client.get("/health")
    hang.let_go.set()
    assert caught.value.blame is Blame.UNCLEAR


def take_all(taken):
    while True:
        taken.append(socket.socket())


async def test_running_out_of_descriptors_is_our_own_fault(fake):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with ReplicaClient(fake.url, timeout_s=5) as client:
        taken = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        try:
            with pytest.raises(OSError, match="Too many open files"):
                take_all(taken)
            with pytest.raises(LookFailedError, match="the router itself: EMFILE") as caught:
                await client.get("/health")
        finally:
            for each in taken:
                each.close()
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert caught.value.blame is Blame.OURS
        assert (await client.get("/health")).ok


async def test_a_name_that_does_not_resolve_may_do_so_later():
    async with ReplicaClient("http://no-such-host.invalid:1", timeout_s=5) as client:
        with pytest.raises(LookFailedError, match="does not resolve") as caught:
            await client.get("/health")
    assert caught.value.blame is Blame.UNCLEAR


def test_other_connection_errors_are_named():
    failure = _not_connected(OSError(errno.EHOSTUNREACH, "No route to host"))
    assert str(failure) == "cannot connect (EHOSTUNREACH)"
    assert failure.blame is Blame.UNCLEAR


async def test_a_connection_that_was_closed_meanwhile_is_no_failure(fake):
    fake.answers["/health"] = (200, b"")
    async with ReplicaClient(fake.url, timeout_s=5) as client:
        await client.get("/health")
        await fake.stop()
        await fake.start()
        assert (await client.get("/health")).ok


async def test_what_is_no_http_is_said_so():
    async def talk(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, ReplicaClient(f"http://127.0.0.1:{port}", timeout_s=5) as client:
        with pytest.raises(LookFailedError, match="no HTTP"):
            await client.get("/health")


def test_urls_that_no_replica_has_are_refused():
    with pytest.raises(AddressError, match="expected http"):
        ReplicaClient("ftp://x", timeout_s=1)


async def test_a_closed_client_says_so(fake):
    client = ReplicaClient(fake.url, timeout_s=1)
    with pytest.raises(RuntimeError, match="not open"):
        await client.get("/health")


async def test_it_asks_for_plain_text_unpacked():
    seen = {}

    async def note(request):
        seen.update(request.headers)
        return aiohttp.web.Response()

    async with started(FakeReplica()) as fake:
        fake.answers["/metrics"] = note
        async with ReplicaClient(fake.url, timeout_s=5) as client:
            await client.get("/metrics")
    assert seen["Accept-Encoding"] == "identity"
    assert seen["Accept"].startswith("text/plain")
