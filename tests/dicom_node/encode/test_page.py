from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image, ImageDraw

from dicom_node.atlas import read_atlas
from dicom_node.encode.anatomy import STRUCTURES
from dicom_node.encode.drawing import PAPER, SCREEN, SIDE, Sheet
from dicom_node.encode.figures import regions
from dicom_node.encode.page import MARGIN, RIGHT, draw
from dicom_node.encode.ranges import Comparison, Curve, Ranges, compare
from dicom_node.regions import split
from reconstruction import Maps
from tests.dicom_node.encode.example import affine, header, maps, recipe, whole_maps

LONG = "a very long name of a structure that no column was ever made for, " * 3


def _comparison(given: Maps) -> Comparison:
    ranges = Ranges(
        name="A cohort of healthy people whose authors have long names " * 2,
        source="here",
        note=LONG,
        reference_regions=("csf",),
        ages=(0, 120),
        curve=(Curve(structures=("caudate", "red_nucleus"), offset=40, slope=0.5, sd_ppb=12),),
    )
    return compare(ranges, regions(given), "csf", header())


@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.parametrize("theme", [SCREEN, PAPER], ids=["screen", "paper"])
def test_nothing_is_drawn_over_the_margin(theme: object, scale: int) -> None:
    """The longest words there can be stay on the page: what is too long ends in an ellipsis."""
    given = whole_maps()
    assert given.regions is not None
    names = (*(f"{side}_{name}" for name in STRUCTURES for side in ("left", "right")), f"left_{LONG}")
    labels = np.arange(given.regions.labels.size).reshape(given.regions.labels.shape) % len(names) + 1
    crowded = dataclasses.replace(
        given,
        regions=dataclasses.replace(given.regions, names=names, labels=labels.astype(np.uint8)),
        grounds=(LONG, LONG, LONG),
    )
    long_recipe = dataclasses.replace(recipe(), name=LONG)
    page = draw(crowded, affine(), long_recipe, regions(crowded), _comparison(crowded), theme=theme, scale=scale)
    assert page.size == (SIDE * scale, SIDE * scale)
    pixels = np.asarray(page)
    paper = np.array(theme.paper)
    rim = (MARGIN - 2) * scale
    for edge in (pixels[:, :rim], pixels[:, (RIGHT + 2) * scale :], pixels[: rim // 2], pixels[-rim // 3 :]):
        assert (edge == paper).all()


def test_the_same_maps_make_the_same_page() -> None:
    given = whole_maps()
    once, again = (draw(given, affine(), recipe(), regions(given), _comparison(given)).tobytes() for _ in range(2))
    assert once == again


def test_nuclei_are_outlined_in_their_colours() -> None:
    given = whole_maps()
    with_them = draw(given, affine(), recipe())
    without = draw(dataclasses.replace(given, regions=None), affine(), recipe())
    for name in ("caudate", "globus_pallidus_external", "red_nucleus"):
        colour = STRUCTURES[name].colour
        assert _pixels(with_them, colour) > _pixels(without, colour), name


def test_each_structure_of_the_atlas_has_a_colour_of_its_own() -> None:
    nuclei = dict.fromkeys(split(name)[0] for name in read_atlas("icbm152").mixtures)
    assert len({STRUCTURES[name].colour for name in nuclei}) == len(nuclei) == 8


def test_a_grade_has_a_word_and_not_only_a_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    words = _words(monkeypatch)
    for grade, word in (("good", "Good"), ("review", "Review"), ("failed", "Failed")):
        words.clear()
        draw(dataclasses.replace(maps(), grade=grade), affine(), recipe())
        assert word in words


def test_says_why_figures_are_withheld_and_shows_none(monkeypatch: pytest.MonkeyPatch) -> None:
    words = _words(monkeypatch)
    lost = whole_maps(trusted=False)
    draw(lost, affine(), recipe(), regions(lost))
    said = " ".join(words)
    assert "withheld: the correlation is 0.31, below 0.6" in said
    assert "Caudate" not in said


def test_says_what_it_is_for_and_whose_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    words = _words(monkeypatch)
    given = whole_maps()
    draw(given, affine(), recipe(), regions(given), _comparison(given))
    said = " ".join(words)
    assert "For research, not for diagnosis." in said
    for private in (str(header().PatientName), header().PatientID, header().AccessionNumber):
        assert private not in said


def test_an_empty_brain_and_a_vanished_signal_make_a_page_too() -> None:
    empty = maps()
    nothing = np.zeros_like(empty.mask)
    dark = dataclasses.replace(
        empty, mask=nothing, brain_mask=nothing, magnitude=np.zeros_like(empty.magnitude), quality={}
    )
    assert draw(dark, affine(), recipe()).size == (SIDE, SIDE)


def test_words_that_do_not_fit_end_in_an_ellipsis() -> None:
    sheet = Sheet(SCREEN)
    assert sheet.fit("short", 16, 100) == "short"
    cut = sheet.fit(LONG, 16, 100)
    assert cut.endswith("…")
    assert sheet.width(cut, 16) <= 100
    lines = sheet.wrap(LONG, 16, 100, 3)
    assert len(lines) == 3
    assert max(sheet.width(line, 16) for line in lines) <= 100


def _pixels(page: Image.Image, colour: tuple[int, int, int]) -> int:
    return int((np.asarray(page) == colour).all(axis=-1).sum())


def _words(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Gathers what is written while a page is drawn."""
    words: list[str] = []
    original = ImageDraw.ImageDraw.text

    def text(self: ImageDraw.ImageDraw, xy: object, text: str, *args: object, **kwargs: object) -> None:
        words.append(text)
        original(self, xy, text, *args, **kwargs)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    return words
