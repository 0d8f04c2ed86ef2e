"""The commands ``pointsman drain``, ``undrain`` and ``rolling-order``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from urllib.parse import quote

import click
import msgspec

from router.cli.admin_client import admin_option, ask

if TYPE_CHECKING:
    from collections.abc import Callable

LOOK_EVERY_S = 0.25


class _Health(msgspec.Struct):
    state: str


class _Told(msgspec.Struct):
    """The answer to an order."""

    replica: str
    health: _Health
    in_flight: int


class _Replica(msgspec.Struct):
    name: str
    health: _Health
    in_flight: int


class _Order(msgspec.Struct):
    """The answer of ``/rolling-order``."""

    waves: list[list[str]]


class _Fleet(msgspec.Struct):
    """What is needed of ``/fleet``."""

    replicas: list[_Replica]


@click.command("drain")
@click.argument("replica", metavar="URL_OR_NAME")
@click.option("--wait", is_flag=True, help="Wait until the router has no request there any more.")
@click.option("--force", is_flag=True, help="Even if too few replicas stay in service.")
@admin_option
def command(replica: str, *, wait: bool, force: bool, admin_url: str) -> None:
    """Give a replica no new requests; those that it has go on.

    It gets requests again when it was restarted, or by `pointsman undrain`. Refused when fewer
    than drain.min_ready replicas would stay in service.

    \b
    Example, a restart that no client notices:
      pointsman drain http://gpu-1:8000 --wait && ssh gpu-1 systemctl restart vllm
    """
    query = "?force=1" if force else ""
    told = ask(admin_url, "POST", f"/drain/{quote(replica, safe='')}{query}", _Told)
    if wait:
        wait_until_idle(admin_url, told.replica, time.sleep)
        click.echo(f"{told.replica} has no requests")
    else:
        click.echo(f"{told.replica} drains; {_requests(told.in_flight)} to end")


@click.command("undrain")
@click.argument("replica", metavar="URL_OR_NAME")
@admin_option
def undrain_command(replica: str, *, admin_url: str) -> None:
    """Give a replica requests again.

    \b
    Example:
      pointsman undrain http://gpu-1:8000
    """
    told = ask(admin_url, "POST", f"/undrain/{quote(replica, safe='')}", _Told)
    click.echo(f"{told.replica} is {told.health.state}")


@click.command("rolling-order")
@click.option(
    "--at-once",
    metavar="N",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="So many may be out at a time, where the others carry the load without them.",
)
@admin_option
def order_command(*, at_once: int, admin_url: str) -> None:
    """Tell in which order to restart all replicas: who may be out together stands on one line.

    What is out of service already comes first, then what has least to end. Refused when too few
    replicas would stay, or the others could not carry the present load.

    \b
    Example, a restart of the whole fleet that no client notices; `restart` ends when the replica
    serves again:
      for replica in $(pointsman rolling-order); do
        pointsman drain $replica --wait && restart $replica && pointsman undrain $replica
      done
    """
    told = ask(admin_url, "GET", f"/rolling-order?at_once={at_once}", _Order)
    for wave in told.waves:
        click.echo(" ".join(wave))


def wait_until_idle(admin_url: str, name: str, pause: Callable[[float], None]) -> None:
    """Wait until the router has no request at a replica; says what is left on standard error.

    Args:
        admin_url: The admin plane of the router.
        name: The replica.
        pause: Waits so many seconds.

    Raises:
        click.ClickException: It gets requests again, or left the fleet.
    """
    told = -1
    while True:
        fleet = ask(admin_url, "GET", "/fleet", _Fleet)
        found = next((r for r in fleet.replicas if r.name == name), None)
        if found is None:
            msg = f"{name} is no longer in the fleet"
            raise click.ClickException(msg)
        if not found.in_flight:
            return
        if found.health.state not in {"draining", "down"}:
            msg = f"{name} drains no longer: it is {found.health.state}"
            raise click.ClickException(msg)
        if found.in_flight != told:
            told = found.in_flight
            click.echo(f"{name}: {_requests(told)} to end", err=True)
        pause(LOOK_EVERY_S)


def _requests(count: int) -> str:
    return "1 request has" if count == 1 else f"{count} requests have"
