"""Which dialects of split requests there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from router.split.sglang import Sglang
from router.split.trtllm import Trtllm
from router.split.vllm import Mooncake, Nixl, P2p

if TYPE_CHECKING:
    from collections.abc import Mapping

    from router.split.base import KvDialect

_ALL: Final[tuple[KvDialect, ...]] = (Nixl(), Mooncake(), P2p(), Sglang(), Trtllm())

DIALECTS: Final[Mapping[str, KvDialect]] = {dialect.name: dialect for dialect in _ALL}
"""By their names in the configuration."""
