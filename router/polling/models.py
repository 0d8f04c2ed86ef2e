"""Reading a list of models."""

from __future__ import annotations

import msgspec

MODELS_PATH = "/v1/models"


class _Model(msgspec.Struct):
    id: str


class _List(msgspec.Struct):
    data: list[_Model]


_DECODER = msgspec.json.Decoder(_List)


def parse_models(body: bytes) -> frozenset[str]:
    """The ids on a ``/v1/models`` page; engines list LoRA adapters among them.

    Raises:
        ValueError: It is no such page, or lists nothing.
    """
    try:
        listed = frozenset(model.id for model in _DECODER.decode(body).data)
    except msgspec.MsgspecError as error:
        msg = f"{MODELS_PATH} is not readable: {error}"
        raise ValueError(msg) from error
    if not listed:
        msg = f"{MODELS_PATH} lists no model"
        raise ValueError(msg)
    return listed
