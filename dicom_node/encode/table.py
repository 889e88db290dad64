"""The figures of the page: the nuclei, both sides, as numbers and on bars, beside what a table makes expected."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from dicom_node.encode.anatomy import place, structure
from dicom_node.encode.drawing import BODY, HEADING, SMALL, TINY, Box, Sheet
from dicom_node.encode.figures import Region
from dicom_node.encode.pictures import LINE
from dicom_node.encode.ranges import Comparison, Expectation
from dicom_node.encode.statements import sentence, withheld
from dicom_node.regions import SIDES, in_words, split
from reconstruction import Maps

AXIS_PPB = (-50.0, 150.0)
"""Of the bars, unless a figure lies beyond."""
AXIS_STEP = 50.0
TICKS = tuple(digit * 10**power for power in range(1, 9) for digit in (1, 2, 5))
TICK_GAP = 8
"""Between two labels at least; the smallest step is taken that leaves it."""

ROW, ROWS = 46, 400
"""Height of a structure's lines, and of all of them, which is shared where there are many."""
MOST_ROWS = 10
BAR = 8
NAME, LEFT, RIGHT, R2STAR, VOLUME = 16, 164, 224, 280, 354
"""Where the name begins and where the columns end, from the table's left edge."""
NAME_WIDTH, MEAN_WIDTH = 90, 57

CUT = "not wholly inside the brain that was acquired"

Rows = dict[str, dict[str, Region | None]]
"""By structure and side; None where there is no figure."""


@dataclass(frozen=True)
class _Axis:
    """Of the bars: x in page units for a value in ppb."""

    low: float
    high: float
    left: float
    right: float

    def __call__(self, value: float) -> float:
        return self.left + (value - self.low) / (self.high - self.low) * (self.right - self.left)


def rows(maps: Maps, regions: Sequence[Region]) -> Rows:
    """Each nucleus with its figures, or without where the scan cuts it; none where it cuts them all."""
    found: dict[str, Region | None] = {region.name: region for region in regions}
    if maps.regions is not None and maps.regions.trusted:
        found |= dict.fromkeys({*maps.regions.names, *maps.regions.cut} - found.keys())
    told: Rows = {}
    for name in sorted(found, key=place):
        plain, side = split(name)
        if structure(name).nucleus:
            told.setdefault(plain, {})[side] = found[name]
    return told if any(region for sides in told.values() for region in sides.values()) else {}


def figures(sheet: Sheet, told: Rows, others: Sequence[str], comparison: Comparison | None, box: Box) -> float:
    """Each nucleus: mean ± SD of both sides as numbers, the means on bars.  others: names of what was measured besides.

    Returns where it ends.
    """
    left, top, right, bottom = box
    shown = dict(list(told.items())[:MOST_ROWS])
    height = min(ROW, ROWS / len(shown))
    axis = _axis(shown, comparison, left + NAME + 14, right - 12)
    _heads(sheet, left, top)
    ticks = _ticks(sheet, axis)
    for value in ticks:
        sheet.text((axis(value), top + 40), _signed(value), SMALL, colour=sheet.theme.faint, anchor="ms")
    top += 48
    for name, sides in shown.items():
        _row(sheet, name, sides, comparison, (left, top, right, top + height), axis, ticks)
        top += height
    hidden = list(told)[MOST_ROWS:]
    cut = any(region is None for sides in shown.values() for region in sides.values())
    top = _legend(sheet, comparison, cut, left, top + 14)
    return _notes(sheet, comparison, [*hidden, *others], (left, top, right, bottom))


def _heads(sheet: Sheet, left: float, top: float) -> None:
    faint = sheet.theme.faint
    sheet.text((left, top + 6), "Nuclei", HEADING, weight="semibold")
    for x, first, second in (
        (LEFT, "", "left"),
        (RIGHT, "ppb, mean ± SD", "right"),
        (R2STAR, "R2*, 1/s", "L | R"),
        (VOLUME, "ml", "L | R"),
    ):
        if first:
            sheet.text((left + x, top + 4), first, SMALL, colour=faint, anchor="rs")
        sheet.text((left + x, top + 21), second, SMALL, colour=faint, anchor="rs")


