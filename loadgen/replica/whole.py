"""Unstreamed answers, in vLLM's words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadgen.replica import logprobs
from loadgen.replica.chunks import FINGERPRINT, usage

if TYPE_CHECKING:
    from loadgen.replica.chunks import ChunkOptions
    from loadgen.replica.job import Choice, Job


def chat(job: Job, response_id: str, created: int, options: ChunkOptions) -> dict[str, object]:
    """The answer of ``/v1/chat/completions``."""
    return {
        "id": response_id,
        "object": "chat.completion",
        "created": created,
        "model": job.model,
        "choices": [_chat_choice(choice, options) for choice in job.choices],
        "service_tier": None,
        "system_fingerprint": FINGERPRINT,
        "usage": usage(job, job.completion_tokens),
        "prompt_logprobs": None,
        "prompt_token_ids": job.prompt if options.token_ids else None,
        "kv_transfer_params": None,
    }


def completion(
    job: Job, response_id: str, created: int, options: ChunkOptions
) -> dict[str, object]:
    """The answer of ``/v1/completions``."""
    return {
        "id": response_id,
        "object": "text_completion",
        "created": created,
        "model": job.model,
        "choices": [_completion_choice(job, choice, options) for choice in job.choices],
        "service_tier": None,
        "system_fingerprint": FINGERPRINT,
        "usage": usage(job, job.completion_tokens),
        "kv_transfer_params": None,
    }


def _chat_choice(choice: Choice, options: ChunkOptions) -> dict[str, object]:
    answer, top = choice.answer, options.top_logprobs
    return {
        "index": choice.index,
        "message": {
            "role": "assistant",
            "content": "".join(answer.pieces),
            "refusal": None,
            "annotations": None,
            "audio": None,
            "function_call": None,
            "tool_calls": [],
            "reasoning": None,
        },
        "logprobs": None if top is None else logprobs.of_chat(answer, 0, len(answer.tokens), top),
        "finish_reason": answer.finish_reason,
        "stop_reason": answer.stop_reason,
        "token_ids": answer.tokens if options.token_ids else None,
    }


def _completion_choice(job: Job, choice: Choice, options: ChunkOptions) -> dict[str, object]:
    answer, top = choice.answer, options.top_logprobs
    last = len(answer.tokens)
    return {
        "index": choice.index,
        "text": "".join(answer.pieces),
        "logprobs": None if top is None else logprobs.of_completion(answer, 0, last, top),
        "finish_reason": answer.finish_reason,
        "stop_reason": answer.stop_reason,
        "token_ids": answer.tokens if options.token_ids else None,
        "prompt_logprobs": None,
        "prompt_token_ids": job.prompt if options.token_ids else None,
    }
