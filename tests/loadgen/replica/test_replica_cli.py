"""``pointsman replica`` as a process."""

import asyncio
import contextlib
import json
import signal
import socket
import sys
from pathlib import Path

import aiohttp
import pytest
from click.testing import CliRunner

from loadgen.replica.cli import command
from tests.fakes.serve_process import eventually

POINTSMAN = str(Path(sys.executable).with_name("pointsman"))
LONG = {"prompt": "a", "max_tokens": 5000, "ignore_eos": True, "stream": True}


@contextlib.asynccontextmanager
async def process(*arguments):
    child = await asyncio.create_subprocess_exec(
        POINTSMAN,
        *("replica", "--port", "0", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.communicate()


async def catches_sigterm(pid):
    """Whether a process has got so far as to handle the signal."""
    return bool(int(caught_signals(pid), 16) & 1 << signal.SIGTERM - 1)


def caught_signals(pid):
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split()[1] for line in status if line.startswith("SigCgt:"))


async def url_of(child):
    async with asyncio.timeout(30):
        return (await child.stdout.readline()).decode().strip()


async def test_it_prints_its_url_serves_and_ends_on_sigterm():
    async with process("--load-time", "0", "--model", "mine") as child:
        url = await url_of(child)
        async with (
            aiohttp.ClientSession() as session,
            session.get(url + "/v1/models") as response,
        ):
            assert (await response.json())["data"][0]["id"] == "mine"
        child.send_signal(signal.SIGTERM)
        assert await child.wait() == 0


async def test_sigterm_breaks_off_open_requests_as_vllm_does():
    async with process("--load-time", "0") as child, aiohttp.ClientSession() as session:
        url = await url_of(child)
        async with session.post(url + "/v1/completions", json=LONG) as response:
            await response.content.readany()
            unstreamed = asyncio.ensure_future(
                session.post(url + "/v1/completions", json={**LONG, "stream": False})
            )
            await until_running(session, url, 2)
            child.send_signal(signal.SIGTERM)
            rest = await response.content.read()
        *_, error, done, _ = rest.split(b"\n\n")
        assert json.loads(error[6:])["error"]["code"] == 500
        assert done == b"data: [DONE]"
        async with await unstreamed as refused:
            assert refused.status == 500
        assert await child.wait() == 0


async def until_running(session, url, number):
    for _ in range(2000):
        async with session.get(url + "/metrics") as response:
            gauge = f'num_requests_running{{engine="0",model_name="llama-3-8b"}} {number}.0'
            if gauge in await response.text():
                return
    raise AssertionError(f"there were never {number} requests running")


async def test_sigterm_lets_open_requests_end_when_told_to():
    arguments = ("--load-time", "0", "--shutdown-timeout", "60", "--speed", "100")
    async with process(*arguments) as child, aiohttp.ClientSession() as session:
        url = await url_of(child)
        async with session.post(url + "/v1/completions", json=LONG) as response:
            first = await response.content.readany()
            child.send_signal(signal.SIGTERM)
            rest = await response.content.read()
        assert (first + rest).count(b"data: {") == 5000
        assert rest.endswith(b"data: [DONE]\n\n")
        assert await child.wait() == 0


async def test_the_crash_fault_ends_the_process_in_the_middle_of_its_streams():
    async with process("--load-time", "0") as child, aiohttp.ClientSession() as session:
        url = await url_of(child)
        async with session.post(url + "/v1/completions", json=LONG) as response:
            await response.content.readany()
            with pytest.raises(aiohttp.ClientError):
                await session.post(url + "/faults", json={"crash": True})
            with pytest.raises(aiohttp.ClientError):
                await response.content.read()
        assert await child.wait() == 137


@pytest.mark.parametrize("how", ["rst", "fin"])
async def test_a_stream_is_cut_by_the_process_too(how):
    async with process("--load-time", "0") as child, aiohttp.ClientSession() as session:
        url = await url_of(child)
        await session.post(url + "/faults", json={"cut": {"after_tokens": 3, "how": how}})
        async with session.post(url + "/v1/completions", json=LONG) as response:
            with pytest.raises(aiohttp.ClientPayloadError) as caught:
                await response.content.read()
        assert ("reset by peer" in str(caught.value)) == (how == "rst")
        await until_running(session, url, 0)


async def test_a_client_that_leaves_is_noticed_by_the_process():
    async with process("--load-time", "0") as child, aiohttp.ClientSession() as session:
        url = await url_of(child)
        async with session.post(url + "/v1/completions", json=LONG) as response:
            await response.content.readany()
            await until_running(session, url, 1)
            response.close()
        await until_running(session, url, 0)


async def test_it_can_refuse_connections_while_it_loads():
    async with process("--load-time", "3600", "--refuse-while-loading") as child:
        async with asyncio.timeout(30):
            await eventually(lambda: catches_sigterm(child.pid))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await child.stdout.readline()
        child.send_signal(signal.SIGTERM)
        assert await child.wait() == 0
    async with process("--load-time", "0.1", "--refuse-while-loading") as child:
        url = await url_of(child)
        async with aiohttp.ClientSession() as session, session.get(url + "/health") as response:
            assert response.status == 200


async def test_the_load_time_is_the_profiles_by_default():
    async with process() as child, aiohttp.ClientSession() as session:
        url = await url_of(child)
        async with session.get(url + "/health") as response:
            assert response.status == 503
    async with process("--speed", "100000") as child, aiohttp.ClientSession() as session:
        url = await url_of(child)
        async with session.get(url + "/health") as response:
            assert response.status == 200


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--profile", "9b"], "unknown profile '9b'"),
        (["--profile", "gone.toml"], "cannot read profile gone.toml"),
        (["--engine", "mine"], "'mine' is not one of"),
        (["--speed", "0"], "--speed"),
        (["--port", "70000"], "--port"),
        (["--kv-tokens", "5"], "no block of 16"),
        (["--host", "not an address"], "cannot listen at not an address:0"),
    ],
)
def test_bad_input_is_answered_with_what_is_wrong(arguments, words):
    result = CliRunner().invoke(command, ["--port", "0", *arguments])
    assert result.exit_code != 0
    assert words in result.output


async def test_a_port_in_use_is_one_line_and_status_2():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        async with process("--port", port) as child:
            _, errors = await child.communicate()
            assert child.returncode == 2
            assert errors.decode().count("\n") == 1
            assert f"cannot listen at 127.0.0.1:{port}" in errors.decode()


def test_the_help_names_every_fault():
    text = CliRunner().invoke(command, ["--help"]).output
    for word in ("crash", "hang", "slow", "errors", "cut", "metrics", "health", "POST /faults"):
        assert word in text
