"""Kinds of numbers in the configuration, with their bounds, which also keep out .inf and .nan."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec

DAY_S = 86_400

Seconds: TypeAlias = Annotated[float, msgspec.Meta(gt=0, le=DAY_S)]
"""More than nothing, a day at most."""

Span: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=DAY_S)]
"""Seconds, of which there may be none."""

Share: TypeAlias = Annotated[float, msgspec.Meta(gt=0, le=1)]
Times: TypeAlias = Annotated[float, msgspec.Meta(gt=1, le=1_000_000)]
"""A factor by which something is more."""

Positive: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=2**53)]
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Port: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=65535)]
