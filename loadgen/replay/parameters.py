"""Checks of the command's parameters that click does not have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypedDict
from urllib.parse import urlsplit

import click

if TYPE_CHECKING:
    from pathlib import Path

    from policies.slo import Slo


class Given(TypedDict):
    """The options of a replay, as click hands them over."""

    url: str
    model: str | None
    endpoint: Literal["chat", "completions"]
    start: float
    duration: float | None
    limit: int | None
    rate_scale: float
    jitter: bool
    seed: int
    max_input_tokens: int | None
    max_output_tokens: int | None
    slo: Slo
    timeout: float
    speed: float
    salt: str | None
    api_key_env: str | None
    out: Path | None


def base_url(_ctx: click.Context, param: click.Parameter, value: str) -> str:
    """The base URL of a server; a trailing ``/v1`` is taken off."""
    url = value.rstrip("/").removesuffix("/v1")
    if not _is_base_url(url):
        message = f"{value!r} is no base URL like http://127.0.0.1:8080"
        raise click.BadParameter(message, param=param)
    return url


def folder_exists(_ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    """Refuse a file that cannot be written, before minutes are spent on what goes there."""
    if value is not None and not value.parent.is_dir():
        raise click.BadParameter(f"there is no folder {str(value.parent)!r}", param=param)
    return value


def _is_base_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    known = parts.scheme in {"http", "https"} and bool(parts.hostname) and port != 0
    return known and not (parts.query or parts.fragment)
