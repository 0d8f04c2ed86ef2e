"""What the configuration may say of splitting requests."""

from __future__ import annotations

import pytest

from policies.base import Role
from router.config.loading import parse_config
from router.config.structs import ConfigError
from router.settings import chosen_policy, part_in_splits

TWO = "replicas: [{url: 'http://a:1', role: prefill}, {url: 'http://b:1', role: decode}]\n"


def parse(text):
    return parse_config(text, "c.yaml", {})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (TWO, r"replicas\[0\]\.role: a role needs \$\.split\.kv_dialect"),
        (
            TWO + "split: {kv_dialect: nixel}",
            r"kv_dialect: 'nixel' is not .*did you mean 'nixl'",
        ),
        (
            TWO + "split: {kv_dialect: nixl}\nretry: {hedge_after_s: 1}",
            r"retry\.hedge_after_s: a first token cannot be hedged",
        ),
        (
            "split: {kv_dialect: nixl}\nreplicas: [{url: 'http://a:1'}]",
            r"\$\.replicas: no two replicas can split",
        ),
        (
            (
                "split: {kv_dialect: nixl}\n"
                "replicas: [{url: 'http://a:1', role: prefill}, {url: 'http://b:1', role: prefill}]"
            ),
            r"\$\.replicas: no two replicas can split",
        ),
        (
            TWO + "split: {kv_dialect: sglang}\npolling: {generation_s: 5}",
            r"polling\.generation_s: replicas of kv_dialect sglang make no token alone",
        ),
        (TWO.replace("decode", "decod"), r"role: 'decod' is not one of"),
        (TWO + "split: {kv_dialect: p2p}", r"replicas\[0\]\.kv_address: kv_dialect p2p needs"),
        (
            (
                "split: {kv_dialect: p2p}\nreplicas: [{url: 'http://a:1', kv_address: 'a:0'},"
                " {url: 'http://b:1', kv_address: 'b:2'}]"
            ),
            r"replicas\[0\]\.kv_address: the port is missing",
        ),
        (
            (
                "split: {kv_dialect: sglang}\nreplicas: [{url: 'http+unix:///a', role: prefill},"
                " {url: 'http://b:1', role: decode}]"
            ),
            r"replicas\[0\]\.url: behind a Unix socket",
        ),
        (TWO.replace("prefill}", "prefill, bootstrap_port: 0}"), r"bootstrap_port"),
        (TWO + "split: {kv_dialect: nixl, link_gbps: 0}", r"link_gbps"),
    ],
)
def test_what_cannot_be_is_refused(text, problem):
    with pytest.raises(ConfigError, match=problem):
        parse(text)


def test_replicas_that_do_both_can_split_among_themselves():
    config = parse(
        "split: {kv_dialect: nixl}\nreplicas: [{url: 'http://a:1'}, {url: 'http://b:1'}]"
    )
    assert [replica.for_role for replica in config.replicas] == [Role.BOTH, Role.BOTH]


@pytest.mark.parametrize(
    ("more", "name"),
    [
        ("", "prefill_decode"),
        ("policy: {name: round_robin}", "round_robin"),
        ("policy: {options: {split: never}}", "prefill_decode"),
    ],
)
def test_a_fleet_that_splits_has_a_policy_that_does(more, name):
    config = parse(TWO + "split: {kv_dialect: nixl}\n" + more)
    assert chosen_policy(config).name == name
    assert chosen_policy(config).options == config.policy.options


def test_any_other_fleet_keeps_the_usual_policy():
    assert chosen_policy(parse("")).name == "least_estimated_completion"


@pytest.mark.parametrize(
    ("dialect", "role", "whole"),
    [
        ("nixl", Role.PREFILL, True),
        ("sglang", Role.DECODE, False),
        ("sglang", Role.BOTH, True),
    ],
)
def test_what_a_role_means_for_the_core(dialect, role, whole):
    split = parse(
        f"split: {{kv_dialect: {dialect}, link_gbps: 80, kv_bytes_per_token: 100000}}"
    ).split
    part = part_in_splits(role, split)
    assert (part.role, part.serves_whole) == (role, whole)
    if role is Role.PREFILL:
        assert part.transfer is None
    else:
        assert part.transfer.token_s == pytest.approx(1e-5)  # 100 kB at 10 GB/s
