"""Asks a running router over its admin plane."""

from __future__ import annotations

import asyncio
import os
from typing import TypeVar

import aiohttp
import click
import msgspec

from router.addresses import AddressError, parse_replica_url
from router.config.structs import Config

TIMEOUT_S = 10.0

DEFAULT_URL = f"http://{Config().admin}"

T = TypeVar("T")

admin_option = click.option(
    "--admin",
    "admin_url",
    metavar="URL",
    default=DEFAULT_URL,
    show_default=True,
    help="The admin plane of the router: http://host:port, or http+unix:///path.",
)
"""The option ``--admin`` of the commands that ask a running router."""


class _Detail(msgspec.Struct):
    message: str
    code: str = ""


class _Error(msgspec.Struct):
    error: _Detail


class RefusedError(click.ClickException):
    """The router refused what was asked.

    Args:
        status: Of its answer.
        code: What went wrong, for programs.
        message: The same for people.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def ask(admin_url: str, method: str, path: str, kind: type[T]) -> T:
    """Ask a running router.

    Args:
        admin_url: Its admin plane, as given by the user.
        method: GET or POST.
        path: With its query.
        kind: What the answer is decoded to.

    Raises:
        RefusedError: It refused.
        click.ClickException: It cannot be reached, or what answers there is no pointsman.
        click.BadParameter: The URL is none.
    """
    try:
        address = parse_replica_url(admin_url)
    except AddressError as error:
        raise click.BadParameter(str(error), param_hint="--admin") from error
    try:
        status, body = asyncio.run(_fetch(address.path, f"http://{address}", method, path))
    except (TimeoutError, aiohttp.ClientError, OSError) as error:
        reason = _reason(error)
        msg = f"no router can be reached at {admin_url} ({reason}); --admin names another"
        raise click.ClickException(msg) from error
    try:
        if status == 200:
            return msgspec.json.decode(body, type=kind)
        detail = msgspec.json.decode(body, type=_Error).error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        msg = f"what answers at {admin_url} is no admin plane of pointsman (status {status})"
        raise click.ClickException(msg) from error
    raise RefusedError(status, detail.code, detail.message)


def _reason(error: Exception) -> str:
    number = error.errno if isinstance(error, OSError) else None
    return os.strerror(number).lower() if number else str(error) or "no answer in time"


async def _fetch(socket: str | None, url: str, method: str, path: str) -> tuple[int, bytes]:
    connector = aiohttp.UnixConnector(socket) if socket is not None else aiohttp.TCPConnector()
    base = "http://pointsman" if socket is not None else url
    limit = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with (
        aiohttp.ClientSession(connector=connector, timeout=limit) as session,
        session.request(method, f"{base}{path}") as response,
    ):
        return response.status, await response.read()
