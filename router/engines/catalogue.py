"""Which engines there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from router.engines.generic import Generic
from router.engines.llamacpp import Llamacpp
from router.engines.sglang import Sglang
from router.engines.tgi import Tgi
from router.engines.trtllm import Trtllm
from router.engines.vllm import Vllm

if TYPE_CHECKING:
    from router.engines.base import Dialect

AUTO: Final = "auto"
"""In the configuration: find out."""

GENERIC: Final[Dialect] = Generic()
VLLM: Final[Dialect] = Vllm()
SGLANG: Final[Dialect] = Sglang()
LLAMACPP: Final[Dialect] = Llamacpp()

DIALECTS: Final[tuple[Dialect, ...]] = (VLLM, SGLANG, Tgi(), Trtllm(), LLAMACPP, GENERIC)
"""All of them, in the order in which a page is shown to them: the commonest first."""


NAMES: Final = (AUTO, *(dialect.name for dialect in DIALECTS))
"""What the configuration may say."""


def by_name(name: str) -> Dialect | None:
    """The dialect of that name; None for ``auto``.

    Raises:
        ValueError: There is none of that name; the message lists those that there are.
    """
    if name == AUTO:
        return None
    for dialect in DIALECTS:
        if dialect.name == name:
            return dialect
    msg = f"unknown engine {name!r}; known are {', '.join(NAMES)}"
    raise ValueError(msg)


def recognise(page: bytes) -> Dialect | None:
    """Whose page it is; None when nobody's."""
    return next((dialect for dialect in DIALECTS if dialect.recognises(page)), None)
