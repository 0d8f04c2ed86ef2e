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

from policies.base import Role
from router.addresses import Address, AddressError, parse_address
from router.app import App
from router.config.loading import load_config
from router.config.rules import check_config
from router.config.structs import Config, ConfigError, PolicyConfig, ReplicaConfig
from router.logs import set_up_logging
from router.settings import SPLITS, chosen_policy
from router.split.catalogue import DIALECTS

SECOND_SIGNAL_STATUS = 1

GC_THRESHOLD = 50_000
"""Objects made before the collector looks for cycles; requests leave none behind."""


@click.command("serve")
@click.option(
    "--replica", "replicas", multiple=True, metavar="URL", help="A replica; may be repeated."
)
@click.option(
    "--prefill",
    "prefills",
    multiple=True,
    metavar="URL",
    help="A replica that computes prompts for others; may be repeated.",
)
@click.option(
    "--decode",
    "decodes",
    multiple=True,
    metavar="URL",
    help="A replica that answers prompts computed elsewhere; may be repeated.",
)
@click.option(
    "--kv-dialect",
    type=click.Choice(list(DIALECTS)),
    help="How KV moves between them; as split.kv_dialect in the configuration.",
)
@click.option(
    "--split",
    type=click.Choice(["auto", "always", "never"]),
    help="Whether requests are split over two replicas: where that is expected to pay, wherever"
    " possible, or only where no replica can serve them alone.  [default: auto]",
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
    prefills: tuple[str, ...],
    decodes: tuple[str, ...],
    kv_dialect: str | None,
    split: str | None,
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
    named = {Role.BOTH: replicas, Role.PREFILL: prefills, Role.DECODE: decodes}
    made = [ReplicaConfig(url=url, role=role.value) for role, urls in named.items() for url in urls]
    if made:
        config = msgspec.structs.replace(config, replicas=made)
    if kv_dialect is not None:
        moved = msgspec.structs.replace(config.split, kv_dialect=kv_dialect)
        config = msgspec.structs.replace(config, split=moved)
    if policy is not None:
        same = policy == config.policy.name
        chosen = config.policy if same else PolicyConfig(name=policy)
        config = msgspec.structs.replace(config, policy=chosen)
    if split is not None:
        config = _with_split(config, split)
    if host is not None or port is not None:
        listen = _with_flags(config.listen[0] if config.listen else "", host, port)
        config = msgspec.structs.replace(config, listen=[listen])
    if admin_port is not None:
        admin = _with_flags(config.admin, None, admin_port)
        config = msgspec.structs.replace(config, admin=admin)
    check_config(config)
    if not config.replicas:
        msg = "no replica is named; give --replica URL, or --prefill and --decode, or --config FILE"
        raise click.UsageError(msg)
    set_up_logging(config.log_level)
    return uvloop.run(_serve(config, grace_s))


def _with_split(config: Config, split: str) -> Config:
    """The policy with its option of that name."""
    policy = chosen_policy(config)
    if policy.name != SPLITS:
        raise click.UsageError(f"--split needs --kv-dialect, and the policy {SPLITS}")
    chosen = PolicyConfig(name=policy.name, options={**policy.options, "split": split})
    return msgspec.structs.replace(config, policy=chosen)


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
