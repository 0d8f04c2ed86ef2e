"""What is looked at: workloads, fleets, policies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadgen.engine.profile import load_profile
from loadgen.simulate.settings import ReplicaPlan, Settings
from loadgen.trace.selection import Selection
from policies.slo import Slo

if TYPE_CHECKING:
    from pathlib import Path

OWN = "least_estimated_completion"
"""The policy that is measured."""

FIRST = "round_robin"
"""The one that all are compared with."""

ORACLE = "oracle"

BASELINES = (
    "least_requests",
    "power_of_two",
    "least_queue",
    "least_kv",
    "cache_aware",
    "prefix_aware",
    "least_load",
    "llm_d",
    "dynamo_kv",
    "smetric",
    "lmetric",
)
"""What others do."""

TIMEOUT_S = 7200.0
"""The longest answer of ServeGen's takes half an hour at the objective's pace."""


@dataclass(slots=True, frozen=True)
class Workload:
    """A trace: whole, if its file is there, else the cut that comes with pointsman."""

    name: str
    spec: str
    """As :func:`loadgen.trace.names.open_trace` takes it."""

    file: str | None = None
    """The whole trace, in a folder of such files."""

    jitter: bool = False

    def selection(self, folder: Path | None, limit: int | None) -> Selection:
        """The requests.

        Args:
            folder: Where whole traces are; None: take the cuts.
            limit: Take so many requests; None: all.
        """
        spec = self.spec
        if folder is not None and self.file is not None:
            spec = str(folder / self.file)
        return Selection(spec=spec, jitter=self.jitter, limit=limit)


WORKLOADS = (
    Workload("bimodal", "bimodal:rate=8,n=3000"),
    Workload("azure-code", "azure-code", "azure_code_2023.csv.gz"),
    Workload("azure-conv", "azure-conv", "azure_conv_2023.csv.gz"),
    Workload("mooncake", "mooncake-conversation", "mooncake_conversation.jsonl.gz", jitter=True),
    Workload("toolagent", "toolagent", "synthetic-toolagent.jsonl.gz"),
    Workload("servegen-r1", "servegen-r1", "servegen-deepseek-r1.dev.jsonl.gz"),
)
"""Mooncake's volleys are spread: its times are rounded to 3 s."""


@dataclass(slots=True, frozen=True)
class Fleet:
    """Replicas, and the objective that such ones can keep."""

    name: str
    title: str
    replicas: tuple[ReplicaPlan, ...]
    ttft_s_per_token: float = 0.00025

    @property
    def settings(self) -> Settings:
        """What is simulated."""
        slo = Slo(
            ttft_s=2.0,
            ttft_s_per_token=self.ttft_s_per_token,
            ttft_free_tokens=4096,
            tpot_s=0.06,
        )
        return Settings(replicas=self.replicas, slo=slo, timeout_s=TIMEOUT_S)


def fleets() -> tuple[Fleet, ...]:
    """The fleets: read from the profiles' files."""
    small, large = load_profile("8b-h100"), load_profile("70b-tp4-h100")
    one = ReplicaPlan(profile=small)
    tuned = ReplicaPlan(profile=small, max_batched_tokens=1024)
    half = ReplicaPlan(profile=small, speed=0.5)
    return (
        Fleet("equal", "8 x 8B on an H100", (one,) * 8),
        Fleet("budget-1024", "8 x 8B on an H100, token budget of a step 1,024", (tuned,) * 8),
        Fleet(
            "half-speed", "8 x 8B on an H100, half of them at half speed", (one,) * 4 + (half,) * 4
        ),
        Fleet("sixteen", "16 x 8B on an H100", (one,) * 16),
        Fleet("70b", "8 x 70B on four H100", (ReplicaPlan(profile=large),) * 8, 0.0005),
    )


def small_fleets() -> tuple[Fleet, ...]:
    """Fleets that the cuts of traces load for more than a few seconds."""
    one = ReplicaPlan(profile=load_profile("8b-h100"))
    half = ReplicaPlan(profile=load_profile("8b-h100"), speed=0.5)
    return (
        Fleet("two", "2 x 8B on an H100", (one,) * 2),
        Fleet("two-half-speed", "2 x 8B on an H100, one of them at half speed", (one, half)),
    )


LEFT_OUT = {
    "waiting in the router": f"{OWN}+wait=false",
    "harm to others": f"{OWN}+harm=0",
    "cached prefixes": f"{OWN}+prefix=false",
    "the peak to come": f"{OWN}+peak=false",
}
"""Parts of the policy, and the policy without each."""

ABLATED = ("bimodal", "azure-code", "mooncake", "toolagent", "servegen-r1")
"""Workloads on which parts are left out, on the first fleet."""

LOADED = ("bimodal", "azure-code", "mooncake", "toolagent")
"""Workloads whose latencies are looked at, on the first fleet."""

SWEPT = (0.6, 0.8, 1.0, 1.2, 1.5, 1.8)
"""Rates at which goodput is drawn, as shares of round_robin's capacity."""


def is_own(policy: str) -> bool:
    """Whether a policy is the one that is measured, whole or in part, or its oracle."""
    return policy.partition("+")[0] in {OWN, ORACLE}
