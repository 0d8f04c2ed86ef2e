"""Client connections: what is answered at once, bounds, deadlines."""

import json

import msgspec
import pytest
from harness import House, pieces
from hypothesis import given
from hypothesis import strategies as st

from router.config.structs import LimitsConfig
from router.core.request import State

BODY = b'{"model":"m","prompt":"x"}'


def post(body=BODY, lines=b"", path=b"/v1/completions", version=b"1.1"):
    head = b"POST %b HTTP/%b\r\nHost: h\r\n%bContent-Length: %d\r\n\r\n"
    return head % (path, version, lines, len(body)) + body


def answers(transport):
    """Status and parsed body of every answer written."""
    found, rest = [], transport.written
    while rest:
        head, _, rest = rest.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        found.append((int(head[9:12]), json.loads(rest[:length] or b"null"), head))
        rest = rest[length:]
    return found


def only(transport):
    (answer,) = answers(transport)
    return answer


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET /health HTTP/1.1", 200),
        (b"GET /ready HTTP/1.1", 200),
        (b"GET /v1/models HTTP/1.1", 200),
        (b"GET /v1/models?x=1 HTTP/1.1", 200),
        (b"POST /health HTTP/1.1", 405),
        (b"GET /metrics HTTP/1.1", 404),
        (b"GET / HTTP/1.1", 404),
        (b"OPTIONS * HTTP/1.1", 404),
    ],
)
def test_own_answers_keep_the_connection(request_line, status):
    house = House()
    client, down = house.client()
    for _ in range(2):
        client.data_received(request_line + b"\r\nHost: h\r\n\r\n")
    assert [answer[0] for answer in answers(down)] == [status, status]
    assert down.state == "open"


def test_models_and_aliases_are_listed():
    house = House(aliases={"nick": "m", "dangling": "unknown"})
    client, down = house.client()
    client.data_received(b"GET /v1/models HTTP/1.1\r\nHost: h\r\n\r\n")
    listed = only(down)[1]["data"]
    assert listed[0] == {"id": "m", "max_model_len": 8}, "as the replica itself says"
    assert [entry["id"] for entry in listed] == ["m", "nick"]


def test_head_of_an_own_answer_has_no_body():
    house = House()
    client, down = house.client()
    client.data_received(b"HEAD /health HTTP/1.1\r\nHost: h\r\n\r\n")
    assert down.written.endswith(b"\r\n\r\n")
    assert b"Content-Length: 15" in down.written


def test_not_ready_without_replicas():
    house = House(replicas=())
    client, down = house.client()
    client.data_received(b"GET /ready HTTP/1.1\r\nHost: h\r\n\r\n" + post())
    assert [answer[0] for answer in answers(down)] == [503, 503]
    assert all(b"Retry-After: 1" in answer[2] for answer in answers(down))
    house.assert_drained()


def test_a_refused_body_is_not_read_and_the_close_announced():
    house = House()
    client, down = house.client()
    client.data_received(post(path=b"/sleep", body=b"x" * 100)[:-50])
    status, _, head = only(down)
    assert status == 404
    assert b"Connection: close" in head
    assert down.state == "half-closed"
    client.data_received(b"x" * 50 + post())
    assert len(answers(down)) == 1
    client.deadline_missed()
    assert down.state == "aborted"


@pytest.mark.parametrize(
    ("body", "code", "status"),
    [
        (b'{"model":"unknown","prompt":"x"}', "model_not_found", 404),
        (b'{"model":"m"', "upstream", 0),
        (b"", "upstream", 0),
    ],
)
def test_bodies_in_a_uniform_fleet(body, code, status):
    """What need not be understood goes on; only a model that nobody serves is refused."""
    house = House()
    client, down = house.client()
    _, upstream = house.upstream()
    client.data_received(post(body))
    if status:
        assert only(down)[:2][0] == status
        assert only(down)[1]["error"]["code"] == code
    else:
        assert upstream.written.endswith(b"\r\n\r\n" + body)