def _row(
    sheet: Sheet,
    name: str,
    sides: Mapping[str, Region | None],
    comparison: Comparison | None,
    box: Box,
    axis: _Axis,
    ticks: Sequence[int],
) -> None:
    left, top, _, bottom = box
    what, base = structure(name), top + 14
    sheet.box((left, base - 10, left + 10, base), fill=what.colour)
    sheet.text((left + NAME, base), sheet.fit(what.short, SMALL, NAME_WIDTH, "semibold"), SMALL, weight="semibold")
    known = {side: region for side, region in sides.items() if region is not None}
    for x, side in ((LEFT, "left"), (RIGHT, "right")):
        region = known.get(side) or known.get("")
        sheet.text((left + x, base), _mean(sheet, region) if region else "–", SMALL, anchor="rs")
    if not known:
        sheet.text((left + NAME, base + LINE), CUT, SMALL, colour=sheet.theme.faint)
        return
    if r2star := _pair(sides, lambda region: f"{region.r2star.mean:.0f}" if region.r2star else ""):
        sheet.text((left + R2STAR, base), r2star, SMALL, colour=sheet.theme.faint, anchor="rs")
    digits = 1 if min(region.volume for region in known.values()) >= 1000 else 2
    volumes = _pair(sides, lambda region: f"{region.volume / 1000:.{digits}f}")
    sheet.text((left + VOLUME, base), volumes, SMALL, colour=sheet.theme.faint, anchor="rs")

    upper, lower = base + 6, min(base + 8 + 2 * BAR, bottom - 3)
    bar = (lower - upper - 2) / 2
    curves = comparison.expected if comparison else {}
    expected = next((curves[region.name] for region in known.values() if region.name in curves), None)
    if expected and expected.low is not None and expected.high is not None:
        sheet.box((axis(expected.low), upper - 2, axis(expected.high), lower + 2), fill=sheet.theme.band)
    for value in ticks:
        colour = sheet.theme.faint if value == 0 else sheet.theme.line
        sheet.line((axis(value), upper - 2, axis(value), lower + 2), colour)
    for side, region in known.items():
        y = upper + (bar + 2 if side == "right" else 0)
        ends = sorted((axis(0), axis(region.chi.mean)))
        fill = sheet.theme.paper if side == "right" else what.colour
        sheet.box((ends[0], y, ends[1], y + bar), fill=fill, outline=what.colour)
        if side:
            sheet.text((left + NAME, y + bar), side[0].upper(), TINY, colour=sheet.theme.faint)
    if expected:
        _mark(sheet, expected, axis(expected.mean), upper - 2, lower + 2)


def _mark(sheet: Sheet, expected: Expectation, x: float, top: float, bottom: float) -> None:
    """A line for what is expected of a healthy nucleus; a broken one for a value that has no spread."""
    if expected.low is not None:
        sheet.line((x, top, x, bottom), sheet.theme.ink, 2)
        return
    step = (bottom - top) / 5
    for dash in (0, 2, 4):
        sheet.line((x, top + dash * step, x, top + (dash + 1) * step), sheet.theme.ink, 2)


def _pair(sides: Mapping[str, Region | None], words: Callable[[Region], str]) -> str:
    """Left and right of a figure, "" where there is none."""
    ordered = [sides[side] for side in (*SIDES, "") if side in sides]
    told = [words(region) if region else "–" for region in ordered]
    return " | ".join(told) if all(told) else ""


def _mean(sheet: Sheet, region: Region) -> str:
    """With the SD, where the column has room for both."""
    mean = _signed(round(region.chi.mean))
    both = f"{mean} ± {region.chi.sd:.0f}"
    return both if sheet.width(both, SMALL) <= MEAN_WIDTH else mean


