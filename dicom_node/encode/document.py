"""The page as a PDF: letters that can be searched and copied, lines that stay sharp, pictures without loss.

What a fallback font writes (`encode.letters`) is a picture: its outlines are of a kind that ReportLab does not embed.
"""

from __future__ import annotations

import datetime
import io

from PIL import Image, ImageDraw, ImageFont
from reportlab.lib.utils import ImageReader
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas

from dicom_node.encode.anatomy import Colour
from dicom_node.encode.drawing import PAPER, SIDE, Box, Sheet
from dicom_node.encode.letters import FONTS, font

PAGE_INCHES = 7.5
"""Side of the square page: fits A4 and letter paper."""
POINT = PAGE_INCHES * 72 / SIDE
"""Points of a unit of the page."""
PICTURE_SCALE = 2
RIM = 2
"""Of black around a label, in units."""


class Document(Sheet):
    """On paper.  title: of the document.  when: the only time that it names."""

    def __init__(self, title: str, when: datetime.datetime) -> None:
        super().__init__(PAPER, PICTURE_SCALE)
        self._written = io.BytesIO()
        # invariant: without it the same page would be other bytes every time.
        self._canvas = Canvas(self._written, pagesize=(SIDE * POINT, SIDE * POINT), invariant=1)
        self._canvas.setTitle(title)
        self._canvas.setAuthor("")
        self._canvas.setSubject("")
        self._canvas.setCreator("qsm-node")
        self._canvas.setProducer("qsm-node")
        self._canvas.setDateFormatter(lambda *_: when.strftime("D:%Y%m%d%H%M%S"))

    def finish(self) -> bytes:
        self._canvas.save()
        return self._written.getvalue()

    def _write(
        self, at: tuple[float, float], words: str, face: ImageFont.FreeTypeFont, colour: Colour, anchor: str
    ) -> None:
        left, top, right, bottom = (edge / self.scale for edge in face.getbbox(words, anchor=anchor))
        weight = next((weight for weight in FONTS if face is font(round(face.size), weight)), None)
        if weight is None:
            pixels = (round((right - left) * self.scale) + 1, round((bottom - top) * self.scale) + 1)
            picture = Image.new("RGBA", pixels, (*colour, 0))
            ImageDraw.Draw(picture).text((0, 0), words, colour, face, "lt")
            self.paste(picture, (at[0] + left, at[1] + top))
            return
        base = at[1] + (face.getbbox(words, anchor=anchor)[1] - face.getbbox(words, anchor="ls")[1]) / self.scale
        self._canvas.setFillColorRGB(*_parts(colour))
        size = face.size / self.scale * POINT
        self._canvas.setFont(_face(weight), size)
        # Pixels round a letter's advance: it is kept, so that every line ends where the page was laid out to end.
        spare = face.getlength(words) / self.scale * POINT - pdfmetrics.stringWidth(words, _face(weight), size)
        self._canvas.drawString(at[0] * POINT, self._y(base), words, charSpace=spare / len(words))

    def label(self, at: tuple[float, float], words: str, size: int, anchor: str) -> None:
        edges = font(size * self.scale, "semibold").getbbox(words, anchor=anchor)
        left, top, right, bottom = (edge / self.scale for edge in edges)
        self.box((at[0] + left - RIM, at[1] + top - RIM, at[0] + right + RIM, at[1] + bottom + RIM), fill=(0, 0, 0))
        self.text(at, words, size, colour=(255, 255, 255), weight="semibold", anchor=anchor)

    def line(self, points: Box, colour: Colour | None = None, width: int = 1) -> None:
        x0, y0, x1, y1 = points
        self._canvas.setStrokeColorRGB(*_parts(colour or self.theme.line))
        self._canvas.setLineWidth(width * POINT)
        self._canvas.line(x0 * POINT, self._y(y0), x1 * POINT, self._y(y1))

    def box(self, corners: Box, fill: Colour | None = None, outline: Colour | None = None) -> None:
        x0, y0, x1, y1 = corners
        self._canvas.setFillColorRGB(*_parts(fill or self.theme.paper))
        self._canvas.setStrokeColorRGB(*_parts(outline or self.theme.line))
        self._canvas.setLineWidth(POINT)
        sides = (x0 * POINT, self._y(y1), (x1 - x0) * POINT, (y1 - y0) * POINT)
        self._canvas.rect(*sides, stroke=int(outline is not None), fill=int(fill is not None))

    def pill(self, corners: Box, fill: Colour) -> None:
        x0, y0, x1, y1 = corners
        self._canvas.setFillColorRGB(*_parts(fill))
        sides = (x0 * POINT, self._y(y1), (x1 - x0) * POINT, (y1 - y0) * POINT)
        self._canvas.roundRect(*sides, radius=(y1 - y0) / 2 * POINT, stroke=0, fill=1)

    def paste(self, picture: Image.Image, at: tuple[float, float]) -> None:
        width, height = (pixels / self.scale for pixels in picture.size)
        where = (at[0] * POINT, self._y(at[1] + height), width * POINT, height * POINT)
        self._canvas.drawImage(ImageReader(picture), *where, mask="auto")

    def _y(self, y: float) -> float:
        """PDF counts from the bottom."""
        return (SIDE - y) * POINT


def _parts(colour: Colour) -> tuple[float, float, float]:
    red, green, blue = colour
    return red / 255, green / 255, blue / 255


def _face(weight: str) -> str:
    """What ReportLab calls Source Sans Pro."""
    name = FONTS[weight].removesuffix(".ttf")
    if name not in pdfmetrics.getRegisteredFontNames():
        pdfmetrics.registerFont(TTFont(name, str(font(1, weight).path)))
    return name
