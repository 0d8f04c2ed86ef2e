"""What heads tell by themselves, remembered.

A client sends the same head again and again, and so does a replica; only Content-Length differs.
Reading a head and working out what follows from it costs as much as all the rest of a request, so
it is done once for each head that differs in more than that number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from router.http1.fields import without_field
from router.http1.memory import HeadMemory
from router.http1.request import RequestHead, parse_request_head
from router.http1.response import ResponseHead, parse_response_head
from router.proxy.terms import EXPLAIN_FIELD, read_terms

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from router.api.routes import Route, Routes
    from router.proxy.terms import Terms

MAX_HEADS = 1024
"""At most 4 KiB each: what is remembered stays under 4 MiB."""

MODELS_PATH = b"/v1/models"
"""The one path of the inference API that the router answers itself."""


@dataclass(slots=True, frozen=True)
class KnownRequest:
    """A request head, and what follows from it."""

    head: RequestHead
    path: bytes
    """The target without its query."""
    route: Route | None
    """Where it belongs; None: the path is not known."""
    forwarded: bool
    """Whether a replica answers it, and not the router itself."""
    session: str | None
    wire: bytes
    """Request line and fields as they go to a replica, less those that differ by request."""
    terms: Terms
    """On what terms it is to be served."""


class RequestHeads(HeadMemory[KnownRequest]):
    """The request heads of all clients.

    Args:
        routes: The paths that are forwarded.
        tenant_field: The field that says whose a request is, in lower case; None: there is none.
        classes: The classes of objectives that a request may name.
        explained: Whether all answers are to be explained, asked for or not.
    """

    __slots__ = ("_classes", "_explained", "_routes", "_tenant_field")

    def __init__(
        self,
        routes: Routes,
        *,
        tenant_field: bytes | None = None,
        classes: Collection[str] = (),
        explained: bool = False,
    ) -> None:
        super().__init__(self._read, MAX_HEADS)
        self._routes = routes
        self._tenant_field = tenant_field
        self._classes = classes
        self._explained = explained

    def _read(self, block: bytes) -> tuple[KnownRequest, int | None]:
        head = parse_request_head(block)
        path = head.target.partition(b"?")[0]
        route = self._routes.find(path)
        session = head.field(b"x-session-id") or head.field(b"x-user-id")
        known = KnownRequest(
            head=head,
            path=path,
            route=route,
            forwarded=route is not None
            and not (path == MODELS_PATH and head.method in {b"GET", b"HEAD"}),
            session=session.decode("latin-1") if session else None,
            wire=b"%b %b HTTP/1.1%b%b"
            % (
                head.method,
                head.target,
                without_field(head.lines, EXPLAIN_FIELD),
                b"" if head.forwarded_proto else b"\r\nX-Forwarded-Proto: http",
            ),
            terms=read_terms(head, self._tenant_field, self._classes, explained=self._explained),
        )
        return known, head.length


class ResponseHeads:
    """The response heads of all replicas."""

    __slots__ = ("_of_head_requests", "_others")

    def __init__(self) -> None:
        self._others = HeadMemory(_reader(b"GET"), MAX_HEADS)
        self._of_head_requests = HeadMemory(_reader(b"HEAD"), MAX_HEADS)

    def read(self, block: bytes, method: bytes) -> tuple[ResponseHead, int | None]:
        """As :meth:`HeadMemory.read`; ``method`` is that of the request."""
        memory = self._of_head_requests if method == b"HEAD" else self._others
        return memory.read(block)


def _reader(method: bytes) -> Callable[[bytes], tuple[ResponseHead, int | None]]:
    def read(block: bytes) -> tuple[ResponseHead, int | None]:
        head = parse_response_head(block, method)
        return head, head.length

    return read
