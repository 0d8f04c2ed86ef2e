"""The simulated tokenizer, shared by the simulated replica and by the replay client.

Text is cut by one regular expression into pieces of at most eight visible characters with the
white space before them; each piece is a token. The 4,096 words that the simulated model speaks
have the ids 0 to 4,095; every other piece has a stable hashed id above them. So text that the
model wrote is cut back into the very ids that it was written from.

Above the hashed ids stand a few special tokens, which no text can spell: chat markup, as in real
tokenizers, cannot be forged by a message.
"""

from __future__ import annotations

import re
from enum import IntEnum
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING, Final
from zlib import crc32

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_PIECE: Final = re.compile(r"\s*+\S{1,8}|\s+")

_OPENINGS: Final = tuple(map("".join, product("bcdfghklmnprstvw", "aeio")))
_ENDINGS: Final = (*map("".join, product("bcdfglmnrstv", "aeiou")), "nd", "nt", "st", "ld")

OUTPUT_WORDS: Final[tuple[str, ...]] = tuple(
    f" {opening}{ending}" for opening, ending in product(_OPENINGS, _ENDINGS)
)
"""What the simulated model says, by token id; each is one piece with its leading space."""

HASHED_IDS_START: Final = len(OUTPUT_WORDS)
HASHED_IDS_END: Final = 131_072
"""Ids of all other pieces: from ``HASHED_IDS_START`` up to, not including, this."""


class Special(IntEnum):
    """Tokens that no text can spell: the markup of a chat."""

    BEGIN = HASHED_IDS_END
    SYSTEM = HASHED_IDS_END + 1
    USER = HASHED_IDS_END + 2
    ASSISTANT = HASHED_IDS_END + 3
    TOOL = HASHED_IDS_END + 4
    OTHER = HASHED_IDS_END + 5
    END_OF_TURN = HASHED_IDS_END + 6
    END_OF_TEXT = HASHED_IDS_END + 7


VOCABULARY_SIZE: Final = HASHED_IDS_END + len(Special)

_COMMON: Final = """\

time year people way day man thing woman life child world school state family student
group country problem hand part place case week company system program question work
number night point home water room mother area money story fact month lot right study
book eye job word business side kind head house service friend father power hour game
line end member law car city name team minute idea body back parent face others level
office door health person art war history party result change morning reason girl guy
moment air teacher force order market paper hard field music river table tree road
summer winter spring north south east west street letter color sound light voice horse
bird fish dog cat apple bread milk sugar salt stone metal glass wood paint chair clock
phone train plane boat ship bridge tower wall floor window garden flower grass cloud
rain snow wind storm fire smoke earth moon star sun sky sea beach island hill valley
forest farm village town church store shop bank hotel kitchen dinner lunch coffee tea
wine meat rice fruit egg cheese butter plate knife fork spoon cup bottle box bag coat
shirt shoe hat dress ring gold silver blue green red black white brown yellow small
large tall short high low old young new good great early late quick slow warm cold dry
clear open close strong weak full empty rich poor happy quiet simple
pen desk lamp soap towel mirror candle carpet ladder rope wheel engine motor
pump valve copper cotton leather silk wool basket"""

PROMPT_WORDS: Final = tuple(f" {word}" for word in _COMMON.split())
"""Short common English words, one token each here and in most real tokenizers, with no two of
the same id: what prompts of an exact length are built from."""


@lru_cache(maxsize=1 << 16)
def _piece_id(piece: str) -> int:
    """The id of one piece: its place among the output words, else a stable hash."""
    known = _OUTPUT_IDS.get(piece)
    if known is not None:
        return known
    digest = crc32(piece.encode("utf-8", "surrogatepass"))
    return HASHED_IDS_START + digest % (HASHED_IDS_END - HASHED_IDS_START)


_OUTPUT_IDS: Final = {word: index for index, word in enumerate(OUTPUT_WORDS)}


def encode(text: str) -> list[int]:
    """Cut ``text`` into tokens and return their ids."""
    return list(map(_piece_id, _PIECE.findall(text)))


def count(text: str) -> int:
    """How many tokens ``text`` has."""
    return len(_PIECE.findall(text))


def decode(ids: Iterable[int]) -> str:
    """The text of ``ids``.

    Exact for the words that the model speaks. A hash cannot be turned back: a hashed id reads
    `` #`` and five hexadecimal digits, a special one ``<|name|>``.

    Raises:
        ValueError: An id is outside the vocabulary.
    """
    return "".join(map(token_text, ids))


def token_text(token: int) -> str:
    """The text of one id, as :func:`decode` gives it.

    Raises:
        ValueError: The id is outside the vocabulary.
    """
    if 0 <= token < HASHED_IDS_START:
        return OUTPUT_WORDS[token]
    if HASHED_IDS_START <= token < HASHED_IDS_END:
        return f" #{token:05x}"
    return f"<|{Special(token).name.lower()}|>"


def out_of_vocabulary(ids: Sequence[int]) -> int | None:
    """The first id that no token has; None when there is none."""
    if not ids or (min(ids) >= 0 and max(ids) < VOCABULARY_SIZE):
        return None
    return next(token for token in ids if not 0 <= token < VOCABULARY_SIZE)
