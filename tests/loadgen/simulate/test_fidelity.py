"""What the simulator says is what a live router does, with real processes on real sockets."""

import pytest

from loadgen.simulate.fidelity import compare
from loadgen.trace import transform
from loadgen.trace.names import open_trace


@pytest.mark.soak
@pytest.mark.timeout(240)
@pytest.mark.parametrize("policy", ["round_robin", "least_requests"])
def test_live_and_simulated_agree(policy):
    # two replicas near their capacity, where a small error would grow in the queues; policies that
    # polls do not sway, for when polls come is chance, and moves these figures by 10 %
    trace = transform.window(open_trace("bimodal:rate=3,n=1000"), 0.0, 60.0)
    found = compare(trace, policy, replicas=2)
    assert found.live.report.requests.failed == found.simulated.failed == 0
    for live, simulated in (found.ttft_p50_s, found.ttft_p90_s, found.goodput):
        assert simulated == pytest.approx(live, rel=0.1)
