"""From a request body to the tokens of the prompt."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from loadgen import tokens
from loadgen.replica.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadgen.replica.bodies import Message, Prompt

_ROLES: Final = {
    "system": tokens.Special.SYSTEM,
    "developer": tokens.Special.SYSTEM,
    "user": tokens.Special.USER,
    "assistant": tokens.Special.ASSISTANT,
    "tool": tokens.Special.TOOL,
}


def of_completion(prompt: Prompt | None) -> list[int]:
    """The tokens of ``prompt`` on ``/v1/completions``: a text, token ids, or one of them in a list.

    Raises:
        Refusal: There is none, there are several, or an id is outside the vocabulary.
    """
    if prompt is None:
        raise Refusal(400, "prompt is required", param="prompt")
    if isinstance(prompt, str):
        return _not_empty(tokens.encode(prompt))
    if prompt and all(isinstance(item, int) for item in prompt):
        return _checked([item for item in prompt if isinstance(item, int)])
    if len(prompt) == 1:
        only = prompt[0]
        return _not_empty(tokens.encode(only)) if isinstance(only, str) else _ids(only)
    raise Refusal(
        400,
        f"prompt must be one text or one array of token ids, not a batch of {len(prompt)}: "
        "batches are not simulated",
        param="prompt",
    )


def of_embedding(prompt: Prompt) -> list[list[int]]:
    """The tokens of each input on ``/v1/embeddings``, which may be a batch.

    Raises:
        Refusal: There is none, or an id is outside the vocabulary.
    """
    if isinstance(prompt, str) or not prompt or isinstance(prompt[0], int):
        return [of_completion(prompt)]
    return [of_completion([item]) for item in prompt]


def of_chat(
    messages: Sequence[Message] | None, *, add_generation_prompt: bool, continue_final_message: bool
) -> list[int]:
    """The tokens of a chat, in a template of our own: role, content, end of turn.

    Raises:
        Refusal: There is no message, one has a part that is no text, or the two flags exclude
            each other.
    """
    if not messages:
        raise Refusal(400, "messages must not be empty", param="messages")
    if continue_final_message and add_generation_prompt:
        raise Refusal(
            400, "Cannot set both `continue_final_message` and `add_generation_prompt` to True."
        )
    ids = [int(tokens.Special.BEGIN)]
    for message in messages:
        ids.append(_ROLES.get(message.role, tokens.Special.OTHER))
        ids += tokens.encode(_text(message))
        ids.append(tokens.Special.END_OF_TURN)
    if continue_final_message:
        ids.pop()
    elif add_generation_prompt:
        ids.append(tokens.Special.ASSISTANT)
    return ids


def _text(message: Message) -> str:
    content = message.content
    if isinstance(content, list):
        for part in content:
            if part.text is None:
                raise Refusal(400, f"a {part.type} part in a message: this model reads text only")
        content = "".join(part.text or "" for part in content)
    calls = json.dumps(message.tool_calls) if message.tool_calls else ""
    return (content or "") + calls


def _ids(item: int | list[int]) -> list[int]:
    return _checked([item] if isinstance(item, int) else item)


def _checked(ids: list[int]) -> list[int]:
    stranger = tokens.out_of_vocabulary(ids)
    if stranger is not None:
        raise Refusal(400, f"Token id {stranger} is out of vocabulary", param="prompt")
    return _not_empty(ids)


def _not_empty(ids: list[int]) -> list[int]:
    if not ids:
        raise Refusal(400, "The prompt is empty: it needs at least one token", param="prompt")
    return ids
