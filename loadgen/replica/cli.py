"""``pointsman replica``."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click
import uvloop

from loadgen.engine.profile import Profile, load_profile, profile_names
from loadgen.replica.flavours.names import FLAVOURS
from loadgen.replica.kv.dialects import DIALECTS
from loadgen.replica.serving import serve
from loadgen.replica.settings import ReplicaSettings
from policies.base import Role

if TYPE_CHECKING:
    from collections.abc import Coroutine

_POSITIVE = click.IntRange(min=1)
_FACTOR = click.FloatRange(min=0, min_open=True)

_FAULTS = """\b
Faults are switched while it runs: POST /faults with a JSON object, GET shows
them, DELETE ends them. What is named is set, null makes it whole again:
  {"crash": true}                      the process ends at once
  {"hang": true}                       accepts, but answers nothing; streams
                                       stand still; {"hang": {"health": true}}
                                       goes on answering health and metrics
  {"slow": 5.0}                        every engine step takes 5 times as long
  {"errors": {"share": 0.2, "status": 503, "retry_after_s": 1}}
  {"cut": {"after_tokens": 10, "how": "rst", "share": 0.5}}
                                       breaks streams: rst (reset), fin (closed
                                       between events), torn (closed within
                                       one), stall (silent)
  {"metrics": "garbage"}               ok, error (500), garbage, frozen, huge
                                       (32 MiB) or slow (30 s)
  {"health": "error"}                  ok, error (503) or slow (30 s)
"""


def _read_profile(_: click.Context, __: click.Parameter, value: str) -> Profile:
    try:
        return load_profile(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command("replica", epilog=_FAULTS)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="Port to listen at; 0: any free one. The URL is printed once it listens.",
)
@click.option(
    "--profile",
    callback=_read_profile,
    default="8b-h100",
    show_default=True,
    help=f"Model and GPUs: {', '.join(profile_names())}, or a file that ends in .toml.",
)
@click.option(
    "--engine",
    type=click.Choice(list(FLAVOURS)),
    default="vllm",
    show_default=True,
    help="Whose metric names, health answers and errors it speaks.",
)
@click.option("--model", multiple=True, help="Name of the model; may be repeated. [the profile's]")
@click.option("--adapter", multiple=True, help="Name of a LoRA adapter; may be repeated.")
@click.option(
    "--speed", type=_FACTOR, default=1.0, show_default=True, help="Virtual seconds in a second."
)
@click.option(
    "--load-time",
    type=click.FloatRange(min=0),
    help="Seconds until the model is loaded. [the profile's, divided by the speed]",
)
@click.option(
    "--refuse-while-loading",
    is_flag=True,
    help="Refuse connections until then, as vLLM does, instead of answering 503.",
)
@click.option("--kv-tokens", type=_POSITIVE, help="Size of the KV cache. [the profile's]")
@click.option(
    "--max-batched-tokens", type=_POSITIVE, help="Token budget of a step. [the profile's]"
)
@click.option("--max-sequences", type=_POSITIVE, help="Most sequences at once. [the profile's]")
@click.option("--max-model-tokens", type=_POSITIVE, help="Longest sequence. [the profile's]")
@click.option(
    "--shutdown-timeout",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="Seconds that open requests may go on after SIGTERM; 0: they are broken off.",
)
@click.option(
    "--role",
    type=click.Choice([role.value for role in Role]),
    default=Role.BOTH.value,
    show_default=True,
    help="What it is there for, where requests are split over two replicas.",
)
@click.option(
    "--kv-dialect",
    type=click.Choice(DIALECTS),
    help="How KV moves between replicas; GET /kv shows what is kept.  [default: not at all]",
)
@click.option(
    "--link-gbps",
    type=_FACTOR,
    default=400.0,
    show_default=True,
    help="How fast KV reaches it, in Gbit per virtual second.",
)
@click.option(
    "--kv-lease",
    type=_FACTOR,
    default=30.0,
    show_default=True,
    help="Seconds that the KV of a prompt is kept when nobody comes for it.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the faults' chance.")
def command(
    *,
    host: str,
    port: int,
    profile: Profile,
    engine: str,
    model: tuple[str, ...],
    adapter: tuple[str, ...],
    speed: float,
    load_time: float | None,
    refuse_while_loading: bool,
    kv_tokens: int | None,
    max_batched_tokens: int | None,
    max_sequences: int | None,
    max_model_tokens: int | None,
    shutdown_timeout: float,
    role: str,
    kv_dialect: str | None,
    link_gbps: float,
    kv_lease: float,
    seed: int,
) -> None:
    """Run a simulated replica: an OpenAI-compatible server that behaves like an engine on GPUs.

    What it says is a function of the prompt alone, so that two replicas, or one that resumes a
    broken answer, say the same.
    """
    if role != Role.BOTH.value and kv_dialect is None:
        raise click.UsageError("--role needs --kv-dialect: how KV moves between replicas")
    settings = ReplicaSettings(
        profile=profile,
        engine=engine,
        models=model,
        adapters=adapter,
        speed=speed,
        load_s=profile.load_s / speed if load_time is None else load_time,
        kv_tokens=kv_tokens,
        max_batched_tokens=max_batched_tokens,
        max_sequences=max_sequences,
        max_model_tokens=max_model_tokens,
        role=Role(role),
        kv_dialect=kv_dialect or "",
        link_gbps=link_gbps,
        kv_lease_s=kv_lease,
        seed=seed,
    )
    _run(
        serve(
            settings,
            host,
            port,
            refuse_while_loading=refuse_while_loading,
            grace_s=shutdown_timeout,
            announce=click.echo,
        ),
        f"{host}:{port}",
    )


def _run(serving: Coroutine[None, None, None], address: str) -> None:
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serving)
    except OSError as error:
        reason = error.strerror or error
        raise click.ClickException(f"cannot listen at {address}: {reason}") from error
    except ValueError as error:
        raise click.UsageError(str(error)) from error
