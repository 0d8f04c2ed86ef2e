"""The usage of a split request, of which two replicas tell.

To a decode replica all of the prompt came from a cache, the other replica's; how much of it was
found in one is what the prefill replica tells.
"""

from __future__ import annotations

import re
from typing import Final

MARK: Final = b'"cached_tokens"'

_COUNT: Final = re.compile(rb'("cached_tokens"\s*:\s*)([0-9]+)')


def with_cached(data: bytes, cached_tokens: int) -> bytes:
    """``data`` with that count, at the same length: blanks may follow a number.

    A count with fewer digits than that is left as it is; it is no larger then.
    """
    new = b"%d" % cached_tokens

    def put(match: re.Match[bytes]) -> bytes:
        old = match[2]
        return match[1] + (new.ljust(len(old)) if len(new) <= len(old) else old)

    return _COUNT.sub(put, data)
