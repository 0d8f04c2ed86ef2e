"""Reading a list of models."""

from __future__ import annotations

import msgspec

MODELS_PATH = "/v1/models"


class _Model(msgspec.Struct):
    id: str


class _List(msgspec.Struct):
    data: list[msgspec.Raw]


_LIST = msgspec.json.Decoder(_List)
_MODEL = msgspec.json.Decoder(_Model)


def parse_models(body: bytes) -> dict[str, bytes]:
    """The ids on a ``/v1/models`` page, and the JSON object of each.

    Engines list LoRA adapters among them.

    Raises:
        ValueError: It is no such page, or lists nothing.
    """
    try:
        listed = {_MODEL.decode(entry).id: bytes(entry) for entry in _LIST.decode(body).data}
    except msgspec.MsgspecError as error:
        msg = f"{MODELS_PATH} is not readable: {error}"
        raise ValueError(msg) from error
    if not listed:
        msg = f"{MODELS_PATH} lists no model"
        raise ValueError(msg)
    return listed
