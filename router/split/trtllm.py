"""TensorRT-LLM: the context server answers with what the generation server needs.

Source: tensorrt_llm/serve/openai_disagg_service.py and openai_protocol.py.
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

_PARAMS: Final = "disaggregated_params"

_GOES_ON: Final = frozenset({"length", "not_finished"})
"""Reasons by which a context server says that the answer is to go on elsewhere."""


class _Choice(msgspec.Struct):
    finish_reason: str | None = None
    disaggregated_params: dict[str, msgspec.Raw] | None = None


class _Prefilled(msgspec.Struct):
    """What matters of a context server's answer."""

    choices: list[_Choice] = []
    prompt_token_ids: msgspec.Raw = msgspec.Raw(b"null")


_PREFILLED: Final = msgspec.json.Decoder(_Prefilled)


@dataclass(slots=True)
class TrtllmLegs:
    """The generation server gets the prompt as token ids, and the context server's parameters."""

    fields: Fields
    number: int
    at_once = False
    request_id: bytes | None = None

    @property
    def prefill_body(self) -> bytes:
        """The same request, unstreamed, to be answered by its context only."""
        fields: dict[str, object] = dict(self.fields)
        fields.pop("stream_options", None)
        params = {"request_type": "context_only", "disagg_request_id": self.number}
        return msgspec.json.encode(fields | {"stream": False, _PARAMS: params})

    def decode_body(self, answer: bytes) -> bytes | None:
        """The client's request, with the prompt's tokens and where their KV is.

        An answer that was complete with its first token is not gone on with: the generation
        server makes it anew, in the form that the client asked for.
        """
        try:
            prefilled = _PREFILLED.decode(answer)
        except msgspec.DecodeError:
            return None
        choice = prefilled.choices[0] if prefilled.choices else _Choice()
        if choice.disaggregated_params is None or choice.finish_reason not in _GOES_ON:
            return None
        params = choice.disaggregated_params | {"request_type": msgspec.Raw(b'"generation_only"')}
        more: dict[str, object] = {_PARAMS: params}
        if first(prefilled.prompt_token_ids) == b"[":
            name = "prompt_token_ids" if "messages" in self.fields else "prompt"
            more[name] = prefilled.prompt_token_ids
        return msgspec.json.encode(self.fields | more)


class Trtllm:
    """``trtllm-serve`` with a cache transceiver."""

    name = "trtllm"
    serves_whole = True
    paths = PATHS

    def legs(self, body: bytes, prefill: Peer, decode: Peer, number: int) -> Legs | None:
        """As of any dialect."""
        del prefill, decode
        fields = read_fields(body)
        if fields is None or told(fields, _PARAMS) or not one_answer(fields):
            return None
        return TrtllmLegs(fields, number)
