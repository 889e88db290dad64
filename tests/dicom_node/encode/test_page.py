from __future__ import annotations

import dataclasses
import re
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from dicom_node.encode.anatomy import STRUCTURES
from dicom_node.encode.drawing import PAPER, SCREEN, SIDE, Sheet
from dicom_node.encode.figures import regions
from dicom_node.encode.page import MARGIN, RIGHT, TABLE, draw
from dicom_node.encode.ranges import Comparison, compare
from dicom_node.ranges import Curve, Ranges
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


@pytest.mark.parametrize("mean", [-4000, -1100, -700, -260, 0, 390, 1600])
@pytest.mark.parametrize("expected", [False, True])
def test_no_words_of_the_page_touch_others(monkeypatch: pytest.MonkeyPatch, mean: int, expected: bool) -> None:
    """However far out a figure lies, as of a calcified pallidum or a bleed."""
    boxes: list[tuple[str, tuple[float, float, float, float]]] = []
    original = ImageDraw.ImageDraw.text

    def text(self: ImageDraw.ImageDraw, xy: tuple[float, float], text: str, *args: Any, **kwargs: Any) -> None:
        _, font, anchor = args
        boxes.append((text, self.textbbox(xy, text, font, anchor)))
        original(self, xy, text, *args, **kwargs)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    given = whole_maps()
    found = [
        dataclasses.replace(region, chi=dataclasses.replace(region.chi, mean=float(mean)))
        if region.name == "left_globus_pallidus_external"
        else region
        for region in regions(given)
    ]
    draw(given, affine(), recipe(), found, _comparison(given) if expected else None)
    labels = [box for words, box in boxes if re.fullmatch(r"−?\d+00|0", words) and box[1] < 140]
    assert len(labels) >= 2
    assert all(left >= TABLE + 212 and right <= RIGHT for left, _, right, _ in labels)
    for (one, a), (other, b) in combinations(boxes, 2):
        apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
        assert apart, (one, other)


def test_regions_without_nuclei_are_told_with_their_sides_and_in_the_site_s_own_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = _words(monkeypatch)
    given = whole_maps()
    assert given.regions is not None
    names = ("left_white_matter", "right_white_matter", "left_GPi", "right_GPi", "left_a", "right_a", "b", "c")
    of_the_site = dataclasses.replace(given, regions=dataclasses.replace(given.regions, names=names))
    found = regions(of_the_site)
    draw(of_the_site, affine(), recipe(), [*found, *found])
    assert "The atlas has none of the nuclei that this page shows." in words
    assert {"Left white matter", "Right white matter", "Left GPi", "Right GPi", "Whole brain", "CSF"} <= set(words)
    assert f"{2 * len(found) - 14} more in the report." in words


def test_a_recipe_without_regions_is_told_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    words = _words(monkeypatch)
    draw(maps(), affine(), recipe(), regions(maps()), tesla=2.8936)
    assert "This recipe outlines no structures." in words
    assert any(line.endswith("·  2.9 T") for line in words)


def test_paper_leaves_room_to_write_whose_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    words = _words(monkeypatch)
    draw(maps(), affine(), recipe())
    assert not {"Patient", "Date"} & set(words)
    draw(maps(), affine(), recipe(), theme=PAPER)
    assert {"Patient", "Date"} <= set(words)


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