def _axis(told: Rows, comparison: Comparison | None, left: float, right: float) -> _Axis:
    known = [region.chi.mean for sides in told.values() for region in sides.values() if region]
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


def _legend(sheet: Sheet, comparison: Comparison | None, cut: bool, left: float, base: float) -> float:
    """What the bars and their marks are.  Returns where it ends."""
    faint = sheet.theme.faint
    sheet.text((left, base), "Bars: the means, left filled, right outlined.", SMALL, colour=faint)
    if cut:
        base += LINE
        sheet.text((left, base), f"–  {CUT}", SMALL, colour=faint)
    if comparison is None or not comparison.expected:
        return base
    base += LINE + 2
    ranged = [expectation for expectation in comparison.expected.values() if expectation.low is not None]
    some = next(iter(ranged or comparison.expected.values()))
    _mark(sheet, some, left + 5, base - 12, base + 2)
    words = f"{sentence(comparison.ranges.mark).rstrip('.')} at {comparison.age:.0f} years"
    x = left + 14
    if ranged:
        sheet.box((x + 190, base - 12, x + 208, base + 2), fill=sheet.theme.band)
        sheet.text((x + 214, base), "95 % of people", SMALL)
        sheet.text((x, base), sheet.fit(words, SMALL, 184), SMALL)
    else:
        sheet.text((x, base), sheet.fit(words, SMALL, VOLUME - 14), SMALL)
    return base


def _notes(sheet: Sheet, comparison: Comparison | None, besides: Sequence[str], box: Box) -> float:
    """Whose the expected values are and what they are not, and what else the report holds.  Returns where they end."""
    left, base, right, bottom = box
    told: list[tuple[str, int, bool]] = []
    if comparison is not None and comparison.expected:
        ranges = comparison.ranges
        told.append((f"{sentence(ranges.name)} {sentence(ranges.note)}".strip(), 4, True))
        told.append((f"Source: {sentence(ranges.source)}", 4, False))
    elif comparison is not None:
        why = comparison.withheld or "the table has none of these structures"
        told.append((f"No values to compare with: {why}.", 3, True))
    if besides:
        told.append((f"{len(besides)} more in the report: {', '.join(map(in_words, besides))}.", 2, False))
    for words, most, plain in told:
        room = min(most, int((bottom - base) // LINE))
        for line in sheet.wrap(words, SMALL, right - left, room) if room > 0 else ():
            base += LINE
            sheet.text((left, base), line, SMALL, colour=None if plain else sheet.theme.faint)
    return base


def without(sheet: Sheet, maps: Maps, regions: Sequence[Region], box: Box) -> float:
    """Why there are no figures of nuclei, and what was measured nevertheless.  Returns where it ends."""
    left, top, right, _ = box
    sheet.text((left, top + 6), "Nuclei", HEADING, weight="semibold")
    none = "The atlas has none of the nuclei that this page shows."
    if maps.regions is not None and any(structure(name).nucleus for name in maps.regions.cut):
        none = f"Each nucleus is {CUT}."
    words = withheld(maps) or ("This recipe outlines no structures." if maps.regions is None else none,)
    top += 10
    for line in sheet.wrap(words[0], BODY, right - left, 8):
        top += 22
        sheet.text((left, top), line, BODY)
    top += 12
    for region in regions[:MOST_ROWS]:
        top += 24
        name = in_words(region.name)
        sheet.text((left, top), sheet.fit(name[:1].upper() + name[1:], BODY, 240, "semibold"), BODY, weight="semibold")
        told = f"{_signed(round(region.chi.mean))} ± {region.chi.sd:.0f} ppb"
        sheet.text((right, top), told, BODY, anchor="rs")
    if left_out := len(regions[MOST_ROWS:]):
        top += LINE + 5
        sheet.text((left, top), f"{left_out} more in the report.", SMALL, colour=sheet.theme.faint)
    return top


def _signed(value: int) -> str:
    """A typographer's minus sign is as wide as a digit."""
    return f"{value:d}".replace("-", "−")
