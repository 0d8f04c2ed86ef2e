"""How requests name the leg that they are, and prefill replicas what they keep.

As in ``router.split``, written anew from the engines' sources: a mistake there must not be
repeated here.
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Final, TypeAlias
from uuid import uuid4

from loadgen.engine.sequence import Leg
from loadgen.replica.kv.part import WHOLE, Part
from loadgen.replica.refusal import Refusal
from policies.base import Role

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from loadgen.replica.bodies import Sampling
    from loadgen.replica.job import Job
    from loadgen.replica.settings import ReplicaSettings


_P2P: Final = re.compile(r"___prefill_addr_(.+?)___decode_addr_(.+)_[0-9a-f]{32}(?:-.*)?")

Read: TypeAlias = "Callable[[ReplicaSettings, Sampling, str], Part]"


def _nixl(_: ReplicaSettings, body: Sampling, __: str) -> Part:
    params = body.kv_transfer_params
    if not params:
        return WHOLE
    if params.get("do_remote_decode"):
        return Part(Leg.PREFILL, uuid4().hex)
    if not params.get("do_remote_prefill"):
        return WHOLE
    key, host, port = (
        params.get(name) for name in ("remote_request_id", "remote_host", "remote_port")
    )
    if not (key and host and port and params.get("remote_block_ids")):
        raise Refusal(400, f"kv_transfer_params are not complete: {sorted(params)}")
    return Part(Leg.DECODE, str(key), f"http://{host}:{port}", str(params.get("remote_engine_id")))


def _mooncake(_: ReplicaSettings, body: Sampling, __: str) -> Part:
    params = body.kv_transfer_params
    if not params:
        return WHOLE
    key = params.get("transfer_id")
    if not key:
        raise Refusal(400, "Missing transfer_id in kv_transfer_params from router!")
    if params.get("do_remote_decode"):
        return Part(Leg.PREFILL, str(key))
    source, engine_id = params.get("remote_bootstrap_addr"), params.get("remote_engine_id")
    if not source or not engine_id:
        raise Refusal(400, "remote_bootstrap_addr and remote_engine_id are needed")
    return Part(Leg.DECODE, str(key), str(source), str(engine_id))


def _p2p(settings: ReplicaSettings, _: Sampling, request_id: str) -> Part:
    found = _P2P.fullmatch(request_id)
    if found is None:
        text = f"Request id {request_id} does not contain hostname and port"
        raise Refusal(500, text, "InternalServerError")
    if settings.role is Role.PREFILL:
        return Part(Leg.PREFILL, request_id)
    return Part(Leg.DECODE, request_id, f"http://{found[1]}")


def _sglang(settings: ReplicaSettings, body: Sampling, _: str) -> Part:
    room = body.bootstrap_room
    if settings.role is Role.BOTH:
        return WHOLE
    if room is None or body.bootstrap_host is None:
        raise Refusal(400, "Disaggregated request received without bootstrap room id.")
    if settings.role is Role.PREFILL:
        return Part(Leg.PREFILL, str(room), waits=True)
    return Part(Leg.DECODE, str(room), f"http://{body.bootstrap_host}:{body.bootstrap_port}")


def _trtllm(_: ReplicaSettings, body: Sampling, __: str) -> Part:
    params = body.disaggregated_params
    kind = params.get("request_type") if params else None
    if not params or kind == "context_and_generation":
        return WHOLE
    if kind == "context_only":
        return Part(Leg.PREFILL, str(params.get("disagg_request_id") or uuid4().int >> 65))
    if kind != "generation_only":
        raise Refusal(400, f"Unknown request type: {kind}")
    key, state = params.get("ctx_request_id"), params.get("encoded_opaque_state")
    if key is None or not state:
        raise Refusal(400, "generation_only needs ctx_request_id and encoded_opaque_state")
    return Part(Leg.DECODE, str(key), base64.b64decode(str(state)).decode())


_READ: Final[Mapping[str, Read]] = {
    "nixl": _nixl,
    "mooncake": _mooncake,
    "p2p": _p2p,
    "sglang": _sglang,
    "trtllm": _trtllm,
}

DIALECTS: Final = tuple(_READ)


def part_of(settings: ReplicaSettings, body: Sampling, request_id: str) -> Part:
    """What part of a request this is.

    Raises:
        Refusal: What it says of that makes no sense, or the replica's role does not allow it.
    """
    if not settings.kv_dialect:
        return WHOLE
    part = _READ[settings.kv_dialect](settings, body, request_id)
    if part.leg is not Leg.WHOLE and (body.n or 1) > 1:
        raise Refusal(400, "n must be 1 in a request between two replicas", param="n")
    return part


def keeps(settings: ReplicaSettings, job: Job) -> bool:
    """Whether the prompt of a prefill leg leaves anything to fetch: vLLM keeps whole blocks."""
    return settings.kv_dialect != "nixl" or len(job.prompt) >= settings.profile.block_tokens


def add_params(
    settings: ReplicaSettings, job: Job, part: Part, own_url: str, answer: dict[str, object]
) -> None:
    """Tell, in the answer to a prefill leg, how its KV is fetched."""
    host, _, port = own_url.removeprefix("http://").rpartition(":")
    if settings.kv_dialect == "nixl" and keeps(settings, job):
        blocks = -(-len(job.prompt) // settings.profile.block_tokens)
        answer["kv_transfer_params"] = {
            "do_remote_prefill": True,
            "do_remote_decode": False,
            "remote_block_ids": [list(range(blocks))],
            "remote_engine_id": settings.engine_id,
            "remote_request_id": part.key,
            "remote_host": host,
            "remote_port": int(port),
            "tp_size": 1,
            "dcp_size": 1,
            "pp_size": 1,
            "remote_num_tokens": len(job.prompt),
            "transfer_mode": "pull",
        }
    elif settings.kv_dialect == "trtllm":
        choices = answer["choices"]
        assert isinstance(choices, list)  # noqa: S101 - made here
        choices[0]["disaggregated_params"] = {
            "request_type": "context_only",
            "first_gen_tokens": job.choices[0].answer.tokens,
            "ctx_request_id": int(part.key),
            "encoded_opaque_state": base64.b64encode(own_url.encode()).decode(),
            "draft_tokens": None,
        }
        answer["prompt_token_ids"] = job.prompt
