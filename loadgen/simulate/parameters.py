"""From the command's parameters to settings; mistakes are told in one line."""

from __future__ import annotations

import os
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, TypedDict

import click

from loadgen.commandline import BadInput
from loadgen.contender import parse_contender
from loadgen.engine.engine import Engine
from loadgen.engine.profile import load_profile
from loadgen.replay.parameters import folder_exists
from loadgen.simulate.plot import PICTURES, DrawingError, check_drawing
from loadgen.simulate.scenario import Group, Scenario, check_faults, load_scenario
from loadgen.simulate.settings import Delays, ReplicaPlan, Settings
from policies.base import Role
from policies.contract import PolicyError
from router.config.structs import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from loadgen.engine.profile import Profile
    from policies.slo import Slo

DEFAULT_REPLICAS = 8


class Given(TypedDict):
    """The options of a simulation, as click hands them over."""

    replicas: int | None
    profile: Profile
    policy: tuple[str, ...]
    seeds: int
    prefill: int | None
    decode: int | None
    link_gbps: float
    find_ratio: bool
    rate_scale: float
    rates: tuple[float, ...]
    jitter: bool
    start: float
    duration: float | None
    limit: int | None
    max_input_tokens: int | None
    max_output_tokens: int | None
    slo: Slo
    late_gap: float | None
    max_batched_tokens: int | None
    find_capacity: bool
    target: float | None
    tolerance: float
    scenario: Path | None
    network_delay: float
    poll_interval: float
    poll_delay: float
    timeout: float
    jobs: int | None
    out: Path | None
    plot: Path | None


def profile_of(_ctx: click.Context, param: click.Parameter, value: str) -> Profile:
    """A profile by its name or file."""
    return _profile(value, param)


