"""The fields of a JSON object whose values stay as they were written."""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

Fields: TypeAlias = dict[str, msgspec.Raw]

FIELDS: Final = msgspec.json.Decoder(Fields)


def first(raw: msgspec.Raw) -> bytes:
    """The first byte of a field's JSON: it tells its type."""
    return bytes(memoryview(raw)[:1])
