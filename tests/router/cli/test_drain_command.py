import pytest

from router.cli import drain, root
from router.cli.admin_client import DEFAULT_URL, RefusedError


def page(state, in_flight):
    return {"name": "gpu-1:8000", "health": {"state": state}, "in_flight": in_flight}


class Admin:
    """Answers what it is told to, one page after the other; the last one again and again."""

    def __init__(self, *pages):
        self.pages = list(pages)
        self.asked = []

    def __call__(self, url, method, path, kind):
        self.asked.append((url, method, path))
        if method == "POST":
            health = drain._Health("warming" if path.startswith("/undrain") else "draining")
            return kind("gpu-1:8000", health, self.pages[0]["in_flight"] if self.pages else 0)
        page = self.pages.pop(0) if len(self.pages) > 1 else self.pages[0]
        replica = drain._Replica(page["name"], drain._Health(page["health"]["state"]), 0)
        replica.in_flight = page["in_flight"]
        return kind([replica])


@pytest.fixture
def run(monkeypatch, capsys):
    def run(admin, *arguments):
        pauses = []
        monkeypatch.setattr(drain, "ask", admin)
        monkeypatch.setattr(drain.time, "sleep", pauses.append)
        status = root.run(arguments)
        out, err = capsys.readouterr()
        return status, out, err, pauses

    return run


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        ((), "/drain/http%3A%2F%2Fgpu-1%3A8000"),
        (("--force",), "/drain/http%3A%2F%2Fgpu-1%3A8000?force=1"),
    ],
)
def test_a_replica_is_drained_without_waiting(run, arguments, path):
    admin = Admin(page("draining", 2))
    status, out, err, _ = run(admin, "drain", "http://gpu-1:8000", *arguments)
    assert (status, err) == (0, "")
    assert out == "gpu-1:8000 drains; 2 requests have to end\n"
    assert admin.asked == [(DEFAULT_URL, "POST", path)]


def test_the_end_of_its_requests_is_waited_for(run):
    pages = [page("draining", 2), page("draining", 2), page("draining", 1), page("draining", 0)]
    admin = Admin(*pages)
    status, out, err, pauses = run(
        admin, "drain", "gpu-1:8000", "--wait", "--admin", "http://127.0.0.1:1"
    )
    assert (status, out) == (0, "gpu-1:8000 has no requests\n")
    assert err.splitlines() == [
        "gpu-1:8000: 2 requests have to end",
        "gpu-1:8000: 1 request has to end",
    ]
    assert len(pauses) == 3
    assert set(admin.asked[1:]) == {("http://127.0.0.1:1", "GET", "/fleet")}


@pytest.mark.parametrize(
    ("pages", "says"),
    [
        ([page("ready", 1)], "gpu-1:8000 drains no longer: it is ready"),
        ([page("draining", 1) | {"name": "other"}], "gpu-1:8000 is no longer in the fleet"),
    ],
)
def test_a_wait_for_what_will_not_come_ends(run, pages, says):
    status, out, err, _ = run(Admin(*pages), "drain", "gpu-1:8000", "--wait")
    assert (status, out) == (2, "")
    assert err.splitlines()[-1] == f"pointsman: {says}"


def test_one_that_is_down_ends_when_its_requests_do(run):
    status, out, _, _ = run(
        Admin(page("down", 1), page("down", 0)), "drain", "gpu-1:8000", "--wait"
    )
    assert (status, out) == (0, "gpu-1:8000 has no requests\n")


def test_a_replica_is_undrained(run):
    admin = Admin()
    status, out, err, _ = run(admin, "undrain", "gpu-1:8000")
    assert (status, out, err) == (0, "gpu-1:8000 is warming\n", "")
    assert admin.asked == [(DEFAULT_URL, "POST", "/undrain/gpu-1%3A8000")]


def test_a_refusal_is_one_line(run):
    def refuse(*_):
        raise RefusedError(409, "drain_refused", "Draining a would leave 0 replicas in service.")

    status, out, err, _ = run(refuse, "drain", "a")
    assert (status, out) == (2, "")
    assert err == "pointsman: Draining a would leave 0 replicas in service\n"


def test_the_order_of_a_rolling_restart_is_told_a_wave_a_line(run):
    def admin(url, method, path, kind):
        assert (url, method, path) == (DEFAULT_URL, "GET", "/rolling-order?at_once=2")
        return kind([["a:1", "b:1"], ["c:1"]])

    assert run(admin, "rolling-order", "--at-once", "2")[:3] == (0, "a:1 b:1\nc:1\n", "")
