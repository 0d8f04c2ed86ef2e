"""``pointsman serve``: the router as a process."""

from __future__ import annotations

import asyncio
import gc
import resource
import signal
from pathlib import Path

import click
import msgspec
import uvloop

from router.addresses import Address, AddressError, parse_address
from router.app import App
from router.config.loading import load_config
from router.config.rules import check_config
from router.config.structs import Config, ConfigError, PolicyConfig, ReplicaConfig
from router.logs import set_up_logging

SECOND_SIGNAL_STATUS = 1

GC_THRESHOLD = 50_000
"""Objects made before the collector looks for cycles; requests leave none behind."""


@click.command("serve")
@click.option(
    "--replica", "replicas", multiple=True, metavar="URL", help="A replica; may be repeated."
)
@click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Configuration file; `pointsman config` prints one. Flags win over it.",
)
@click.option("--policy", help="Who chooses the replica; `pointsman policies` lists them.")
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port; 0: any.  [default: 8080]")
@click.option(
    "--admin-port", type=click.IntRange(0, 65535), help="Port for operators.  [default: 9090]"
)
@click.option(
    "--grace-s",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    help="How long answers may take to finish after SIGTERM.",
)
def command(
    *,
    replicas: tuple[str, ...],
    path: Path | None,
    policy: str | None,
    host: str | None,
    port: int | None,
    admin_port: int | None,
    grace_s: float,
) -> int:
    """Route requests to replicas.

    \b
    Clients:    http://HOST:PORT/v1/…  as if it were one replica
                /health (alive), /ready (503 until a replica is ready)
    Operators:  http://127.0.0.1:ADMIN_PORT/  /metrics, /fleet, /health

    SIGTERM or Ctrl-C stops accepting and lets answers finish; a second one ends at once.
    """
    config = load_config(path) if path is not None else Config()
    if replicas:
        made = [ReplicaConfig(url=url) for url in replicas]
        config = msgspec.structs.replace(config, replicas=made)
    if policy is not None:
        same = policy == config.policy.name
        chosen = config.policy if same else PolicyConfig(name=policy)
        config = msgspec.structs.replace(config, policy=chosen)
    if host is not None or port is not None:
        listen = _with_flags(config.listen[0] if config.listen else "", host, port)
        config = msgspec.structs.replace(config, listen=[listen])
    if admin_port is not None:
        admin = _with_flags(config.admin, None, admin_port)
        config = msgspec.structs.replace(config, admin=admin)
    check_config(config)
    if not config.replicas:
        raise click.UsageError("no replica is named; give --replica URL or list some in --config")
    set_up_logging(config.log_level)
    return uvloop.run(_serve(config, grace_s))


def _with_flags(listen: str, host: str | None, port: int | None) -> str:
    """An address with what the flags say put in its place."""
    given = parse_address(listen)
    if given.path is not None:
        given = Address("127.0.0.1", 8080)
    made = Address(
        given.host if host is None else host.strip("[]"), given.port if port is None else port
    )
    try:
        return str(parse_address(str(made)))
    except AddressError as error:
        raise ConfigError(str(error), path="--host") from error


async def _serve(config: Config, grace_s: float) -> int:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    _raise_file_limit()
    app = App(_with_connection_limit(config), loop)
    try:
        urls, admin_url = await app.start()
    except OSError as error:
        raise click.ClickException(error.strerror or str(error)) from error
    for url in urls:
        click.echo(f"pointsman: listening on {url}", err=True)
    click.echo(f"pointsman: admin on {admin_url}", err=True)
    # What exists by now lives as long as the process: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    await stop.wait()
    click.echo("pointsman: stopping", err=True)
    stop.clear()
    stopping = asyncio.ensure_future(app.stop(grace_s))
    again = asyncio.ensure_future(stop.wait())
    await asyncio.wait({stopping, again}, return_when=asyncio.FIRST_COMPLETED)
    again.cancel()
    for number in (signal.SIGTERM, signal.SIGINT):
        # From here on the process ends by itself; a late signal must not change its status.
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)
    if not stopping.done():
        await app.stop(0)
        stopping.cancel()
        return SECOND_SIGNAL_STATUS
    return 0


def _raise_file_limit() -> None:
    """Allow as many file descriptors as the system lets us have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _with_connection_limit(config: Config) -> Config:
    """Half of the file descriptors are for clients, the other half for their upstreams."""
    if config.limits.max_connections:
        return config
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 0 if soft == resource.RLIM_INFINITY else soft // 2
    limits = msgspec.structs.replace(config.limits, max_connections=most)
    return msgspec.structs.replace(config, limits=limits)
