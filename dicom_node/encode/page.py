"""One page for people: three planes of the map with the nuclei outlined, the magnitude beside it, figures, quality.

No name and no number of a patient is on it, so that nothing is burnt in; the object that carries it says whose it is.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Sequence
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dicom_node.encode.anatomy import GREEN, ORANGE, VERMILION, Colour
from dicom_node.encode.document import Document
from dicom_node.encode.drawing import BODY, HEADING, PAPER, SCREEN, SIDE, SMALL, TITLE, Raster, Sheet, Theme
from dicom_node.encode.figures import Region
from dicom_node.encode.pictures import COLUMN, GAP, LINE, Scene, detail, further, planes
from dicom_node.encode.planes import OBLIQUE_DEGREES, obliqueness
from dicom_node.encode.quantity import QSM, zero
from dicom_node.encode.ranges import Comparison
from dicom_node.encode.statements import withheld
from dicom_node.encode.table import figures, rows, without
from dicom_node.identity import RESEARCH_ONLY
from dicom_node.regions import WHOLE_BRAIN, in_words, split
from reconstruction import Maps, Recipe

MARGIN = 30
RIGHT = SIDE - MARGIN
HEADER = 92
TOP, BOTTOM = 126, 830
"""Of the pictures."""
TABLE = MARGIN + 2 * COLUMN + GAP + 24
"""Left edge of the figures."""
BODY_BOTTOM = 864
QUALITY = 892
QUALITY_LINES = 4
FOOTER = 1002

LABEL = (460, 16, 850, 58)
"""Where a label is stuck on paper."""

GRADES: dict[str, tuple[str, Colour]] = {
    "good": ("Good", GREEN),
    "review": ("Review", ORANGE),
    "failed": ("Failed", VERMILION),
}

QUALITY_WORDS = {
    "mask.brain_ml": ("Brain", "{:.0f} ml"),
    "mask.covered": ("of it mapped", "{:.0%}"),
    "magnitude.snr": ("SNR", "{:.0f}"),
    "combine.misfit": ("misfit of the echoes", "{:.1f}"),
    "combine.noise_ppb": ("noise", "{:.1f} ppb"),
}

SAID = ("the brain mask is", "physics contradicts")
"""How those warnings begin that a reader of the page has to know."""
SHOWN = ("regions: ", "reference: ")
"""How those begin that the page shows in its own way."""


def draw(
    maps: Maps,
    affine: NDArray[np.float64],
    recipe: Recipe,
    regions: Sequence[Region] = (),
    comparison: Comparison | None = None,
    warnings: Sequence[str] = (),
    *,
    tesla: float | None = None,
    theme: Theme = SCREEN,
    scale: int = 1,
) -> Image.Image:
    """The page, RGB, 1024 × scale pixels a side.

    affine: voxel index → patient RAS mm.  regions, warnings: those of the report.  tesla: the scanner's field.
    """
    sheet = Raster(theme, scale)
    _fill(sheet, maps, affine, recipe, regions, comparison, warnings, tesla)
    return sheet.image


def document(
    maps: Maps,
    affine: NDArray[np.float64],
    recipe: Recipe,
    regions: Sequence[Region],
    comparison: Comparison | None,
    warnings: Sequence[str],
    *,
    tesla: float | None,
    when: datetime.datetime,
) -> bytes:
    """The same as a PDF.  when: the job was made."""
    sheet = Document("QSM page", when)
    _fill(sheet, maps, affine, recipe, regions, comparison, warnings, tesla)
    return sheet.finish()


def _fill(
    sheet: Sheet,
    maps: Maps,
    affine: NDArray[np.float64],
    recipe: Recipe,
    regions: Sequence[Region],
    comparison: Comparison | None,
    warnings: Sequence[str],
    tesla: float | None,
) -> None:
    scene = Scene.of(maps, affine)
    _header(sheet, maps, affine, tesla)
    planes(sheet, scene, MARGIN, TOP, BOTTOM)
    told = rows(maps, regions)
    box = (TABLE, TOP - 16, RIGHT, BODY_BOTTOM)
    if told:
        besides = dict.fromkeys(
            name
            for name in (split(region.name)[0] for region in regions)
            if name not in (*told, WHOLE_BRAIN, maps.reference.name)
        )
        end = figures(sheet, told, list(besides), comparison, box)
        detail(sheet, scene, (TABLE, end + 14, RIGHT, BODY_BOTTOM))
    else:
        end = without(sheet, maps, regions, box)
        further(sheet, scene, (TABLE, end + 24, RIGHT, BODY_BOTTOM))
    _quality(sheet, maps, warnings)
    _footer(sheet, recipe)


def _header(sheet: Sheet, maps: Maps, affine: NDArray[np.float64], tesla: float | None) -> None:
    voxel = " × ".join(f"{size:.3g}" for size in maps.geometry.voxel_size)
    sheet.text((MARGIN, 52), "Quantitative susceptibility map", TITLE, weight="semibold")
    tilt = obliqueness(affine)
    told = [
        f"Susceptibility in ppb {zero(maps)}",
        f"voxels of {voxel} mm",
        *([f"{tesla:.2g} T"] if tesla else []),
        *([f"oblique by {tilt:.0f}°, shown in its own axes"] if tilt > OBLIQUE_DEGREES else []),
    ]
    sheet.text((MARGIN, 78), "  ·  ".join(told), BODY, colour=sheet.theme.faint)
    word, colour = GRADES[maps.grade]
    width = sheet.width(word, HEADING, "semibold") + 36
    sheet.pill((RIGHT - width, 28, RIGHT, 60), colour)
    sheet.text((RIGHT - width / 2, 50), word, HEADING, colour=(0, 0, 0), weight="semibold", anchor="ms")
    sheet.text((RIGHT, 78), "Quality of the map", SMALL, colour=sheet.theme.faint, anchor="rs")
    sheet.line((MARGIN, HEADER, RIGHT, HEADER))
    if sheet.theme is PAPER:  # a sheet of paper names nobody, and leaves room to
        sheet.box(LABEL, outline=sheet.theme.line)
        sheet.text((LABEL[0] + 8, LABEL[1] + 17), "Patient's label", SMALL, colour=sheet.theme.faint)


def _quality(sheet: Sheet, maps: Maps, warnings: Sequence[str]) -> None:
    """The figures in a line, then each ground for doubt and what else a reader has to know in one of its own."""
    sheet.line((MARGIN, QUALITY - 20, RIGHT, QUALITY - 20))
    sheet.text((MARGIN, QUALITY + 2), "Quality", HEADING, weight="semibold")
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
    left, width = MARGIN + 90, RIGHT - MARGIN - 90
    sheet.text((left, QUALITY), sheet.fit("  ·  ".join(told), SMALL, width), SMALL, colour=sheet.theme.faint)
    for line, words in enumerate(_doubts(sheet, maps, warnings, width), start=1):
        sheet.text((left, QUALITY + 2 + (LINE + 1) * line), sheet.fit(words, SMALL, width), SMALL)


def _doubts(sheet: Sheet, maps: Maps, warnings: Sequence[str], width: float) -> list[str]:
    """Grounds of the grade, worst first, and what else to know; as many lines as there is room for."""
    notes, grounds = list(_notes(maps, warnings)), list(maps.grounds)
    if maps.grade == "good":
        lost = "No ground for doubt in the map itself, but the nuclei were not found in it: is this the brain expected?"
        grounds.append(lost if withheld(maps) else "No ground for doubt was found.")
    room = QUALITY_LINES - bool(notes) if len(grounds) > 1 else QUALITY_LINES
    if len(grounds) > room:
        room = QUALITY_LINES - 1
        notes.append(f"{len(grounds) - room} more grounds in the report")
    shown = grounds[:room]
    left = QUALITY_LINES - len(shown)
    return [*shown, *(notes if len(notes) <= left else sheet.wrap("  ·  ".join(notes), SMALL, width, left))]


def _notes(maps: Maps, warnings: Sequence[str]) -> Iterator[str]:
    """What a reader of the figures has to know, and how much more the report tells."""
    if not maps.reference.mask.any():
        yield "The map has no reference: its zero is arbitrary"
    elif maps.reference.name == WHOLE_BRAIN:
        yield "Zero is the mean of the whole brain: not to be compared with maps that are relative to CSF"
    for warning in warnings:
        if warning.startswith(SAID):
            yield re.sub(r" \(.*?\)|;.*", "", warning[:1].upper() + warning[1:])
    if rest := sum(not warning.startswith((*SAID, *SHOWN)) for warning in warnings):
        yield f"{rest} {'warning' if rest == 1 else 'warnings'} more in the report"


def _footer(sheet: Sheet, recipe: Recipe) -> None:
    sheet.line((MARGIN, FOOTER - 24, RIGHT, FOOTER - 24))
    sheet.text((MARGIN, FOOTER), RESEARCH_ONLY, HEADING, weight="semibold")
    made_by = f"qsm-node {version('qsm-node')}  ·  SHA-256 {recipe.digest()[:12]}  ·  recipe {recipe.name}"
    sheet.text((RIGHT, FOOTER), sheet.fit(made_by, SMALL, 560), SMALL, colour=sheet.theme.faint, anchor="rs")
