"""From a complete request to what routing needs to know of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.base import RequestFacts
from router.api.body import BYTES_PER_TOKEN, MalformedBodyError, understand_json, with_model
from router.api.multipart import understand_multipart, with_form_model
from router.api.routes import BodyFormat

if TYPE_CHECKING:
    from collections.abc import Mapping

    from router.core.fleet import FleetState
    from router.proxy.heads import KnownRequest


def understand(
    known: KnownRequest, body: bytes, fleet: FleetState, aliases: Mapping[str, str]
) -> tuple[RequestFacts, bytes]:
    """Facts of a request, and its body with an alias replaced by the model that it stands for.

    A body that cannot be understood goes on unchanged where it need not be understood: where all
    ready replicas serve the same.

    Args:
        known: The head.
        body: The whole body.
        fleet: Who serves what.
        aliases: Names that clients may use for models.

    Raises:
        MalformedBodyError: It must be understood and cannot be.
    """
    route, session = known.route, known.session
    if route is None or route.body is BodyFormat.OPAQUE or known.head.method != b"POST":
        model = route.model if route is not None else None
        return RequestFacts(
            model=aliases.get(model, model) if model else None, session=session
        ), body
    try:
        facts, body = _read(known, body, aliases, multipart=route.body is BodyFormat.MULTIPART)
    except MalformedBodyError:
        if not fleet.uniform():
            raise
        return RequestFacts(session=session, prompt_tokens=len(body) // BYTES_PER_TOKEN), body
    if facts.model is None and not fleet.uniform():
        msg = "The field `model` is missing, and more than one model is served."
        raise MalformedBodyError(msg)
    return facts, body


def _read(
    known: KnownRequest, body: bytes, aliases: Mapping[str, str], *, multipart: bool
) -> tuple[RequestFacts, bytes]:
    session = known.session
    if multipart:
        content_type = known.head.field(b"content-type")
        facts = understand_multipart(body, content_type, session)
        model = aliases.get(facts.model) if aliases and facts.model else None
        if model is not None:
            body = with_form_model(body, content_type, model)
            facts = understand_multipart(body, content_type, session)
        return facts, body
    facts = understand_json(body, session)
    model = aliases.get(facts.model) if aliases and facts.model else None
    if model is not None:
        body = with_model(body, model)
        facts = understand_json(body, session)
    return facts, body