@pytest.mark.parametrize("body", [b'{"model":"m"', b"{}", b"[]", b'{"model":null}'])
def test_bodies_in_a_mixed_fleet(body):
    house = House(replicas=("r1", "r2"))
    house.fleet.models_seen(house.fleet.replicas["r2"], ["other"])
    client, down = house.client()
    client.data_received(post(body, path=b"/v1/messages"))
    status, answer, _ = only(down)
    assert status == 400
    assert answer["type"] == "error"
    assert answer["error"]["type"] == "invalid_request_error"
    house.assert_drained()


def test_a_request_goes_to_the_replica_of_its_model():
    house = House(replicas=("r1", "r2"))
    house.fleet.models_seen(house.fleet.replicas["r2"], ["other"])
    client, _ = house.client()
    _, upstream = house.upstream("r2")
    client.data_received(post(b'{"model":"other"}'))
    assert upstream.written.endswith(b'{"model":"other"}')


def test_an_alias_is_replaced_in_the_body():
    house = House(aliases={"nick": "m"})
    client, _ = house.client()
    _, upstream = house.upstream()
    client.data_received(post(b'{"model":"nick","x":1.0}'))
    head, _, body = upstream.written.partition(b"\r\n\r\n")
    assert body == b'{"model":"m","x":1.0}'
    assert b"Content-Length: %d" % len(body) in head


def test_an_alias_is_replaced_in_a_form():
    house = House(aliases={"nick": "m"})
    client, _ = house.client()
    _, upstream = house.upstream()
    form = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\n%b\r\n--b--\r\n'
    kind = b"Content-Type: multipart/form-data; boundary=b\r\n"
    client.data_received(post(form % b"nick", lines=kind, path=b"/v1/audio/transcriptions"))
    assert upstream.written.endswith(b"\r\n\r\n" + form % b"m")


def test_identity_fields():
    house = House()
    client, _ = house.client()
    client.address = b"10.0.0.9"
    _, upstream = house.upstream()
    lines = b"X-Request-Id: mine\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\n"
    client.data_received(post(lines=lines + b"traceparent: 00-a-b-01\r\n"))
    sent = upstream.written.partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert b"X-Request-Id: mine" in sent
    assert b"X-Forwarded-For: 1.2.3.4, 10.0.0.9" in sent
    assert b"X-Forwarded-Proto: https" in sent
    assert b"traceparent: 00-a-b-01" in sent
    assert len([line for line in sent if line.lower().startswith(b"x-request-id")]) == 1


def test_a_request_id_is_made_and_told():
    house = House()
    client, down = house.client()
    connection, upstream = house.upstream()
    client.data_received(post())
    sent = upstream.written.partition(b"X-Request-Id: ")[2][:32]
    connection.data_received(b"HTTP/1.1 204 No Content\r\n\r\n")
    assert b"x-request-id: " + sent in down.written


def test_expect_continue():
    house = House()
    client, down = house.client()
    _, upstream = house.upstream()
    request = post(lines=b"Expect: 100-continue\r\n")
    client.data_received(request[: -len(BODY)])
    assert down.written == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.data_received(BODY)
    assert upstream.written.endswith(BODY)
    assert b"xpect" not in upstream.written


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit(chunked):
    house = House(limits=LimitsConfig(max_body_bytes=10))
    client, down = house.client()
    if chunked:
        head = b"POST /v1/completions HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
        client.data_received(head + b"b\r\n" + b"x" * 11)
    else:
        client.data_received(post(b"x" * 11, lines=b"Expect: 100-continue\r\n"))
    status, answer, _ = only(down)
    assert (status, answer["error"]["code"]) == (413, "body_too_large")
    assert down.state == "half-closed"
    house.assert_drained()


def test_all_bodies_together_are_bounded():
    house = House(limits=LimitsConfig(max_buffered_bytes=2 * len(BODY)))
    for _ in range(2):
        house.client()[0].data_received(post()[:-1])
    assert house.plane.buffered_bytes == 2 * len(BODY) - 2
    client, down = house.client()
    client.data_received(post())
    assert only(down)[0] == 503
    for connection in list(house.plane.connections):
        connection.abort()
    house.assert_drained()


def test_too_many_connections():
    house = House(limits=LimitsConfig(max_connections=1))
    house.client()
    _, down = house.client()
    assert only(down)[1]["error"]["code"] == "too_many_connections"


