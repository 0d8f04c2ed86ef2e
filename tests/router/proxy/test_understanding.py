import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.api.body import MalformedBodyError, Reading
from router.api.objectives import Objectives
from router.api.routes import Routes
from router.core.fleet import FleetState
from router.proxy.heads import RequestHeads
from router.proxy.terms import MalformedFieldError
from router.proxy.understanding import Understanding, understand

LONG = "some words of a prompt " * 200
TENANTS = {"tenant_field": b"x-tenant"}
heads = RequestHeads(Routes([]))


def fleet(*models):
    state = FleetState()
    for name in models:
        replica = state.add(name, f"http://{name}")
        state.models_seen(replica, [name])
        state.health_seen(replica, healthy=True, reason="ok")
    return state


def known(*lines, path="/v1/completions", method="POST", **memory):
    block = "\r\n".join([f"{method} {path} HTTP/1.1", "Host: h", *lines]) + "\r\n\r\n"
    read = RequestHeads(Routes([]), **memory).read if memory else heads.read
    return read(block.encode("latin-1"))[0]


def facts(
    *lines, how=None, aliases=None, path="/v1/completions", models=("a",), memory=None, **fields
):
    body = json.dumps(fields).encode()
    how = how or Understanding()
    head = known(*lines, path=path, **(memory or {}))
    return understand(head, body, fleet(*models), aliases or {}, how)[0]


@pytest.mark.parametrize(
    ("value", "deadline_s"), [("1", 0.001), ("1500", 1.5), ("250.5", 0.2505), ("0.5", 0.0005)]
)
def test_the_deadline_of_the_head(value, deadline_s):
    for path in ("/v1/completions", "/v1/files", "/v1/audio/transcriptions"):
        seen = facts(f"X-Request-Deadline-Ms: {value}", path=path)
        assert seen.deadline_s == pytest.approx(deadline_s)
    assert facts().deadline_s is None


@pytest.mark.parametrize("value", ["", "0", "0.0", "-5", "soon", "1e3", "1_000", "nan", "9" * 20])
def test_a_deadline_that_is_none_is_refused(value):
    with pytest.raises(MalformedFieldError, match=r"`x-request-deadline-ms` is .*above 0") as error:
        facts(f"x-request-deadline-ms: {value}")
    assert error.value.code == "invalid_header"


@given(st.text(st.characters(min_codepoint=33, max_codepoint=255, exclude_characters="\x7f")))
def test_any_deadline_is_a_time_or_an_error(value):
    try:
        seen = facts(f"x-request-deadline-ms: {value}")
    except MalformedFieldError:
        return
    assert seen.deadline_s is not None
    assert seen.deadline_s > 0


def test_tenants_share_no_keys_unless_they_may():
    shared = Understanding(isolated=False)
    seen = [facts(f"X-Tenant: {t}", memory=TENANTS, prompt=LONG) for t in "ab"]
    assert [each.tenant for each in seen] == ["a", "b"]
    assert set(seen[0].prefix).isdisjoint(seen[1].prefix)
    seen = [facts(f"X-Tenant: {t}", how=shared, memory=TENANTS, prompt=LONG) for t in "ab"]
    assert [each.tenant for each in seen] == ["a", "b"]
    assert seen[0].prefix == seen[1].prefix != ()
    assert facts("X-Tenant: a", prompt=LONG).tenant is None
    assert facts(memory=TENANTS, prompt=LONG).tenant is None


def test_a_request_has_the_objective_of_its_class_or_model():
    objectives = Objectives(
        "ttft=2s+1ms@100,tpot=60ms", {"b": "tpot=30ms", "c": "none"}, {"batch": "ttft=60s"}
    )
    how, memory = Understanding(objectives=objectives), {"classes": objectives.classes}

    def wanted(*lines, **fields):
        seen = facts(*lines, how=how, memory=memory, models=("a", "b", "c"), **fields)
        return seen.ttft_slo_s, seen.tpot_slo_s

    assert wanted(model="a") == (2.0, 0.06)
    assert wanted(model="a", prompt=[1] * 1100) == (3.0, 0.06)
    assert wanted(model="b") == (None, 0.03)
    assert wanted(model="c") == (None, None)
    assert wanted("X-Pointsman-SLO: batch", model="b", prompt=[1] * 1100) == (60.0, None)


def test_a_class_that_is_not_known_is_refused_with_those_that_are():
    known_ones = {"classes": frozenset({"batch", "agent"})}
    message = "The header `x-pointsman-slo` is 'bulk'; known: agent, batch."
    with pytest.raises(MalformedFieldError) as error:
        facts("x-pointsman-slo: bulk", memory=known_ones)
    assert (str(error.value), error.value.code) == (message, "invalid_header")
    with pytest.raises(MalformedFieldError, match="'bulk'; none is configured"):
        facts("x-pointsman-slo: bulk")


def test_an_alias_has_the_keys_of_its_model():
    body = json.dumps({"model": "short", "prompt": LONG}).encode()
    seen, changed = understand(known(), body, fleet("a"), {"short": "a"})
    assert json.loads(changed) == {"model": "a", "prompt": LONG}
    assert seen.model == "a"
    assert seen.prefix == facts(model="a", prompt=LONG).prefix != ()


def test_a_form_has_its_alias_replaced():
    form = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nshort\r\n--b--\r\n'
    head = known("Content-Type: multipart/form-data; boundary=b", path="/v1/audio/transcriptions")
    seen, changed = understand(head, form, fleet("a"), {"short": "a"})
    assert seen.model == "a"
    assert b"\r\n\r\na\r\n" in changed


def test_what_cannot_be_understood_goes_on_where_all_serve_the_same():
    dense = Understanding(reading=Reading(bytes_per_token=lambda model: 2))
    seen, body = understand(known(), b"{" * 40, fleet("a"), {}, dense)
    assert (seen.prompt_tokens, body) == (20, b"{" * 40)
    with pytest.raises(MalformedBodyError):
        understand(known(), b"{" * 40, fleet("a", "b"), {})
    with pytest.raises(MalformedBodyError, match="`model` is missing"):
        facts(prompt="hi", models=("a", "b"))
