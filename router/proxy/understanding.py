"""From a complete request to what routing needs to know of it."""

from __future__ import annotations

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
from router.api.objectives import NO_OBJECTIVES, Objectives
from router.api.routes import BodyFormat
from router.proxy.terms import MalformedFieldError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from router.core.fleet import FleetState
    from router.proxy.heads import KnownRequest


# To look up a member of an enumeration takes Python 3.11 as long as calling a method.
_MULTIPART, _OPAQUE = BodyFormat.MULTIPART, BodyFormat.OPAQUE


class Understanding(msgspec.Struct, frozen=True):
    """How requests are understood."""

    reading: Reading = USUAL
    """How their bodies are read."""

    objectives: Objectives = NO_OBJECTIVES
    """How soon answers are wanted."""

    split_paths: Collection[bytes] | None = None
    """Where requests are posted that may be split; None: nobody asks."""

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
    terms = known.terms
    if terms.fault is not None:
        raise MalformedFieldError(terms.fault)
    tenant, deadline_s = terms.tenant, terms.deadline_s
    salt = tenant if how.isolated else None
    facts, body = _facts(known, body, fleet, aliases, tenant=salt, reading=how.reading)
    ttft_s, tpot_s = how.objectives.of(facts.model, terms.slo_class, facts.prompt_tokens)
    # Nobody else has seen the facts yet.
    if ttft_s is not None:
        force_setattr(facts, "ttft_slo_s", ttft_s)
    if tpot_s is not None:
        force_setattr(facts, "tpot_slo_s", tpot_s)
    if deadline_s is not None:
        force_setattr(facts, "deadline_s", deadline_s)
    if tenant is not None:
        force_setattr(facts, "tenant", tenant)
    splits = how.split_paths
    if splits is not None and (known.path not in splits or facts.choices > 1):
        force_setattr(facts, "splits", False)
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
    if route is None or route.body is _OPAQUE or known.head.method != b"POST":
        model = route.model if route is not None else None
        return RequestFacts(
            model=aliases.get(model, model) if model else None, session=session
        ), body
    try:
        if route.body is _MULTIPART:
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
