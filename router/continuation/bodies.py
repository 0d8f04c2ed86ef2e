"""What matters in the bodies of the requests whose answers are streams."""

from __future__ import annotations

from typing import Final

import msgspec

EMPTY: Final = msgspec.Raw(b"")


class Body(msgspec.Struct):
    """A body of any of the paths. Types are checked where they matter."""

    messages: msgspec.Raw = EMPTY
    prompt: msgspec.Raw = EMPTY
    inputs: msgspec.Raw = EMPTY
    text: msgspec.Raw = EMPTY
    input_ids: msgspec.Raw = EMPTY
    input_embeds: msgspec.Raw = EMPTY
    prompt_embeds: msgspec.Raw = EMPTY
    image_data: msgspec.Raw = EMPTY
    tools: msgspec.Raw = EMPTY
    functions: msgspec.Raw = EMPTY
    sampling_params: object = None
    parameters: object = None
    stream_options: object = None
    max_tokens: object = msgspec.UNSET
    max_completion_tokens: object = None
    n_predict: object = None
    min_tokens: object = None
    stop: object = None
    stop_regex: object = None
    include_stop_str_in_output: object = None
    no_stop_trim: object = None
    temperature: object = None
    n: object = None
    best_of: object = None
    use_beam_search: object = None
    truncate_prompt_tokens: object = None
    tool_choice: object = None
    response_format: object = None
    structured_outputs: object = None
    guided_json: object = None
    guided_regex: object = None
    guided_choice: object = None
    guided_grammar: object = None
    json_schema: object = None
    regex: object = None
    ebnf: object = None
    grammar: object = None
    structural_tag: object = None
    return_token_ids: object = None
    logprobs: object = None
    prompt_logprobs: object = None
    return_logprob: object = None
    n_probs: object = None
    echo: object = None
    suffix: object = None
    modalities: object = None
    audio: object = None
    return_hidden_states: object = None
    return_routed_experts: object = None
    kv_transfer_params: object = None
    disaggregated_params: object = None
    bootstrap_room: object = None

    def settings(self) -> dict[str, object]:
        """The sampling parameters, where they are not nested."""
        return {name: getattr(self, name) for name in SETTINGS}


GUIDES: Final = (
    *("structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar"),
    *("json_schema", "regex", "ebnf", "grammar", "structural_tag"),
)
"""Sampling parameters that force a form on the answer."""

SETTINGS: Final = (
    *GUIDES,
    *("max_tokens", "max_completion_tokens", "n_predict", "min_tokens", "temperature"),
    *("stop", "stop_regex", "include_stop_str_in_output", "no_stop_trim"),
    *("n", "best_of", "use_beam_search", "tool_choice", "response_format"),
    "truncate_prompt_tokens",
)
"""The sampling parameters that matter."""


def absent(raw: msgspec.Raw) -> bool:
    """Whether a field is missing, null or an empty list."""
    return len(memoryview(raw)) <= 4 and bytes(raw) in {b"", b"null", b"[]"}
