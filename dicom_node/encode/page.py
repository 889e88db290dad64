"""One page for people: three planes of the map with the nuclei outlined, the magnitude beside it, figures, quality.

No name and no number of a patient is on it, so that nothing is burnt in; the object that carries it says whose it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dicom_node.encode.anatomy import GREEN, ORANGE, VERMILION, Colour, structure
from dicom_node.encode.drawing import PAPER, SCREEN, SIDE, Sheet, Theme
from dicom_node.encode.figures import Region
from dicom_node.encode.planes import AXIAL, PLANES, Plane, View, cut, grey, outline
from dicom_node.encode.quantity import QSM, values, zero
from dicom_node.encode.ranges import Comparison
from dicom_node.encode.statements import sentence, withheld
from dicom_node.identity import RESEARCH_ONLY
from dicom_node.regions import in_words, split
from reconstruction import Maps, Recipe

MARGIN = 30
HEADER = 92
PICTURES_TOP, PICTURES_BOTTOM = 132, 836
COLUMN, GAP = 272, 8
TABLE = MARGIN + 2 * COLUMN + GAP + 34
"""Left edge of the figures."""
RIGHT = SIDE - MARGIN
QUALITY = 894
FOOTER = 1000

TITLE, HEADING, BODY, SMALL = 30, 18, 16, 14

MAGNITUDE_QUANTILES = (0.01, 0.995)
"""The magnitude is shown between these quantiles of the volume: a bright vessel must not darken the rest."""

THINNED = 2
"""Along each axis: an eighth of the voxels tells the quantiles as well."""

SCALE_BARS_MM = (50.0, 20.0, 10.0, 5.0, 2.0, 1.0)
"""The longest of these that takes no more than half of a column."""

GRADES: dict[str, tuple[str, Colour]] = {
    "good": ("Good", GREEN),
    "review": ("Review", ORANGE),
    "failed": ("Failed", VERMILION),
}

AXIS_PPB = (-50.0, 250.0)
"""Of the bars, unless a figure lies beyond."""
AXIS_STEP = 50.0
TICKS = tuple(digit * 10**power for power in range(2, 9) for digit in (1, 2, 5))
TICK_GAP = 8
"""Between two labels at least; the smallest step is taken that leaves it."""

ROW = 70
"""Height of a structure's lines, less where there are many."""
MOST_ROWS = 14
LEGEND = 92
"""Height that the legend of the bars and its notes take."""

QUALITY_WORDS = {
    "mask.brain_ml": ("Brain", "{:.0f} ml"),
    "mask.covered": ("of it mapped", "{:.0%}"),
    "magnitude.snr": ("SNR", "{:.0f}"),
    "combine.misfit": ("misfit of the echoes", "{:.1f}"),
    "combine.noise_ppb": ("noise", "{:.1f} ppb"),
}


def draw(
    maps: Maps,
    affine: NDArray[np.float64],
    recipe: Recipe,
    regions: Sequence[Region] = (),
    comparison: Comparison | None = None,
    *,
    tesla: float | None = None,
    theme: Theme = SCREEN,
    scale: int = 1,
) -> Image.Image:
    """The page, RGB, 1024 × scale pixels a side.

    affine: voxel index → patient RAS mm.  regions: those of the report.  tesla: the scanner's field.
    """
    sheet = Sheet(theme, scale)
    _header(sheet, maps, tesla)
    _pictures(sheet, maps, affine)
    nuclei = [region for region in regions if structure(region.name).nucleus]
    if nuclei:
        _figures(sheet, nuclei, comparison)
    else:
        _no_figures(sheet, maps, regions)
    _quality(sheet, maps, regions)
    _footer(sheet, recipe)
    return sheet.image


