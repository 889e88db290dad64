from __future__ import annotations

import datetime
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pypdf import PdfReader

from dicom_node.encode import letters
from dicom_node.encode.document import Document
from dicom_node.encode.drawing import PAPER, SIDE, SMALL, Raster
from dicom_node.encode.figures import regions
from dicom_node.encode.page import document
from tests.dicom_node.encode.example import affine, header, recipe, whole_maps

WHEN = datetime.datetime(2023, 11, 14, 22, 13, 20)


def made(told: tuple[str, ...] = ()) -> bytes:
    maps = whole_maps()
    return document(maps, affine(), recipe(), regions(maps), None, told, tesla=3.0, when=WHEN)


def text_of(content: bytes) -> str:
    (page,) = PdfReader(io.BytesIO(content)).pages
    return page.extract_text()


def test_its_words_can_be_searched_and_copied() -> None:
    said = text_of(made(("inversion: stopped",)))
    maps = whole_maps()
    caudate = next(region for region in regions(maps) if region.name == "left_caudate")
    mean = f"{caudate.chi.mean:.0f} ± {caudate.chi.sd:.0f}".replace("-", "−")
    for words in ("Susceptibility in ppb relative to CSF", "Caudate", mean, "For research, not for diagnosis."):
        assert words in said, words
    assert "1 warning more in the report" in said
    for private in (str(header().PatientName), header().PatientID, header().AccessionNumber):
        assert private not in said


def test_the_same_page_is_the_same_bytes_and_names_the_time_of_its_job() -> None:
    once, again = made(), made()
    assert once == again
    read = PdfReader(io.BytesIO(once)).metadata
    assert read is not None
    assert (read.title, read.get("/CreationDate")) == ("QSM page", "D:20231114221320")


def test_it_holds_pictures_without_loss() -> None:
    picture = np.random.default_rng(1).integers(0, 256, (30, 40, 3), np.uint8)
    paper = Document("", WHEN)
    paper.paste(Image.fromarray(picture), (100, 200))
    (page,) = PdfReader(io.BytesIO(paper.finish())).pages
    (held,) = page.images
    assert held.image is not None
    np.testing.assert_array_equal(np.asarray(held.image), picture)


@pytest.mark.parametrize("anchor", ["ls", "ms", "rs", "lm", "mt", "mb"])
def test_lines_end_where_the_page_was_laid_out_to_end(anchor: str) -> None:
    """To a tenth of a unit, as a reader of the file measures it."""
    words, at = "Where R2* is high: left | right, 12.5 ± 3 ppb", (500.0, 300.0)
    paper = Document("", WHEN)
    paper.text(at, words, SMALL, anchor=anchor)
    places: list[tuple[str, float, float]] = []

    def seen(text: str, _cm: object, matrix: list[float], _font: object, _size: float) -> None:
        if text.strip():
            places.append((text.strip(), matrix[4], matrix[5]))

    (page,) = PdfReader(io.BytesIO(paper.finish())).pages
    page.extract_text(visitor_text=seen)
    ((text, x, y),) = places
    raster = Raster(PAPER)
    raster.text(at, words, SMALL, anchor=anchor)
    rows, columns = np.nonzero((np.asarray(raster.image) != PAPER.paper).any(axis=-1))
    per_unit = 540 / SIDE
    assert text == words
    assert x / per_unit == pytest.approx(columns.min(), abs=2)
    # Of capitals and digits without the letters that hang below: those of the bar and of "p" reach some units lower.
    assert SIDE - y / per_unit == pytest.approx(rows.max() - 3, abs=2)


def test_what_another_font_writes_is_a_picture_in_its_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    paper = Document("", WHEN)
    monkeypatch.setattr(letters, "_font_of", lambda letter: MONO if letter == "x" else "")
    paper.text((100, 100), "one x two", SMALL)
    content = paper.finish()
    assert text_of(content).split() == ["one", "two"]
    (page,) = PdfReader(io.BytesIO(content)).pages
    assert len(page.images) == 1


MONO = Path(letters.font(16, "semibold").path).with_name("SourceSansPro-Black.ttf")
"""A font that is none of the page's, and that is there wherever the page is made."""
