"""Type and colour of the page: one font at few sizes, one theme for screens and one for paper, text that never clips.

The font is Source Sans Pro (SIL Open Font License), laid out without shaping, so that the page is the same on every
machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files

from PIL import Image, ImageDraw, ImageFont

from dicom_node.encode.anatomy import Colour

SIDE = 1024
"""Pixels of the page at scale 1; every length below is one of these."""

TITLE, HEADING, BODY, SMALL = 30, 18, 16, 14
"""Sizes of type."""
TINY = 12
"""Of single letters beside bars."""

FONTS = {"regular": "SourceSansPro-Regular.ttf", "semibold": "SourceSansPro-Semibold.ttf"}


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


class Sheet:
    """A square page to draw on, in units of 1/1024 of its side whatever its resolution."""

    def __init__(self, theme: Theme, scale: int = 1) -> None:
        self.theme = theme
        self.scale = scale
        self.image = Image.new("RGB", (SIDE * scale, SIDE * scale), theme.paper)
        self._draw = ImageDraw.Draw(self.image)

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
        self._draw.text(self._scaled(at), words, colour or self.theme.ink, font(size * self.scale, weight), anchor)

    def label(self, at: tuple[float, float], words: str, size: int, anchor: str) -> None:
        """Text over a picture: white with a black rim, legible on every grey."""
        self._draw.text(
            self._scaled(at),
            words,
            (255, 255, 255),
            font(size * self.scale, "semibold"),
            anchor,
            stroke_width=2 * self.scale,
            stroke_fill=(0, 0, 0),
        )

    def line(self, points: tuple[float, float, float, float], colour: Colour | None = None, width: int = 1) -> None:
        x0, y0, x1, y1 = points
        self._draw.line(
            (*self._scaled((x0, y0)), *self._scaled((x1, y1))), colour or self.theme.line, width * self.scale
        )

    def box(
        self, corners: tuple[float, float, float, float], fill: Colour | None = None, outline: Colour | None = None
    ) -> None:
        x0, y0, x1, y1 = corners
        self._draw.rectangle(
            (*self._scaled((x0, y0)), *self._scaled((x1, y1))), fill=fill, outline=outline, width=self.scale
        )

    def pill(self, corners: tuple[float, float, float, float], fill: Colour) -> None:
        x0, y0, x1, y1 = corners
        self._draw.rounded_rectangle(
            (*self._scaled((x0, y0)), *self._scaled((x1, y1))), radius=(y1 - y0) / 2 * self.scale, fill=fill
        )

    def paste(self, picture: Image.Image, at: tuple[float, float]) -> None:
        """picture: in pixels of the sheet."""
        x, y = self._scaled(at)
        self.image.paste(picture, (round(x), round(y)))

    def width(self, words: str, size: int, weight: str = "regular") -> float:
        return font(size * self.scale, weight).getlength(words) / self.scale

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

    def _scaled(self, at: tuple[float, float]) -> tuple[float, float]:
        return at[0] * self.scale, at[1] * self.scale


@cache
def font(size: int, weight: str = "regular") -> ImageFont.FreeTypeFont:
    with as_file(files("font_source_sans_pro") / "files" / FONTS[weight]) as path:
        return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)
