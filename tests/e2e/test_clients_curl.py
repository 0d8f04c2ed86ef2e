"""curl and ab, with the options that send what other clients never do."""

from __future__ import annotations

import asyncio
import json
import re
import shutil

import pytest
import pytest_asyncio

from tests.e2e.marks import e2e
from tests.fakes.api_replica import TEXT, WORDS, answer
from tests.fakes.raw_replica import OK, answering

pytestmark = e2e("clients-curl")

BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x" * 3000}]})
AB = shutil.which("ab")
STREAMED = json.dumps({"model": "m", "stream": True})


@pytest_asyncio.fixture(loop_scope="module")
async def chat(replica):
    replica.respond = answer
    return "/v1/chat/completions"


async def run(*command, stdin=b""):
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, log = await process.communicate(stdin)
    assert process.returncode == 0, log.decode()
    return output, log.decode()


async def curl(router, path, *options, stdin=b""):
    """Answer's body, and what was said on the wire (``-v``)."""
    return await run("curl", "-sSNv", "--max-time", "20", *options, router.url + path, stdin=stdin)


def text(output):
    return json.loads(output)["choices"][0]["message"]["content"]


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--http1.0"],
        ["--http1.1"],
        ["--http2"],
        ["-H", "Expect: 100-continue"],
        ["-H", "Transfer-Encoding: chunked"],
        ["--http2", "-H", "Transfer-Encoding: chunked"],
        ["-H", "Expect: 100-continue", "-H", "Transfer-Encoding: chunked"],
        ["-H", "Connection: close"],
        ["--compressed"],
        ["--tcp-nodelay", "--no-keepalive"],
    ],
    ids=" ".join,
)
async def test_curl_posts(router, replica, chat, options):
    output, log = await curl(router, chat, *options, "-d", BODY)
    assert text(output) == TEXT
    assert replica.requests[0].content == BODY.encode()
    if "Expect: 100-continue" in options:
        assert "100 Continue" in log
    if "--http2" in options:
        assert "Upgrade: h2c" in log
        assert replica.requests[0].values(b"upgrade") == []


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
async def test_curl_uploads_from_a_pipe(router, replica, chat, version):
    options = [version, "-X", "POST", "-T", "-", "-H", "Transfer-Encoding: chunked"]
    output, _ = await curl(router, chat, *options, stdin=BODY.encode())
    assert text(output) == TEXT
    assert replica.requests[0].content == BODY.encode()


async def test_curl_expects_100_for_a_body_of_2_mb(router, replica, chat, tmp_path):
    body = json.dumps({"model": "m", "messages": "x" * 2_000_000})
    (tmp_path / "body").write_text(body)
    output, log = await curl(router, chat, "-d", f"@{tmp_path}/body")
    assert text(output) == TEXT
    assert "100 Continue" in log
    assert replica.requests[0].content == body.encode()


@pytest.mark.parametrize("version", ["--http1.0", "--http1.1", "--http2"])
async def test_curl_streams(router, chat, version):
    output, _ = await curl(router, chat, version, "-d", STREAMED)
    assert output.count(b"data: ") == len(WORDS) + 1
    assert output.endswith(b"data: [DONE]\n\n")


async def test_curl_uses_one_connection_for_several_requests(router, replica, chat):
    url = router.url + chat
    output, log = await run(
        "curl", "-sSv", "-d", BODY, url, "--next", "-sSv", "--http2", "-d", BODY, url,
        "--next", "-sSv", "-d", BODY, url,
    )  # fmt: skip
    assert output.count(TEXT.encode("ascii", "backslashreplace")[:10]) == 3
    assert "Re-using existing connection" in log
    assert len(replica.requests) == 3


async def test_curl_head_and_options(router, replica, chat):
    replica.respond = answering(OK)
    output, _ = await curl(router, "/health", "-I")
    assert output.startswith(b"HTTP/1.1 200 ")
    await curl(router, chat, "-X", "OPTIONS", "-H", "Origin: https://chat.example")
    assert replica.requests[0].method == b"OPTIONS"


async def test_curl_keeps_a_path_as_it_is(router, replica, chat):
    replica.respond = answering(OK)
    await curl(router, "/v1/files/../../sleep", "--path-as-is", "-o", "/dev/null")
    assert replica.requests == []
    await curl(router, "/v1/files//a%2Fb?", "--path-as-is")
    assert replica.requests[0].target == b"/v1/files//a%2Fb?"


if AB is not None:  # apache2-utils; HTTP/1.0 with keep-alive is also tested without it

    @pytest.mark.parametrize("keep", [["-k"], []], ids=["keep-alive", "one each"])
    async def test_ab(router, replica, chat, tmp_path, keep):
        (tmp_path / "body").write_text(BODY)
        output, _ = await run(
            AB, "-q", "-n", "200", "-c", "8", *keep, "-p", f"{tmp_path}/body",
            "-T", "application/json", router.url + chat,
        )  # fmt: skip
        figures = dict(re.findall(r"^(.+?):\s+(\d+)", output.decode(), re.MULTILINE))
        assert figures["Complete requests"] == "200"
        assert figures["Failed requests"] == "0"
        assert "Non-2xx responses" not in figures
        if keep:
            assert figures["Keep-Alive requests"] == "200"
