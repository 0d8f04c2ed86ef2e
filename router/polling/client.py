"""Asking one replica one thing, with bounds on time and size."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from enum import Enum
from typing import Final, Self

import aiohttp
from yarl import URL

from router.addresses import parse_replica_url

MAX_PAGE_BYTES: Final = 8 * 1024 * 1024
"""Largest answer read; vLLM's metrics pages are 50 to 300 KB."""

_NOBODY_THERE = frozenset({errno.ECONNREFUSED, errno.ENOENT})
_OUR_OWN_FAULT = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL}
)

_HEADERS = {
    "User-Agent": "pointsman",
    "Accept": "text/plain;version=0.0.4, application/json;q=0.9, */*;q=0.1",
    # A page that the replica packs and we unpack costs both more than the loopback or LAN saves.
    "Accept-Encoding": "identity",
}


class Blame(Enum):
    """What a failed look says of the replica."""

    REFUSED = "refused"
    """Nobody listens there."""

    UNCLEAR = "unclear"
    """It was slow, hung up, or spoke no HTTP; once may be chance."""

    OURS = "ours"
    """The router ran out of something; it says nothing of the replica."""


class LookFailedError(Exception):
    """No answer; ``str()`` is the reason in a few words, the same each time."""

    def __init__(self, reason: str, blame: Blame = Blame.UNCLEAR) -> None:
        super().__init__(reason)
        self.blame = blame


@dataclass(slots=True, frozen=True)
class Answer:
    """An HTTP answer of whatever status."""

    status: int
    body: bytes
    server: str = ""
    """The ``Server`` header."""

    @property
    def ok(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300

    @property
    def absent(self) -> bool:
        """Whether the server says that it has no such endpoint."""
        return self.status in {404, 405, 501}


class ReplicaClient:
    """Connections to one replica, kept open between looks, while in its ``async with`` block.

    Args:
        base_url: ``http://host:port`` or ``http+unix:///path``.
        timeout_s: A whole look may take this long.
        max_page_bytes: A longer answer is a failure.

    Raises:
        router.addresses.AddressError: ``base_url`` has neither form.
    """

    def __init__(
        self, base_url: str, *, timeout_s: float, max_page_bytes: int = MAX_PAGE_BYTES
    ) -> None:
        address = parse_replica_url(base_url)
        self._socket_path = address.path
        self._origin = "http://localhost" if address.path is not None else f"http://{address}"
        self._max_page_bytes = max_page_bytes
        self._urls: dict[str, URL] = {}
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        path = self._socket_path
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector() if path is None else aiohttp.UnixConnector(path),
            timeout=aiohttp.ClientTimeout(total=self._timeout_s),
            headers=_HEADERS,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )
        return self

    async def __aexit__(self, *raised: object) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def get(self, path: str) -> Answer:
        """Ask for ``path``; redirects are not followed.

        Raises:
            LookFailedError: There was no whole answer.
            RuntimeError: Called outside the ``async with`` block.
        """
        if self._session is None:
            msg = "the client is not open"
            raise RuntimeError(msg)
        url = self._urls.get(path)
        if url is None:
            url = self._urls[path] = URL(self._origin + path, encoded=True)
        try:
            async with self._session.get(url, allow_redirects=False) as response:
                body = await self._read(response)
                return Answer(response.status, body, response.headers.get("Server", ""))
        except TimeoutError as error:
            msg = f"no answer within {self._timeout_s:g} s"
            raise LookFailedError(msg) from error
        except aiohttp.ClientConnectorError as error:
            raise _not_connected(error) from error
        except aiohttp.ClientError as error:
            raise LookFailedError(_broken(error)) from error

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        if response.content_length is not None and response.content_length <= self._max_page_bytes:
            return await response.read()
        parts: list[bytes] = []
        left = self._max_page_bytes
        async for part in response.content.iter_any():
            left -= len(part)
            if left < 0:
                msg = f"the answer is longer than {self._max_page_bytes} bytes"
                raise LookFailedError(msg)
            parts.append(part)
        return b"".join(parts)


def _not_connected(error: aiohttp.ClientConnectorError) -> LookFailedError:
    code = error.os_error.errno
    if code in _NOBODY_THERE:
        return LookFailedError("connection refused", Blame.REFUSED)
    if code in _OUR_OWN_FAULT:
        return LookFailedError(f"the router itself: {errno.errorcode[code]}", Blame.OURS)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return LookFailedError("its name does not resolve")
    return LookFailedError(f"cannot connect ({errno.errorcode.get(code or 0, 'unknown error')})")


def _broken(error: aiohttp.ClientError) -> str:
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the answer was cut off"
    if isinstance(error, aiohttp.ClientResponseError):
        return "the answer is no HTTP"
    return "it closed the connection without an answer"