def _header(sheet: Sheet, maps: Maps, tesla: float | None) -> None:
    voxel = " × ".join(f"{size:.3g}" for size in maps.geometry.voxel_size)
    sheet.text((MARGIN, 52), "Quantitative susceptibility map", TITLE, weight="semibold")
    told = [f"Susceptibility in ppb {zero(maps)}", f"voxels of {voxel} mm", *([f"{tesla:.2g} T"] if tesla else [])]
    sheet.text((MARGIN, 78), "  ·  ".join(told), BODY, colour=sheet.theme.faint)
    word, colour = GRADES[maps.grade]
    width = sheet.width(word, HEADING, "semibold") + 36
    sheet.pill((RIGHT - width, 28, RIGHT, 60), colour)
    sheet.text((RIGHT - width / 2, 50), word, HEADING, colour=(0, 0, 0), weight="semibold", anchor="ms")
    sheet.text((RIGHT, 78), "Quality of the map", SMALL, colour=sheet.theme.faint, anchor="rs")
    sheet.line((MARGIN, HEADER, RIGHT, HEADER))
    if sheet.theme is PAPER:  # a sheet of paper names nobody, and leaves room to
        for words, left, right in (("Patient", 460, 720), ("Date", 735, 870)):
            sheet.text((left, 52), words, SMALL, colour=sheet.theme.faint)
            sheet.line((left + sheet.width(words, SMALL) + 8, 55, right, 55), sheet.theme.faint)


def _pictures(sheet: Sheet, maps: Maps, affine: NDArray[np.float64]) -> None:
    """Three rows of planes, the map at the left, the magnitude at the right, all at one scale."""
    view = View.of(maps.brain_mask | maps.mask, maps.geometry.voxel_size, affine)
    low, high = QSM.window
    # Black outside the mask: there is no value there, and 0 ppb is one.
    chi = np.where(view.turn(maps.mask), view.turn(values(maps, QSM)), low)
    magnitude = view.turn(maps.magnitude)
    regions = maps.regions and replace(maps.regions, labels=view.turn(maps.regions.labels).astype(np.uint8))
    nuclei: dict[str, NDArray[np.generic]] = {name: regions.mask(name) for name in _outlined(maps) if regions}
    thinned = magnitude[::THINNED, ::THINNED, ::THINNED].astype(np.float64)
    dark, bright = (float(level) for level in np.quantile(thinned, MAGNITUDE_QUANTILES))
    white = max(bright, dark + float(np.finfo(np.float32).tiny))

    extents = [view.extent(chi.shape, plane) for plane in PLANES]
    height = PICTURES_BOTTOM - PICTURES_TOP - GAP * (len(PLANES) - 1)
    per_mm = min(COLUMN / max(width for width, _ in extents), height / sum(tall for _, tall in extents))
    spare = (height - per_mm * sum(tall for _, tall in extents)) / len(PLANES)

    for column, words in enumerate(("Susceptibility", "Magnitude")):
        sheet.text((MARGIN + column * (COLUMN + GAP), PICTURES_TOP - 12), words, HEADING, weight="semibold")
    top = float(PICTURES_TOP)
    for plane, (width, tall) in zip(PLANES, extents, strict=True):
        index = _index(plane, nuclei, chi.shape)
        box = (round(width * per_mm * sheet.scale), round(tall * per_mm * sheet.scale))
        tiles = [
            _outlines(grey(cut(chi, plane, index), low, high, box), nuclei, plane, index, sheet.scale),
            grey(cut(magnitude, plane, index), dark, white, box).convert("RGB"),
        ]
        for column, tile in enumerate(tiles):
            left = MARGIN + column * (COLUMN + GAP) + (COLUMN - width * per_mm) / 2
            sheet.box(
                (
                    MARGIN + column * (COLUMN + GAP),
                    top,
                    MARGIN + column * (COLUMN + GAP) + COLUMN,
                    top + tall * per_mm + spare,
                ),
                fill=(0, 0, 0),
            )
            sheet.paste(tile, (left, top + spare / 2))
            _letters(sheet, plane, MARGIN + column * (COLUMN + GAP), top, top + tall * per_mm + spare)
        if plane is AXIAL:
            _scale_bar(sheet, MARGIN + 2 * COLUMN + GAP - 10, top + tall * per_mm + spare - 10, per_mm)
        top += tall * per_mm + spare + GAP
    _colour_bar(sheet, PICTURES_BOTTOM + 8)


def _outlined(maps: Maps) -> list[str]:
    """The nuclei that are outlined, each once for both sides."""
    if maps.regions is None:
        return []
    structures = dict.fromkeys(split(name)[0] for name in maps.regions.names)
    return [name for name in structures if structure(name).nucleus]


