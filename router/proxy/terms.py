"""On what terms a request is to be served, as its head says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from router.api.body import MalformedBodyError

if TYPE_CHECKING:
    from collections.abc import Collection

    from router.http1.request import RequestHead

DEADLINE_FIELD: Final = b"x-request-deadline-ms"
"""The answer is of no use any more so many milliseconds after the request arrived."""

SLO_FIELD: Final = b"x-pointsman-slo"
"""The class of objectives that the request wants to be held to."""

EXPLAIN_FIELD: Final = b"x-pointsman-explain"
"""The answer is to tell why it comes from the replica that it comes from, whatever the value."""

_MILLISECONDS = re.compile(rb"[0-9]{1,12}(?:\.[0-9]{1,6})?")


class MalformedFieldError(MalformedBodyError):
    """A field of a request's head that the router has to know is malformed."""

    code = "invalid_header"


@dataclass(slots=True, frozen=True)
class Terms:
    """On what terms a request is to be served."""

    deadline_s: float | None = None
    """So long after its arrival the answer is of no use any more; None: never."""

    tenant: str | None = None
    """Whose request it is."""

    slo_class: str | None = None
    """The class of objectives that it names."""

    explained: bool = False
    """Whether the answer is to tell why it comes from the replica that it comes from."""

    fault: str | None = None
    """What is wrong with them; None: nothing. The request is to be refused with it."""


def read_terms(
    head: RequestHead,
    tenant_field: bytes | None = None,
    classes: Collection[str] = (),
    *,
    explained: bool = False,
) -> Terms:
    """Read what a head says; what is wrong with it is told by :attr:`Terms.fault`.

    A head is read before its request is known to be complete, which is no time to refuse it.

    Args:
        head: The head.
        tenant_field: The field that says whose a request is; None: there is none.
        classes: The classes of objectives that there are.
        explained: Whether all answers are to be explained, asked for or not.
    """
    try:
        return Terms(
            deadline_s=_deadline_s(head.field(DEADLINE_FIELD)),
            tenant=_text(head.field(tenant_field)) if tenant_field is not None else None,
            slo_class=_slo_class(_text(head.field(SLO_FIELD)), classes),
            explained=explained or head.field(EXPLAIN_FIELD) is not None,
        )
    except MalformedFieldError as error:
        return Terms(fault=str(error))


def _deadline_s(value: bytes | None) -> float | None:
    if value is None:
        return None
    milliseconds = float(value) if _MILLISECONDS.fullmatch(value) else 0.0
    if milliseconds <= 0:
        msg = f"The header `{DEADLINE_FIELD.decode()}` is {_shown(value)}: a number above 0 is"
        msg += " allowed."
        raise MalformedFieldError(msg)
    return milliseconds / 1000


def _slo_class(name: str | None, classes: Collection[str]) -> str | None:
    if name is None or name in classes:
        return name
    known = f"known: {', '.join(sorted(classes))}" if classes else "none is configured"
    msg = f"The header `{SLO_FIELD.decode()}` is {_shown(name.encode('latin-1'))}; {known}."
    raise MalformedFieldError(msg)


def _text(value: bytes | None) -> str | None:
    return value.decode("latin-1") if value else None


def _shown(value: bytes) -> str:
    return repr(value[:40].decode("latin-1"))
