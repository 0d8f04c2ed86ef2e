"""SGLang: both servers get the request at once, and meet by a number that the router makes.

Source: sglang/srt/entrypoints/openai/protocol.py and sglang_router/mini_lb.py (0.5.23).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from router.api.fields import first
from router.api.one_token import PATHS
from router.split.base import one_answer, read_fields, told

if TYPE_CHECKING:
    from router.api.fields import Fields
    from router.split.base import Legs, Peer

_PLACES: Final = ("bootstrap_host", "bootstrap_port", "bootstrap_room")

_LIST: Final = msgspec.json.Decoder(list[msgspec.Raw])


@dataclass(slots=True)
class SglangLegs:
    """One body for both."""

    prefill_body: bytes
    at_once = True
    request_id: bytes | None = None

    def decode_body(self, answer: bytes) -> bytes | None:
        """The same as the prefill leg's."""
        del answer
        return self.prefill_body


class Sglang:
    """SGLang's servers with ``--disaggregation-mode``."""

    name = "sglang"
    serves_whole = False
    paths = PATHS | {b"/generate"}

    def legs(self, body: bytes, prefill: Peer, decode: Peer, number: int) -> Legs | None:
        """As of any dialect; a batch gets a number for each of its prompts."""
        del decode
        fields = read_fields(body)
        if fields is None or told(fields, "bootstrap_room") or not one_answer(fields):
            return None
        batch = _batch(fields)
        places: tuple[object, object, object] = prefill.host, prefill.bootstrap_port, number
        if batch is not None:
            places = (
                [prefill.host] * batch,
                [prefill.bootstrap_port] * batch,
                [(number + index) % (1 << 63) for index in range(batch)],
            )
        made = dict(zip(_PLACES, places, strict=True))
        return SglangLegs(msgspec.json.encode(fields | made))


def _batch(fields: Fields) -> int | None:
    """How many prompts a request to ``/generate`` holds; None: one, and not in a list."""
    text, ids = fields.get("text"), fields.get("input_ids")
    if text is not None and first(text) == b"[":
        return len(_LIST.decode(text))
    if ids is not None and first(ids) == b"[":
        items = _LIST.decode(ids)
        if items and first(items[0]) == b"[":
            return len(items)
    return None