def _index(plane: Plane, nuclei: dict[str, NDArray[np.generic]], shape: Sequence[int]) -> int:
    """The slice to show: axially where the nuclei are largest, else where most are seen; without any the middle."""
    if not nuclei:
        return shape[plane.across] // 2
    across = tuple(axis for axis in range(3) if axis != plane.across)
    areas = np.array([np.count_nonzero(mask, axis=across) for mask in nuclei.values()])
    area = areas.sum(axis=0)
    if plane is AXIAL:
        return int(area.argmax())
    seen = np.count_nonzero(areas, axis=0)
    return int(np.lexsort((area, seen))[-1])


def _outlines(
    tile: Image.Image, nuclei: dict[str, NDArray[np.generic]], plane: Plane, index: int, width: int
) -> Image.Image:
    pixels = np.array(tile.convert("RGB"))
    for name, mask in nuclei.items():
        section = cut(mask, plane, index).astype(bool)
        if section.any():
            pixels[outline(section, tile.size, width)] = structure(name).colour
    return Image.fromarray(pixels)


def _letters(sheet: Sheet, plane: Plane, left: float, top: float, bottom: float) -> None:
    right, middle, centre = left + COLUMN, (top + bottom) / 2, left + COLUMN / 2
    for letter, at, anchor in (
        (plane.left, (left + 5, middle), "lm"),
        (plane.right, (right - 5, middle), "rm"),
        (plane.top, (centre, top + 4), "mt"),
        (plane.bottom, (centre, bottom - 4), "mb"),
    ):
        sheet.label(at, letter, SMALL, anchor)


def _scale_bar(sheet: Sheet, right: float, bottom: float, per_mm: float) -> None:
    length = next((mm for mm in SCALE_BARS_MM if mm * per_mm <= COLUMN / 2), SCALE_BARS_MM[-1])
    left = right - length * per_mm
    sheet.line((left, bottom, right, bottom), (255, 255, 255), 2)
    sheet.label(((left + right) / 2, bottom - 4), f"{length / 10:g} cm", SMALL, "ms")


def _colour_bar(sheet: Sheet, top: float) -> None:
    """The grey scale of the map with its window, below the map's column."""
    low, high = QSM.window
    scale = sheet.scale
    wedge = np.linspace(0, 255, COLUMN * scale).astype(np.uint8)
    sheet.paste(Image.fromarray(np.repeat(wedge[None, :], 10 * scale, axis=0)).convert("RGB"), (MARGIN, top))
    sheet.box((MARGIN, top, MARGIN + COLUMN, top + 10), outline=sheet.theme.line)
    for value, anchor in ((low, "ls"), (0, "ms"), (high, "rs")):
        x = MARGIN + (value - low) / (high - low) * COLUMN
        sheet.text((x, top + 27), _signed(value), SMALL, anchor=anchor)
        sheet.line((x, top + 10, x, top + 14), sheet.theme.faint)
    sheet.text((MARGIN + COLUMN + GAP, top + 27), "ppb; magnitude in arbitrary units", SMALL, colour=sheet.theme.faint)


@dataclass(frozen=True)
class _Axis:
    """Of the bars: x in page units for a value in ppb."""

    low: float
    high: float
    left: float
    right: float

    def __call__(self, value: float) -> float:
        return self.left + (value - self.low) / (self.high - self.low) * (self.right - self.left)


def _figures(sheet: Sheet, nuclei: Sequence[Region], comparison: Comparison | None) -> None:
    """Each nucleus: both sides' mean susceptibility as numbers and on a bar, with what is expected at that age."""
    theme = sheet.theme
    rows: dict[str, dict[str, Region]] = {}
    for region in nuclei:
        name, side = split(region.name)
        rows.setdefault(name, {})[side] = region
    shown = dict(list(rows.items())[:MOST_ROWS])
    height = min(ROW, (PICTURES_BOTTOM - PICTURES_TOP - LEGEND) / len(shown))
    numbers = (TABLE + 160, TABLE + 212)
    axis = _axis(nuclei, comparison, TABLE + 240, RIGHT - 16)

    sheet.text((TABLE, PICTURES_TOP - 12), "Mean susceptibility, ppb", HEADING, weight="semibold")
    for x, words in zip(numbers, ("left", "right"), strict=True):
        sheet.text((x, PICTURES_TOP + 6), words, SMALL, colour=theme.faint, anchor="rs")
    bottom = PICTURES_TOP + 14 + height * len(shown)
    for value in _ticks(sheet, axis):
        sheet.line((axis(value), PICTURES_TOP + 12, axis(value), bottom), theme.faint if value == 0 else theme.line)
        sheet.text((axis(value), PICTURES_TOP + 6), _signed(value), SMALL, colour=theme.faint, anchor="ms")
    for place, (name, sides) in enumerate(shown.items()):
        _row(sheet, name, sides, comparison, PICTURES_TOP + 14 + place * height, height, numbers, axis)
    _legend(sheet, len(rows) - len(shown), comparison, bottom + 22)