@pytest.mark.parametrize(
    ("part", "limit_s"),
    [(b"G", 10), (post()[:30], 10), (post()[:-1], 60)],
)
def test_slow_requests_are_timed_out(part, limit_s):
    house = House()
    client, down = house.client()
    client.data_received(part)
    assert client.deadline_s == house.loop.now + limit_s
    house.loop.now += limit_s / 2
    if part.startswith(b"GET"):
        client.data_received(b"x")
        assert client.deadline_s == house.loop.now + limit_s / 2, "a head has one deadline in all"
    client.deadline_missed()
    assert only(down)[:2][0] == 408
    house.assert_drained()


def test_a_trickling_head_has_one_deadline():
    house = House()
    client, _ = house.client()
    client.data_received(b"GET ")
    deadline_s = client.deadline_s
    house.loop.now += 5
    client.data_received(b"/health HTTP")
    assert client.deadline_s == deadline_s


def test_idle_connections_are_closed_in_silence():
    house = House()
    client, down = house.client()
    assert client.deadline_s == house.loop.now + 75
    client.deadline_missed()
    assert down.state == "aborted"
    assert down.written == b""


def test_no_deadline_while_an_answer_is_waited_for():
    house = House()
    client, _ = house.client()
    house.upstream()
    client.data_received(post())
    assert client.deadline_s is None


def test_what_is_sent_ahead_is_bounded():
    house = House()
    client, down = house.client()
    connection, _ = house.upstream()
    client.data_received(post())
    client.data_received(post() * 1000)
    assert not down.reading
    connection.data_received(b"HTTP/1.1 204 No Content\r\n\r\n")
    assert down.reading


def test_many_requests_in_one_segment_need_no_stack():
    house = House()
    client, down = house.client()
    client.data_received(b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n" * 5000)
    assert down.written.count(b"HTTP/1.1 200 OK") == 5000


def test_an_empty_line_between_requests_is_let_pass_once():
    request = b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n"
    for data, statuses in [
        (request + b"\r\n" + request, [200, 200]),
        (request + b"\r\n\r\n" + request, [200, 400]),
    ]:
        for step in (1, 1000):
            house = House()
            client, down = house.client()
            for at in range(0, len(data), step):
                client.data_received(data[at : at + step])
            assert [answer[0] for answer in answers(down)] == statuses


MALFORMED = [
    b"GET / HTTP/1.1\nHost: h\n\n",
    b"GET / HTTP/1.1\r\nHost: h\r\nX: a\x00b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: h\r\nX : a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: h\r\n\r\nnonsense\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"a" * 70_000,
    b"GET / HTTP/1.1\r\nHost: h\r\n" + b"X: a\r\n" * 101 + b"\r\n",
]


@given(st.sampled_from(MALFORMED), st.lists(st.integers(0, 100_000), max_size=6))
def test_a_verdict_does_not_depend_on_the_cuts(message, cuts):
    whole, parts = House(), House()
    client, down = whole.client()
    client.data_received(message)
    client, down_parts = parts.client()
    for piece in pieces(message, cuts):
        client.data_received(piece)
    statuses = [answer[0] for answer in answers(down)]
    assert statuses == [answer[0] for answer in answers(down_parts)]
    assert statuses[-1] in {400, 431}
    assert down_parts.state == "half-closed"
    assert not parts.ends.ended


def test_stopping():
    house = House()
    idle, idle_transport = house.client()
    busy, busy_transport = house.client()
    connection, _ = house.upstream()
    busy.data_received(post())
    house.plane.stopping = True
    idle.stop()
    busy.stop()
    assert idle_transport.state == "closed"
    assert busy_transport.state == "open"
    connection.data_received(b"HTTP/1.1 204 No Content\r\n\r\n")
    assert busy_transport.state == "half-closed"
    assert house.ends.ended == [(State.DONE, "r1")]


def test_errors_of_own_answers_are_counted():
    house = House()
    client, _ = house.client()
    client.data_received(b"GET /nowhere HTTP/1.1\r\nHost: h\r\n\r\n")
    assert msgspec.to_builtins(house.plane.traffic())["refused_total"] == {404: 1}
