"""What in a request rules out that its answer is continued."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from router.continuation.bodies import GUIDES, absent
from router.continuation.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from router.continuation.bodies import Body

_FREE_FORMS: Final = (None, {"type": "text"})
_FREE_CHOICES: Final = (None, "auto", "none")
_TEXT_ONLY: Final = (None, ["text"])


def obstacle(body: Body, settings: Mapping[str, object]) -> Reason | None:
    """Why the answer cannot be continued; None if nothing speaks against it.

    Args:
        body: Of the request.
        settings: Its sampling parameters.
    """
    for reason, applies in _OF_SETTINGS:
        if applies(settings):
            return reason
    return next((reason for reason, applies in _OF_BODY if applies(body)), None)


def _beams(settings: Mapping[str, object]) -> bool:
    best_of = settings.get("best_of")
    return best_of not in (None, 0, 1) or bool(settings.get("use_beam_search"))


def _guided(settings: Mapping[str, object]) -> bool:
    return (
        any(settings.get(guide) for guide in GUIDES)
        or settings.get("response_format") not in _FREE_FORMS
        or settings.get("tool_choice") not in _FREE_CHOICES
    )


def _truncated(settings: Mapping[str, object]) -> bool:
    names = ("truncate_prompt_tokens", "truncate")
    return any(settings.get(name) is not None for name in names)


def _any_of(*names: str) -> Callable[[Mapping[str, object]], bool]:
    return lambda settings: any(settings.get(name) for name in names)


_OF_SETTINGS: Final[tuple[tuple[Reason, Callable[[Mapping[str, object]], bool]], ...]] = (
    (Reason.CHOICES, lambda settings: settings.get("n") not in (None, 1)),
    (Reason.BEAMS, _beams),
    (Reason.GUIDED, _guided),
    (Reason.ECHO, _any_of("return_full_text")),
    (Reason.TRUNCATION, _truncated),
    (Reason.STOP_PATTERN, _any_of("stop_regex")),
    (Reason.LOGPROBS, _any_of("top_n_tokens", "decoder_input_details")),
)


def _logprobs(body: Body) -> bool:
    asked = body.logprobs is not None and body.logprobs is not False
    return asked or body.prompt_logprobs is not None or bool(body.return_logprob or body.n_probs)


def _extras(body: Body) -> bool:
    return (
        bool(body.return_hidden_states or body.return_routed_experts or body.audio)
        or body.modalities not in _TEXT_ONLY
        or not all(map(absent, (body.prompt_embeds, body.image_data, body.input_embeds)))
    )


def _disaggregated(body: Body) -> bool:
    return bool(body.kv_transfer_params or body.disaggregated_params or body.bootstrap_room)


_OF_BODY: Final[tuple[tuple[Reason, Callable[[Body], bool]], ...]] = (
    (Reason.LOGPROBS, _logprobs),
    (Reason.ECHO, lambda body: bool(body.echo)),
    (Reason.SUFFIX, lambda body: bool(body.suffix)),
    (Reason.EXTRAS, _extras),
    (Reason.DISAGGREGATED, _disaggregated),
)