def policies_of(_ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:
    """Policies, separated by commas; each is made once, to see that it can be."""
    names = tuple(name.strip() for name in value.split(","))
    if not all(names) or len(set(names)) < len(names):
        raise click.BadParameter(f"{value!r} is no list of policies like a,b,c", param=param)
    for name in names:
        try:
            parse_contender(name).load()
        except PolicyError as error:
            raise click.BadParameter(str(error), param=param) from error
    return names


def share_of(_ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """A share, written ``95%`` or ``0.95``."""
    if value is None:
        return None
    number, percent = value.removesuffix("%"), value.endswith("%")
    try:
        share = float(number) / (100 if percent else 1)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        message = f"{value!r} is no share above 0 and up to 1, such as 95% or 0.95"
        raise click.BadParameter(message, param=param)
    return share


def factors_of(_ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[float, ...]:
    """Factors above 0, separated by commas."""
    if value is None:
        return ()
    try:
        factors = tuple(float(part) for part in value.split(","))
    except ValueError:
        factors = ()
    if not factors or not all(0 < factor < inf for factor in factors):
        raise click.BadParameter(f"{value!r} is no list of factors like 0.5,1,2", param=param)
    return tuple(sorted(set(factors)))


def picture_of(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    """A file for a picture, before minutes are spent on what it shows."""
    if value is None:
        return None
    if value.suffix not in PICTURES:
        allowed = " or ".join(PICTURES)
        raise click.BadParameter(f"{str(value)!r} does not end in {allowed}", param=param)
    try:
        check_drawing()
    except DrawingError as error:
        raise click.BadParameter(str(error), param=param) from error
    return folder_exists(ctx, param, value)


def settings_of(given: Given) -> Settings:
    """The fleet and what befalls it.

    Raises:
        click.ClickException: The scenario has a mistake, or does not fit the other options.
    """
    path = given["scenario"]
    if path is not None and (given["prefill"] or given["decode"]):
        raise click.UsageError("--prefill and --decode do not go with --scenario, which has roles")
    try:
        scenario = Scenario() if path is None else load_scenario(path)
        pools = (given["prefill"] or 0) + (given["decode"] or 0)
        size = (given["replicas"] or 0) + pools if pools else given["replicas"]
        replicas = _fleet_size(size, scenario.fleet_size, str(path))
        check_faults(scenario, replicas, str(path))
    except ConfigError as error:
        raise BadInput(str(error)) from error
    groups = scenario.replicas or _groups(given, replicas)
    return Settings(
        replicas=[plan for group in groups for plan in [_plan(group, given)] * group.count],
        slo=given["slo"],
        faults=sorted(scenario.faults, key=lambda fault: fault.at_s),
        delays=Delays(
            network_s=given["network_delay"],
            poll_interval_s=given["poll_interval"],
            poll_answer_s=given["poll_delay"],
        ),
        late_gap_s=given["late_gap"],
        link_bytes_per_s=given["link_gbps"] * 1e9 / 8,
        timeout_s=given["timeout"],
    )


def fleets_of(given: Given, settings: Settings) -> list[Settings]:
    """The fleets to compare: that of the options, and with --find-ratio each split of it in two.

    Raises:
        click.UsageError: The options do not go together.
    """
    if not given["find_ratio"]:
        return [settings]
    if given["prefill"] or given["decode"] or given["scenario"] is not None:
        message = "--find-ratio splits the fleet of --replicas itself, and goes with no other"
        raise click.UsageError(message)
    if not given["find_capacity"]:
        raise click.UsageError("--find-ratio goes with --find-capacity")
    if given["plot"] is not None:
        raise click.UsageError("--plot does not go with --find-ratio: it draws one fleet")
    whole = settings.replicas
    if len(whole) < 2:
        raise click.UsageError("--find-ratio needs at least two replicas")
    fleets = [settings]
    for count in range(1, len(whole)):
        roles = [Role.PREFILL] * count + [Role.DECODE] * (len(whole) - count)
        replicas = [replace(plan, role=role) for plan, role in zip(whole, roles, strict=True)]
        fleets.append(replace(settings, replicas=replicas))
    return fleets


def check_engines(settings: Settings, key_tokens: int | None, workload: str) -> None:
    """See that every engine can be built, with the prefix blocks of a workload.

    Raises:
        BadInput: One cannot.
    """
    for plan in settings.replicas:
        try:
            Engine(plan.profile, kv_tokens=plan.kv_tokens, key_tokens=key_tokens)
        except ValueError as error:
            raise BadInput(f"{workload} on {plan.profile.name}: {error}") from error


def jobs_of(given: Given) -> int:
    """How many processes to use."""
    return given["jobs"] or len(os.sched_getaffinity(0))


def _fleet_size(asked: int | None, described: int | None, where: str) -> int:
    if described is None:
        return asked or DEFAULT_REPLICAS
    if asked is not None and asked != described:
        problem = f"describes {described} replicas, --replicas asks for {asked}"
        raise ConfigError(problem, path="$.replicas", where=where)
    return described


def _groups(given: Given, replicas: int) -> list[Group]:
    """Replicas as the options count them; those without a role are what is left."""
    prefill, decode = given["prefill"], given["decode"]
    if prefill is None and decode is None:
        return [Group(count=replicas)]
    if not prefill or not decode:
        raise click.UsageError("--prefill and --decode go together")
    groups = [Group(count=prefill, role="prefill"), Group(count=decode, role="decode")]
    return groups + ([Group(count=given["replicas"])] if given["replicas"] else [])


def _plan(group: Group, given: Given) -> ReplicaPlan:
    profile = given["profile"] if group.profile is None else _profile(group.profile, None)
    return ReplicaPlan(
        profile=profile,
        speed=group.speed,
        max_batched_tokens=group.max_batched_tokens or given["max_batched_tokens"],
        kv_tokens=group.kv_tokens,
        role=Role(group.role),
    )


def _profile(name: str, param: click.Parameter | None) -> Profile:
    try:
        return load_profile(name)
    except ValueError as error:
        if param is None:
            raise BadInput(str(error)) from error
        raise click.BadParameter(str(error), param=param) from error
