"""vLLM's connectors: NIXL, Mooncake, and P2P over NCCL.

Sources: vllm/distributed/kv_transfer/kv_connector/v1/{nixl,mooncake,p2p}, and the proxies among
vLLM's tests and examples. What a prefill replica tells in ``kv_transfer_params`` grows with each
release and is handed on as it came.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from router.api.fields import first
from router.api.one_token import PATHS, one_token_fields
from router.split.base import one_answer, read_fields, told

if TYPE_CHECKING:
    from router.api.fields import Fields
    from router.split.base import Legs, Peer

_PARAMS: Final = "kv_transfer_params"

_KEEP_FOR_OTHERS: Final = {
    "do_remote_decode": True,
    "do_remote_prefill": False,
    "remote_engine_id": None,
    "remote_block_ids": None,
    "remote_host": None,
    "remote_port": None,
}


class _Prefilled(msgspec.Struct):
    """What matters of a prefill replica's answer."""

    kv_transfer_params: msgspec.Raw = msgspec.Raw(b"null")


_PREFILLED: Final = msgspec.json.Decoder(_Prefilled)


@dataclass(slots=True)
class NixlLegs:
    """The decode leg is told what the prefill leg answers."""

    fields: Fields
    at_once = False
    request_id: bytes | None = None

    @property
    def prefill_body(self) -> bytes:
        """One token, unstreamed, whose KV is kept."""
        return msgspec.json.encode(one_token_fields(self.fields) | {_PARAMS: _KEEP_FOR_OTHERS})

    def decode_body(self, answer: bytes) -> bytes | None:
        """The client's request, with where its KV is."""
        try:
            params = _PREFILLED.decode(answer).kv_transfer_params
        except msgspec.DecodeError:
            return None
        if first(params) != b"{":
            return None
        return msgspec.json.encode(self.fields | {_PARAMS: params})


@dataclass(slots=True)
class MooncakeLegs:
    """Both legs are told the same id; the decode replica waits for the prefill one."""

    fields: Fields
    prefill: Peer
    transfer_id: str
    at_once = True
    request_id: bytes | None = None

    @property
    def prefill_body(self) -> bytes:
        """One token, unstreamed, whose KV is kept."""
        params = {
            "do_remote_decode": True,
            "do_remote_prefill": False,
            "transfer_id": self.transfer_id,
        }
        return msgspec.json.encode(one_token_fields(self.fields) | {_PARAMS: params})

    def decode_body(self, answer: bytes) -> bytes | None:
        """The client's request, with where its KV will be."""
        del answer
        params = {
            "do_remote_decode": False,
            "do_remote_prefill": True,
            "remote_bootstrap_addr": f"http://{self.prefill.host}:{self.prefill.bootstrap_port}",
            "remote_engine_id": self.prefill.engine_id,
            "transfer_id": self.transfer_id,
        }
        return msgspec.json.encode(self.fields | {_PARAMS: params})


@dataclass(slots=True)
class P2pLegs:
    """Both legs have an id that tells them each other's address."""

    fields: Fields
    request_id: bytes | None
    at_once = False

    @property
    def prefill_body(self) -> bytes:
        """One token, unstreamed."""
        return msgspec.json.encode(one_token_fields(self.fields))

    def decode_body(self, answer: bytes) -> bytes | None:
        """The client's request as it is."""
        del answer
        return msgspec.json.encode(self.fields)


class Nixl:
    """The NIXL connector, pulling or pushing."""

    name = "nixl"
    serves_whole = True
    paths = PATHS

    def legs(self, body: bytes, prefill: Peer, decode: Peer, number: int) -> Legs | None:
        """As of any dialect."""
        del prefill, decode, number
        fields = _splittable(body)
        return None if fields is None else NixlLegs(fields)


class Mooncake:
    """The Mooncake connector."""

    name = "mooncake"
    serves_whole = True
    paths = PATHS

    def legs(self, body: bytes, prefill: Peer, decode: Peer, number: int) -> Legs | None:
        """As of any dialect."""
        del decode
        fields = _splittable(body)
        if fields is None or not prefill.engine_id:
            return None
        return MooncakeLegs(fields, prefill, f"xfer-{number:016x}")


class P2p:
    """The P2P connector over NCCL, of vLLM before 0.32, and MoRIIO, which kept its ids."""

    name = "p2p"
    serves_whole = False
    paths = PATHS

    def legs(self, body: bytes, prefill: Peer, decode: Peer, number: int) -> Legs | None:
        """As of any dialect."""
        fields = _splittable(body)
        if fields is None or not prefill.kv_address or not decode.kv_address:
            return None
        addresses = f"___prefill_addr_{prefill.kv_address}___decode_addr_{decode.kv_address}"
        return P2pLegs(fields, f"{addresses}_{number:032x}".encode())


def _splittable(body: bytes) -> Fields | None:
    fields = read_fields(body)
    if fields is None or told(fields, _PARAMS) or not one_answer(fields):
        return None
    return fields
