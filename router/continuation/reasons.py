"""Why a broken stream is not continued."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why a broken stream is not continued; the values are labels of a metric."""

    # -- of the request -----------------------------------------------------------------------
    API = "api"
    """Its path is none whose streams are understood (``/v1/messages``, ``/v1/responses`` …)."""
    UNREADABLE_REQUEST = "unreadable_request"
    """Its body is not the JSON that the path asks for."""
    CHOICES = "choices"
    """``n`` is above one: the answers are interleaved."""
    BEAMS = "beams"
    """``best_of`` or beam search: what was streamed is not all that the engine weighs."""
    LOGPROBS = "logprobs"
    """The engine tells them from its own beginning on; those of the seam would be missing."""
    GUIDED = "guided"
    """A grammar, a schema, or a forced tool: the engine's automaton starts from its beginning."""
    ECHO = "echo"
    """The prompt is part of the answer; a second prompt would be, too."""
    SUFFIX = "suffix"
    """Text is to be filled in before an end that a longer prompt would move."""
    BATCH = "batch"
    """Several prompts in one request."""
    TRUNCATION = "truncation"
    """The prompt is cut to a length: a longer one would lose more of its beginning."""
    STOP_PATTERN = "stop_pattern"
    """A regular expression ends the answer; the seam cannot be searched for it."""
    EXTRAS = "extras"
    """The client asked for data beside the text (hidden states, experts, audio, embeddings)."""
    DISAGGREGATED = "disaggregated"
    """The body carries the terms of one transfer between a prefill and a decode replica."""

    # -- of the engine ------------------------------------------------------------------------
    ENGINE = "engine"
    """The next replica's engine has no way to go on in the middle of such an answer."""

    # -- of what was streamed -----------------------------------------------------------------
    TOOL_CALL = "tool_call"
    """A tool call had begun."""
    REASONING = "reasoning"
    """Reasoning had begun: a chat template drops it from a message that is handed back."""
    UNREADABLE_STREAM = "unreadable_stream"
    """An event was not what such streams consist of."""
    STREAM_BYTES = "stream_bytes"
    """The answer outgrew what is remembered of one stream."""
    TOTAL_BYTES = "total_bytes"
    """All streams together outgrew what is remembered."""