def _row(
    sheet: Sheet,
    name: str,
    sides: dict[str, Region],
    comparison: Comparison | None,
    top: float,
    height: float,
    numbers: tuple[float, float],
    axis: _Axis,
) -> None:
    what = structure(name)
    base = top + height / 2 - (2 if height > 40 else -5)
    sheet.box((TABLE, base - 11, TABLE + 10, base - 1), fill=what.colour)
    sheet.text((TABLE + 18, base), sheet.fit(what.short, BODY, 100), BODY, weight="semibold")
    for x, side in zip(numbers, ("left", "right"), strict=True):
        if (region := sides.get(side) or sides.get("")) is not None:
            sheet.text((x, base), _signed(round(region.chi.mean)), BODY, anchor="rs")
    if height > 40:
        sheet.text((TABLE + 18, base + 18), _detail(sides), SMALL, colour=sheet.theme.faint)
    middle = base - 6
    expected = [comparison.expected[r.name] for r in sides.values() if comparison and r.name in comparison.expected]
    for expectation in expected[:1]:
        if expectation.low is not None and expectation.high is not None:
            sheet.box((axis(expectation.low), middle - 14, axis(expectation.high), middle + 14), fill=sheet.theme.band)
    for side, region in sides.items():
        lower = middle + (1 if side == "right" else -9)
        ends = sorted((axis(0), axis(region.chi.mean)))
        fill = None if side == "right" else what.colour
        sheet.box((ends[0], lower, ends[1], lower + 8), fill=fill, outline=what.colour)
    for expectation in expected[:1]:
        x = axis(expectation.mean)
        sheet.line((x, middle - 14, x, middle + 14), sheet.theme.ink, 2)


def _detail(sides: dict[str, Region]) -> str:
    """R2* and volume of both sides."""
    regions = list(sides.values())
    told = []
    if all(region.r2star is not None for region in regions):
        told.append("R2* " + " | ".join(f"{region.r2star.mean:.0f}" for region in regions if region.r2star) + " /s")
    told.append(" | ".join(f"{region.volume / 1000:.2f}" for region in regions) + " ml")
    return "   ".join(told)


def _axis(nuclei: Sequence[Region], comparison: Comparison | None, left: float, right: float) -> _Axis:
    known = [region.chi.mean for region in nuclei]
    for expectation in comparison.expected.values() if comparison else ():
        known += [value for value in (expectation.low, expectation.mean, expectation.high) if value is not None]
    low = np.floor(min(AXIS_PPB[0], *known) / AXIS_STEP) * AXIS_STEP
    high = np.ceil(max(AXIS_PPB[1], *known) / AXIS_STEP) * AXIS_STEP
    return _Axis(float(low), float(high), left, right)


def _ticks(sheet: Sheet, axis: _Axis) -> list[int]:
    """The values that are labelled: as many as leave room between their labels, zero always among them."""
    for step in TICKS:
        values = range(math.ceil(axis.low / step) * step, math.floor(axis.high) + 1, step)
        ends = [(axis(value), sheet.width(_signed(value), SMALL) / 2) for value in values]
        if all(b - a >= half + other + TICK_GAP for (a, half), (b, other) in pairwise(ends)):
            break
    return list(values)


