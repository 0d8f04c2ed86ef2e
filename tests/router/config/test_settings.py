"""What is written in the file reaches the core, and what is not written changes nothing there."""

import msgspec
import pytest

from router.config.loading import parse_config
from router.config.structs import Config, ConfigError
from router.core.dispatcher import Limits
from router.core.health import HealthSettings
from router.core.hold import HoldLimits
from router.settings import dispatcher_limits, health_settings, hold_limits

SECTIONS = ("health", "stall", "gray", "retry", "hold", "drain")


def settings(config):
    return health_settings(config), dispatcher_limits(config), hold_limits(config)


def test_the_defaults_are_those_of_the_core():
    assert settings(Config()) == (HealthSettings(), Limits(), HoldLimits())


def other(value):
    """A value that is allowed wherever ``value`` is, and differs."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, list):
        return [503]
    return value * 1.25 or 1.0 if isinstance(value, float) else value + 1


@pytest.mark.parametrize(
    ("section", "key"),
    [
        (section, field.name)
        for section in SECTIONS
        for field in msgspec.structs.fields(getattr(Config(), section))
    ],
)
def test_every_key_reaches_the_core(section, key):
    usual = getattr(Config(), section)
    turned = msgspec.structs.replace(usual, **{key: other(getattr(usual, key))})
    config = msgspec.structs.replace(Config(), **{section: turned})
    assert settings(config) != settings(Config())


def test_what_is_written_is_what_the_core_goes_by():
    config = parse_config(
        """
health: {failures_in_a_row: 5, max_ejected: 0.25, slow_start_s: 0}
retry: {share: 0.1, minimum: 1, statuses: [503]}
stall: {least_s: 1}
headroom: 1
gray: {slow: 3, eject: 3}
""",
        "c.yaml",
        {},
    )
    health, limits, _ = settings(config)
    assert (health.failures_in_a_row, health.max_ejected, health.slow_start.warm_s) == (5, 0.25, 0)
    retry = limits.retry
    assert (retry.budget_share, retry.status_share, retry.budget_least) == (0.1, 0.1, 1)
    assert retry.statuses == {503}
    assert limits.stall.least_s == limits.headroom.lose == 1
    assert (limits.gray.slow, limits.gray.eject) == (3, 3)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("gray: {slow: 5}", "c.yaml:1: $.gray.eject: must not be less than slow (5)"),
        (
            "stall: {most_s: 2}",
            "c.yaml:1: $.stall.most_s: must not be less than least_s (3)",
        ),
        (
            "health:\n  eject_s: 300",
            "c.yaml:1: $.health.max_eject_s: must not be less than eject_s (300)",
        ),
        (
            "retry:\n  statuses: [503, 431]",
            "c.yaml:2: $.retry.statuses[1]: 431 is not tried elsewhere: only 429 and 5xx may be",
        ),
        (
            "retry: {statuses: [404]}",
            "c.yaml:1: $.retry.statuses[0]: 404 is not allowed; expected a whole number >= 429",
        ),
        ("retry: {share: 0}", "c.yaml:1: $.retry.share: 0 is not allowed; expected a number > 0"),
        ("gray: {slow: 1}", "c.yaml:1: $.gray.slow: 1 is not allowed; expected a number > 1"),
    ],
)
def test_what_cannot_be_meant_is_refused(text, line):
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "c.yaml", {})
    assert str(caught.value) == line
