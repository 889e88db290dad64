"""Type and colour of the page: one font at few sizes, one theme for screens and one for paper, text that never clips.

The font is Source Sans Pro (SIL Open Font License), laid out without shaping, so that a page in Latin, Greek and
Cyrillic letters is the same on every machine; other letters are those of a font of the machine, see `encode.letters`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from dicom_node.encode.anatomy import Colour
from dicom_node.encode.letters import font, runs

Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""

SIDE = 1024
"""Pixels of the page at scale 1; every length below is one of these."""

TITLE, HEADING, BODY, SMALL = 30, 18, 16, 14
"""Sizes of type."""
TINY = 12
"""Of single letters beside bars."""


@dataclass(frozen=True)
class Theme:
    """paper: the ground.  ink, faint: text.  line: rules and frames.  band: reference ranges."""

    paper: Colour
    ink: Colour
    faint: Colour
    line: Colour
    band: Colour


SCREEN = Theme(paper=(0, 0, 0), ink=(240, 240, 240), faint=(165, 165, 165), line=(70, 70, 70), band=(95, 95, 95))
PAPER = Theme(paper=(255, 255, 255), ink=(20, 20, 20), faint=(95, 95, 95), line=(190, 190, 190), band=(205, 205, 205))


class Sheet(ABC):
    """A square page to draw on, in units of 1/1024 of its side whatever its resolution.

    scale: pixels of a unit, for what is drawn as a picture.
    """

    def __init__(self, theme: Theme, scale: int = 1) -> None:
        self.theme = theme
        self.scale = scale

    def text(
        self,
        at: tuple[float, float],
        words: str,
        size: int,
        *,
        colour: Colour | None = None,
        weight: str = "regular",
        anchor: str = "ls",
    ) -> None:
        """anchor: as Pillow names it; "ls" sets the left end of the base line."""
        x = at[0] - self.width(words, size, weight) * {"l": 0.0, "m": 0.5, "r": 1.0}[anchor[0]]
        for run in runs(words, size * self.scale, weight):
            self._write((x, at[1]), run.words, run.font, colour or self.theme.ink, f"l{anchor[1]}")
            x += run.width / self.scale

    @abstractmethod
    def _write(
        self, at: tuple[float, float], words: str, face: ImageFont.FreeTypeFont, colour: Colour, anchor: str
    ) -> None:
        """Words that one font has all letters of.  face: at `scale`."""

    @abstractmethod
    def label(self, at: tuple[float, float], words: str, size: int, anchor: str) -> None:
        """Text over a picture: white on black, legible on every grey."""

    @abstractmethod
    def line(self, points: Box, colour: Colour | None = None, width: int = 1) -> None: ...

    @abstractmethod
    def box(self, corners: Box, fill: Colour | None = None, outline: Colour | None = None) -> None: ...

    @abstractmethod
    def pill(self, corners: Box, fill: Colour) -> None: ...

    @abstractmethod
    def paste(self, picture: Image.Image, at: tuple[float, float]) -> None:
        """picture: in pixels, `scale` of them for a unit."""

    def width(self, words: str, size: int, weight: str = "regular") -> float:
        return sum(run.width for run in runs(words, size * self.scale, weight)) / self.scale

    def fit(self, words: str, size: int, width: float, weight: str = "regular") -> str:
        """The words, cut with an ellipsis where they are wider than `width`."""
        if self.width(words, size, weight) <= width:
            return words
        while words and self.width(words + "…", size, weight) > width:
            words = words[:-1]
        return words.rstrip() + "…"

    def wrap(self, words: str, size: int, width: float, lines: int) -> list[str]:
        """The words in at most so many lines, the last one cut with an ellipsis where there are more."""
        broken: list[str] = []
        for word in words.split():
            longer = f"{broken[-1]} {word}" if broken else word
            if broken and self.width(longer, size) <= width:
                broken[-1] = longer
            else:
                broken.append(word)
        kept, rest = broken[: lines - 1], broken[lines - 1 :]
        return [self.fit(line, size, width) for line in (*kept, " ".join(rest)) if line]


class Raster(Sheet):
    """In pixels."""

    def __init__(self, theme: Theme, scale: int = 1) -> None:
        super().__init__(theme, scale)
        self.image = Image.new("RGB", (SIDE * scale, SIDE * scale), theme.paper)
        self._draw = ImageDraw.Draw(self.image)

    def _write(
        self, at: tuple[float, float], words: str, face: ImageFont.FreeTypeFont, colour: Colour, anchor: str
    ) -> None:
        self._draw.text(self._scaled(at), words, colour, face, anchor)

    def label(self, at: tuple[float, float], words: str, size: int, anchor: str) -> None:
        self._draw.text(
            self._scaled(at),
            words,
            (255, 255, 255),
            font(size * self.scale, "semibold"),
            anchor,
            stroke_width=2 * self.scale,
            stroke_fill=(0, 0, 0),
        )

    def line(self, points: Box, colour: Colour | None = None, width: int = 1) -> None:
        x0, y0, x1, y1 = points
        self._draw.line(
            (*self._scaled((x0, y0)), *self._scaled((x1, y1))), colour or self.theme.line, width * self.scale
        )

    def box(self, corners: Box, fill: Colour | None = None, outline: Colour | None = None) -> None:
        x0, y0, x1, y1 = corners
        self._draw.rectangle(
            (*self._scaled((x0, y0)), *self._scaled((x1, y1))), fill=fill, outline=outline, width=self.scale
        )

    def pill(self, corners: Box, fill: Colour) -> None:
        x0, y0, x1, y1 = corners
        self._draw.rounded_rectangle(
            (*self._scaled((x0, y0)), *self._scaled((x1, y1))), radius=(y1 - y0) / 2 * self.scale, fill=fill
        )

    def paste(self, picture: Image.Image, at: tuple[float, float]) -> None:
        x, y = self._scaled(at)
        self.image.paste(picture, (round(x), round(y)))

    def _scaled(self, at: tuple[float, float]) -> tuple[float, float]:
        return at[0] * self.scale, at[1] * self.scale
