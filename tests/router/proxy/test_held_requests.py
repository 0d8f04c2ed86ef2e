"""Requests that the policy holds go on when the dispatcher says so, whatever event it was."""

from harness import House

from policies.base import Choice
from router.core.request import State

BODY = b'{"model":"m","prompt":"hello","stream":true}'
REQUEST = (
    b"POST /v1/completions HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
FIRST = b"9\r\ndata: f\n\n\r\n"
LAST = b"0\r\n\r\n"


class OnePrefill:
    """Holds a request as long as another one has no token yet."""

    def __init__(self, house):
        self._dispatcher = house.dispatcher

    def choose(self, request, replicas, rng):
        waiting = any(other.state is State.SENT for other in self._dispatcher.open)
        return Choice(replicas[0], "first", hold=waiting)


def two_clients():
    house = House()
    house.dispatcher.chooser.policy = OnePrefill(house)
    first, second = house.upstream(), house.upstream()
    for _ in range(2):
        client, _ = house.client()
        client.data_received(REQUEST)
    assert first[1].written == b"", "the pool takes the connection that came last"
    return house, second, first


def test_a_held_request_is_sent_with_another_ones_first_token():
    _, (busy, _), (_, idle) = two_clients()
    busy.data_received(HEAD)
    assert idle.written == b""
    busy.data_received(FIRST)
    assert idle.written.startswith(b"POST /v1/completions ")


def test_a_held_request_is_sent_as_time_passes():
    house, (_, busy), (_, idle) = two_clients()
    busy.close()
    house.plane.perform(house.dispatcher.tick(house.loop.now))
    assert idle.written.startswith(b"POST /v1/completions ")


def test_a_client_may_leave_while_its_request_is_held():
    house = House()
    house.dispatcher.chooser.policy = OnePrefill(house)
    upstream, wire = house.upstream()
    house.client()[0].data_received(REQUEST)
    client, down = house.client()
    client.data_received(REQUEST)
    down.close()
    upstream.data_received(HEAD + FIRST + LAST)
    assert wire.written.count(b"POST ") == 1
    assert [state for state, _ in house.ends.ended] == [State.GONE, State.DONE]
    house.assert_drained()