def _legend(sheet: Sheet, left_out: int, comparison: Comparison | None, base: float) -> None:
    faint = sheet.theme.faint
    sheet.box((TABLE, base - 9, TABLE + 14, base - 1), fill=faint)
    sheet.text((TABLE + 20, base), "left", SMALL, colour=faint)
    sheet.box((TABLE + 54, base - 9, TABLE + 68, base - 1), outline=faint)
    sheet.text((TABLE + 74, base), "right", SMALL, colour=faint)
    notes = []
    if comparison is not None and comparison.expected:
        ranged = any(expectation.low is not None for expectation in comparison.expected.values())
        sheet.line((TABLE + 118, base - 12, TABLE + 118, base + 2), sheet.theme.ink, 2)
        sheet.text((TABLE + 126, base), f"expected at {comparison.age:.0f} years", SMALL, colour=faint)
        if ranged:
            sheet.box((TABLE + 262, base - 12, TABLE + 280, base + 2), fill=sheet.theme.band)
            sheet.text((TABLE + 288, base), "95 % range", SMALL, colour=faint)
        notes.append(f"Expected: {sentence(comparison.ranges.name)} {sentence(comparison.ranges.note)}")
    elif comparison is not None:
        notes.append(f"No expected values: {comparison.withheld or 'the table has none of these structures'}.")
    if left_out:
        notes.append(_left_out(left_out))
    for line, words in enumerate(sheet.wrap(" ".join(notes), SMALL, RIGHT - TABLE, 4) if notes else ()):
        sheet.text((TABLE, base + 22 + 18 * line), words, SMALL, colour=faint)


def _left_out(count: int) -> str:
    return f"{count} more in the report."


def _no_figures(sheet: Sheet, maps: Maps, regions: Sequence[Region]) -> None:
    """Why there is nothing to draw, and what was measured nevertheless."""
    sheet.text((TABLE, PICTURES_TOP - 12), "Nuclei", HEADING, weight="semibold")
    none = "The atlas has none of the nuclei that this page shows."
    words = withheld(maps) or ("This recipe outlines no structures." if maps.regions is None else none,)
    lines = sheet.wrap(words[0], BODY, RIGHT - TABLE, 12)
    for line, text in enumerate(lines):
        sheet.text((TABLE, PICTURES_TOP + 20 + 22 * line), text, BODY)
    top = PICTURES_TOP + 50 + 22 * len(lines)
    for place, region in enumerate(regions[:MOST_ROWS]):
        figures = f"{_signed(round(region.chi.mean))} ± {region.chi.sd:.0f} ppb"
        name = in_words(region.name)
        name = sheet.fit(name[:1].upper() + name[1:], BODY, 260)
        sheet.text((TABLE, top + 26 * place), name, BODY, weight="semibold")
        sheet.text((RIGHT, top + 26 * place), figures, BODY, anchor="rs")
    if left_out := len(regions[MOST_ROWS:]):
        sheet.text((TABLE, top + 26 * MOST_ROWS), _left_out(left_out), SMALL, colour=sheet.theme.faint)


def _quality(sheet: Sheet, maps: Maps, regions: Sequence[Region]) -> None:
    theme = sheet.theme
    sheet.line((MARGIN, QUALITY - 18, RIGHT, QUALITY - 18))
    sheet.text((MARGIN, QUALITY + 8), "Quality", HEADING, weight="semibold")
    told = [
        f"{words} {form.format(maps.quality[name])}"
        for name, (words, form) in QUALITY_WORDS.items()
        if name in maps.quality
    ]
    if maps.reference.mask.any():
        reference = maps.reference
        told.append(
            f"reference {in_words(reference.name)} {reference.mean * QSM.per_unit:+.0f} ± "
            f"{reference.sd * QSM.per_unit:.0f} ppb relative to the brain"
        )
    sheet.text((MARGIN + 90, QUALITY + 8), sheet.fit("  ·  ".join(told), SMALL, RIGHT - MARGIN - 90), SMALL)
    grounds = " ".join(maps.grounds) or ("No ground for doubt was found." if maps.grade == "good" else "")
    for line, words in enumerate(sheet.wrap(grounds, SMALL, RIGHT - MARGIN - 90, 3)):
        sheet.text((MARGIN + 90, QUALITY + 30 + 18 * line), words, SMALL, colour=theme.faint)


def _footer(sheet: Sheet, recipe: Recipe) -> None:
    sheet.line((MARGIN, FOOTER - 24, RIGHT, FOOTER - 24))
    sheet.text((MARGIN, FOOTER), RESEARCH_ONLY, HEADING, weight="semibold")
    made_by = f"qsm-node {version('qsm-node')}  ·  recipe {recipe.name}  ·  SHA-256 {recipe.digest()[:12]}"
    sheet.text((RIGHT, FOOTER), sheet.fit(made_by, SMALL, 560), SMALL, colour=sheet.theme.faint, anchor="rs")


def _signed(value: int) -> str:
    """A typographer's minus sign is as wide as a digit."""
    return f"{value:d}".replace("-", "−")
