"""The letters of the page: Source Sans Pro for Latin, Greek and Cyrillic ones, a font of the machine for the others.

A site may name its table or its recipe in any language.  Where the machine has one of FALLBACKS (docs/operations.md
names the packages), what Source Sans Pro lacks is written in it.  What cannot be written, since no font has it or since
its script takes shaping (Arabic, Hebrew, the scripts of India), is told as "[n letters]" and never drawn as boxes.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import as_file, files
from itertools import groupby
from pathlib import Path

from PIL import ImageFont

FONTS = {"regular": "SourceSansPro-Regular.ttf", "semibold": "SourceSansPro-Semibold.ttf"}

FALLBACKS = ("NotoSansCJK-Regular.ttc", "DroidSansFallbackFull.ttf", "DejaVuSans.ttf")
"""By the names of their files, the best first."""

SHAPED = frozenset({"R", "AL", "AN"})
"""Classes of letters that run from right to left (Unicode Standard Annex 9)."""

PROBE = 16
"""Pixels at which it is tried whether a font has a letter."""
NO_CHARACTER = "\uffff"
"""For which every font draws what it draws for letters that it lacks."""


@dataclass(frozen=True, eq=False)
class Run:
    """Words that one font has all letters of.  width: pixels."""

    words: str
    font: ImageFont.FreeTypeFont
    width: float


def runs(words: str, size: int, weight: str) -> Iterator[Run]:
    """The words in the fonts that have their letters.  size: pixels."""
    face = font(size, weight)
    for path, letters in groupby(unicodedata.normalize("NFC", words), _font_of):
        found = "".join(letters)
        if path is None:
            found = f"[{len(found)} {'letter' if len(found) == 1 else 'letters'}]"
        chosen = _of_file(path, size) if path else face
        yield Run(found, chosen, chosen.getlength(found))


@cache
def font(size: int, weight: str = "regular") -> ImageFont.FreeTypeFont:
    """Source Sans Pro.  size: pixels."""
    with as_file(files("font_source_sans_pro") / "files" / FONTS[weight]) as path:
        return _of_file(path, size)


@cache
def _of_file(path: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=4096)
def _font_of(letter: str) -> Path | str | None:
    """The file of the first fallback that has it, "" where the page's own font does, None where none does."""
    if unicodedata.bidirectional(letter) in SHAPED or unicodedata.category(letter).startswith("M"):
        return None
    if _has(font(PROBE), letter):
        return ""
    return next((path for path in fallbacks() if _has(_of_file(path, PROBE), letter)), None)


def _has(face: ImageFont.FreeTypeFont, letter: str) -> bool:
    return letter.isspace() or bytes(face.getmask(letter)) != bytes(face.getmask(NO_CHARACTER))


@cache
def fallbacks() -> tuple[Path, ...]:
    """Those of FALLBACKS that lie in `fonts` of the machine's data folders (XDG Base Directory Specification)."""
    found: dict[str, Path] = {}
    for folder in (os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share").split(":"):
        for path in sorted((Path(folder) / "fonts").rglob("*")):
            if path.name in FALLBACKS:
                found.setdefault(path.name, path)
    return tuple(found[name] for name in FALLBACKS if name in found)
