"""From a complete request to what routing needs to know of it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import force_setattr

from policies.base import RequestFacts
from router.api.body import (
    USUAL,
    MalformedBodyError,
    Reading,
    read_json,
    understand_json,
    with_model,
)
from router.api.multipart import understand_multipart, with_form_model
from router.api.routes import BodyFormat

if TYPE_CHECKING:
    from collections.abc import Mapping

    from router.core.fleet import FleetState
    from router.proxy.heads import KnownRequest

DEADLINE_FIELD = b"x-request-deadline-ms"
"""The answer is of no use any more so many milliseconds after the request arrived."""

_MILLISECONDS = re.compile(rb"[0-9]{1,12}(?:\.[0-9]{1,6})?")


class MalformedFieldError(MalformedBodyError):
    """A field of a request's head that the router has to know is malformed."""

    code = "invalid_header"


class Understanding(msgspec.Struct, frozen=True):
    """How requests are understood."""

    reading: Reading = USUAL
    """How their bodies are read."""

    tenant_field: bytes | None = None
    """The field of the head that says whose a request is, in lower case; None: there is none."""

    isolated: bool = True
    """Whether tenants share no prefix caches: one could tell by the time what another asked."""


ORDINARY = Understanding()


def understand(
    known: KnownRequest,
    body: bytes,
    fleet: FleetState,
    aliases: Mapping[str, str],
    how: Understanding = ORDINARY,
) -> tuple[RequestFacts, bytes]:
    """Facts of a request, and its body with an alias replaced by the model that it stands for.

    A body that cannot be understood goes on unchanged where it need not be understood: where all
    ready replicas serve the same.

    Args:
        known: The head.
        body: The whole body.
        fleet: Who serves what.
        aliases: Names that clients may use for models.
        how: What else to look at.

    Raises:
        MalformedBodyError: It must be understood and cannot be; or a field of the head is at
            fault (:class:`MalformedFieldError`).
    """
    deadline_s = _deadline_s(known)
    tenant = _tenant(known, how)
    salt = tenant if how.isolated else None
    facts, body = _facts(known, body, fleet, aliases, tenant=salt, reading=how.reading)
    # Nobody else has seen the facts yet.
    if deadline_s is not None:
        force_setattr(facts, "deadline_s", deadline_s)
    if tenant is not None:
        force_setattr(facts, "tenant", tenant)
    return facts, body


def _facts(
    known: KnownRequest,
    body: bytes,
    fleet: FleetState,
    aliases: Mapping[str, str],
    *,
    tenant: str | None,
    reading: Reading,
) -> tuple[RequestFacts, bytes]:
    route, session = known.route, known.session
    if route is None or route.body is BodyFormat.OPAQUE or known.head.method != b"POST":
        model = route.model if route is not None else None
        return RequestFacts(
            model=aliases.get(model, model) if model else None, session=session
        ), body
    try:
        if route.body is BodyFormat.MULTIPART:
            facts, body = _read_form(known, body, aliases)
        else:
            facts, body = _read_json(body, aliases, session, tenant, reading)
    except MalformedBodyError:
        if not fleet.uniform():
            raise
        tokens = int(len(body) / reading.bytes_per_token(None))
        return RequestFacts(session=session, prompt_tokens=tokens), body
    if facts.model is None and not fleet.uniform():
        msg = "The field `model` is missing, and more than one model is served."
        raise MalformedBodyError(msg)
    return facts, body


def _read_json(
    body: bytes,
    aliases: Mapping[str, str],
    session: str | None,
    tenant: str | None,
    reading: Reading,
) -> tuple[RequestFacts, bytes]:
    parsed = read_json(body)
    model = aliases.get(parsed.model) if aliases and parsed.model else None
    if model is not None:
        body = with_model(body, model)
        parsed.model = model
    return understand_json(parsed, session, tenant, reading), body


def _read_form(
    known: KnownRequest, body: bytes, aliases: Mapping[str, str]
) -> tuple[RequestFacts, bytes]:
    content_type = known.head.field(b"content-type")
    facts = understand_multipart(body, content_type, known.session)
    model = aliases.get(facts.model) if aliases and facts.model else None
    if model is not None:
        body = with_form_model(body, content_type, model)
        facts = understand_multipart(body, content_type, known.session)
    return facts, body


def _tenant(known: KnownRequest, how: Understanding) -> str | None:
    if how.tenant_field is None:
        return None
    tenant = known.head.field(how.tenant_field)
    return tenant.decode("latin-1") if tenant else None


def _deadline_s(known: KnownRequest) -> float | None:
    value = known.head.field(DEADLINE_FIELD)
    if value is None:
        return None
    milliseconds = float(value) if _MILLISECONDS.fullmatch(value) else 0.0
    if milliseconds <= 0:
        shown = value[:40].decode("latin-1")
        msg = f"The header `{DEADLINE_FIELD.decode()}` is {shown!r}: a number above 0 is allowed."
        raise MalformedFieldError(msg)
    return milliseconds / 1000
