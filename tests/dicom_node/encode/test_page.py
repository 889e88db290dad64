from __future__ import annotations

import dataclasses
import re
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from dicom_node.encode.anatomy import STRUCTURES
from dicom_node.encode.drawing import PAPER, SCREEN, SIDE, Raster
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
    labels = [box for words, box in boxes if re.fullmatch(r"−?\d*0", words) and box[0] > TABLE and box[3] < 156]
    assert len(labels) >= 2
    assert all(left >= TABLE and right <= RIGHT for left, _, right, _ in labels)
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
    assert "The atlas has none of the nuclei that this page shows." in " ".join(words)
    assert {"Left white matter", "Right white matter", "Left GPi", "Right GPi", "Whole brain", "CSF"} <= set(words)
    assert f"{2 * len(found) - 10} more in the report." in words


def test_a_recipe_without_regions_is_told_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    words = _words(monkeypatch)
    draw(maps(), affine(), recipe(), regions(maps()), tesla=2.8936)
    assert "This recipe outlines no structures." in words
    assert any("  ·  2.9 T  ·  " in line for line in words)


def test_paper_leaves_room_to_write_whose_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    words = _words(monkeypatch)
    draw(maps(), affine(), recipe())
    assert "Patient's label" not in words
    draw(maps(), affine(), recipe(), theme=PAPER)
    assert "Patient's label" in words


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


def test_each_ground_has_a_line_of_its_own_in_the_ink_of_words(monkeypatch: pytest.MonkeyPatch) -> None:
    colours: dict[str, object] = {}
    original = ImageDraw.ImageDraw.text

    def text(self: ImageDraw.ImageDraw, xy: object, text: str, fill: object, *args: object, **kwargs: object) -> None:
        colours[text] = fill
        original(self, xy, text, fill, *args, **kwargs)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    grounds = ("One ground (SNR 5, at least 10)", "Another ground", "A third")
    draw(dataclasses.replace(maps(), grade="failed", grounds=grounds), affine(), recipe())
    assert [colours[ground] for ground in grounds] == [SCREEN.ink] * 3
    many = tuple(f"Ground {number}" for number in range(6))
    colours.clear()
    draw(dataclasses.replace(maps(), grade="failed", grounds=many), affine(), recipe())
    assert {*many[:3], "3 more grounds in the report"} <= set(colours)


def test_warnings_that_a_reader_has_to_know_are_on_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    words = _words(monkeypatch)
    told = (
        "the brain mask is the site's own (NIfTI with SHA-256 00ff, 1736 ml); none was looked for",
        "physics contradicts the scale of the phase; it was taken as configured for this scanner",
        "regions: not wholly inside the brain that was acquired, and left out: left_caudate",
        "inversion: stopped after 80 iterations",
    )
    draw(dataclasses.replace(maps(reference="whole_brain"), grade="review"), affine(), recipe(), (), None, told)
    assert {
        "Zero is the mean of the whole brain: not to be compared with maps that are relative to CSF",
        "The brain mask is the site's own",
        "Physics contradicts the scale of the phase",
        "1 warning more in the report",
    } <= set(words)
    words.clear()
    draw(dataclasses.replace(maps(), grade="good"), affine(), recipe())
    assert "No ground for doubt was found." in words
    assert not [line for line in words if "whole brain:" in line or "warning" in line]


def test_a_map_without_its_nuclei_is_not_called_beyond_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    words = _words(monkeypatch)
    lost = dataclasses.replace(whole_maps(trusted=False), grade="good", grounds=())
    draw(lost, affine(), recipe(), regions(lost))
    assert "No ground for doubt was found." not in words
    assert any("the nuclei were not found in it" in line for line in words)


