import pytest
from harness import House
from hypothesis import given
from hypothesis import strategies as st

from policies.base import Choice, RequestFacts
from router.core.decisions import Decisions
from router.core.fleet import FleetState
from router.core.request import Attempt, Request
from router.http1.response import parse_response_head
from router.proxy.decision_line import decision_line

REPLICA = FleetState().add("r1:8000", "http://r1:8000")


def line(reason="least_cost", ttft_s=0.1234):
    attempt = Attempt(Request("r", RequestFacts(), 0.0), REPLICA, 1.0)
    decisions = Decisions()
    attempt.decision = decisions.record(attempt, Choice(REPLICA, reason, ttft_s=ttft_s), 3, 0.25)
    return decision_line(decisions, attempt)


def test_it_tells_where_and_why():
    start = b"\r\nx-pointsman-decision: replica=r1:8000; reason=least_cost; "
    assert line() == start + b"ttft=0.123; candidates=3; held=0.250"
    assert line(ttft_s=None) == start + b"candidates=3; held=0.250"


def test_what_is_kept_no_more_is_not_told():
    attempt = Attempt(Request("r", RequestFacts(), 0.0), REPLICA, 1.0)
    assert decision_line(Decisions(), attempt) == decision_line(None, attempt) == b""


@given(st.text())
def test_a_reason_can_forge_no_fields(reason):
    told = line(reason)
    head = parse_response_head(b"HTTP/1.1 200 OK%b\r\n\r\n" % told, b"GET")
    assert head.lines == told
    assert told.count(b";") == 4


@pytest.mark.parametrize(("asked", "always", "told"), [(0, 0, 0), (1, 0, 1), (0, 1, 1), (1, 1, 1)])
def test_an_answer_tells_it_once_when_it_is_to(asked, always, told):
    house = House(decision_header=bool(always))
    upstream, wire = house.upstream()
    client, down = house.client()
    lines = b"x-pointsman-explain: 1\r\n" * asked
    client.data_received(b"GET /v1/files/f HTTP/1.1\r\nHost: h\r\n%b\r\n" % lines)
    assert b"x-pointsman-explain" not in wire.written.lower()
    upstream.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert down.written.count(b"\r\nx-pointsman-decision: replica=r1; reason=first; ") == told