def test_a_nucleus_that_the_scan_cuts_has_a_dash_and_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    words = _words(monkeypatch)
    given = whole_maps()
    assert given.regions is not None
    cut = ("left_substantia_nigra", "right_substantia_nigra", "left_putamen", "left_white_matter")
    given = dataclasses.replace(given, regions=dataclasses.replace(given.regions, cut=cut))
    draw(given, affine(), recipe(), regions(given))
    for name in ("Subst. nigra", "Putamen"):
        at = words.index(name)
        assert words[at + 1 : at + 4] == ["–", "–", "not wholly inside the brain that was acquired"]
    assert "–  not wholly inside the brain that was acquired" in words
    words.clear()
    only = dataclasses.replace(given, regions=dataclasses.replace(given.regions, names=(), cut=cut))
    draw(only, affine(), recipe())
    assert "Each nucleus is not wholly inside the brain that was acquired." in " ".join(words)


def test_figures_have_their_spread_and_their_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    words = _words(monkeypatch)
    given = whole_maps()
    found = {region.name: region for region in regions(given)}
    draw(given, affine(), recipe(), list(found.values()))
    at = words.index("Caudate")
    sides = [found["left_caudate"], found["right_caudate"]]
    assert words[at + 1 : at + 3] == [f"{side.chi.mean:.0f} ± {side.chi.sd:.0f}".replace("-", "−") for side in sides]
    assert words[at + 3] == " | ".join(f"{side.r2star.mean:.0f}" for side in sides if side.r2star)
    assert {"left", "right", "L | R", "L", "R", "ppb, mean ± SD"} <= set(words)
    assert "2 more in the report: white matter, a structure of the site's own." in " ".join(words)


@pytest.mark.parametrize("spread", [12.0, None])
def test_a_table_without_a_spread_does_not_say_what_is_expected(
    monkeypatch: pytest.MonkeyPatch, spread: float | None
) -> None:
    words = _words(monkeypatch)
    given = whole_maps()
    table = Ranges(
        name="A table",
        source="Somebody 1958",
        note="What it is.",
        mark="expected" if spread else "iron alone",
        reference_regions=("csf",),
        ages=(0, 120),
        curve=(Curve(structures=("caudate",), offset=40, sd_ppb=spread),),
    )
    draw(given, affine(), recipe(), regions(given), compare(table, regions(given), "csf", header()))
    said = " ".join(words)
    assert ("expected at 64 years" in words, "95 % of people" in words) == (spread is not None, spread is not None)
    assert ("iron alone at 64 years" in words) == (spread is None)
    assert ("xpected" in said) == (spread is not None)
    assert "A table. What it is. Source: Somebody 1958." in said


def test_planes_say_where_they_lie_and_how_they_are_turned(monkeypatch: pytest.MonkeyPatch) -> None:
    words = _words(monkeypatch)
    given = whole_maps()
    straight = np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.diag([*given.geometry.voxel_size, 1.0])
    draw(given, straight, recipe())
    assert not any("oblique" in line for line in words)
    assert {"Axial", "Coronal", "Sagittal, right"} <= set(words)  # where the right caudate is the larger one
    for plane, letters in (("Axial", "SI"), ("Coronal", "AP"), ("Sagittal, right", "RL")):
        assert re.fullmatch(rf"[{letters}] \d+ mm", words[words.index(plane) + 1])
    assert given.regions is not None
    swapped = tuple(name.replace("right_", "left-").replace("left_", "right_") for name in given.regions.names)
    swapped = tuple(name.replace("left-", "left_") for name in swapped)
    words.clear()
    draw(dataclasses.replace(given, regions=dataclasses.replace(given.regions, names=swapped)), affine(), recipe())
    assert "Sagittal, left" in words
    assert any("oblique by 14°" in line for line in words)


def test_an_empty_brain_and_a_vanished_signal_make_a_page_too() -> None:
    empty = maps()
    nothing = np.zeros_like(empty.mask)
    dark = dataclasses.replace(
        empty, mask=nothing, brain_mask=nothing, magnitude=np.zeros_like(empty.magnitude), quality={}
    )
    assert draw(dark, affine(), recipe()).size == (SIDE, SIDE)


def test_words_that_do_not_fit_end_in_an_ellipsis() -> None:
    sheet = Raster(SCREEN)
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
