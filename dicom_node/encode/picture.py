"""Three planes of the susceptibility map above the same planes of the magnitude: one look tells whether it went well.

Radiological convention: the patient's right is at the picture's left in axial and coronal planes, anterior is at the
left in the sagittal one.  No name, no number of a patient is in the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from dicom_node.encode.identity import RESEARCH_ONLY
from dicom_node.encode.quantity import QSM, values, zero
from reconstruction import Maps, Recipe

PIXELS_PER_MM = 2.5
MARGIN_MM = 12.0
"""Shown around the brain."""

GAP = 14
HEADING = 58
FOOTER = 34
BAR = 96
"""Pixels: space between planes, above them, below them, and at the right for the colour bar."""

INK, FAINT, PAPER = 235, 150, 0
"""Grey levels of text, secondary text and ground."""

MAGNITUDE_QUANTILES = (0.01, 0.995)
"""The magnitude is shown between these quantiles of the volume: a bright vessel must not darken the rest."""


@dataclass(frozen=True)
class Plane:
    """A plane of a volume in RAS axes: the axis across it, those along the picture's rows and columns, edge letters."""

    name: str
    across: int
    left: str
    right: str
    top: str
    bottom: str


PLANES = (
    Plane("axial", 2, "R", "L", "A", "P"),
    Plane("coronal", 1, "R", "L", "H", "F"),
    Plane("sagittal", 0, "A", "P", "H", "F"),
)


def draw(maps: Maps, affine: NDArray[np.float64], recipe: Recipe) -> Image.Image:
    """The picture, 8 bit grey.  affine: voxel index → patient RAS mm; oblique scans are shown in their nearest axes."""
    axes = nib.io_orientation(affine)
    low, high = QSM.window
    # Black outside the mask: there is no value there, and 0 ppb is one.
    volumes = (np.where(maps.mask, values(maps, QSM), low), maps.magnitude, maps.brain_mask | maps.mask)
    chi, magnitude, brain = (np.asarray(nib.apply_orientation(volume, axes)) for volume in volumes)
    size = _voxel_size(maps, axes)
    field_of_view = _around(brain, size)
    chi, magnitude = chi[field_of_view], magnitude[field_of_view]
    at = tuple(length // 2 for length in chi.shape)
    rows = (
        [_tile(_slice(chi, plane, at), plane, size, low, high) for plane in PLANES],
        [_tile(_slice(magnitude, plane, at), plane, size, *_levels(magnitude)) for plane in PLANES],
    )
    return _compose(rows, zero(maps), recipe)


def _voxel_size(maps: Maps, axes: NDArray[np.float64]) -> tuple[float, float, float]:
    """mm along the RAS axes: axes[i, 0] is the RAS axis that array axis i runs along."""
    size = [0.0, 0.0, 0.0]
    for array_axis, (ras_axis, _) in enumerate(axes):
        size[int(ras_axis)] = maps.geometry.voxel_size[array_axis]
    return (size[0], size[1], size[2])


def _around(brain: NDArray[np.bool_], size: tuple[float, float, float]) -> tuple[slice, ...]:
    """The extent of the brain with a margin, or of the volume where no brain was found."""
    found = np.argwhere(brain if brain.any() else np.ones_like(brain))
    margin = np.ceil(MARGIN_MM / np.asarray(size)).astype(int)
    low, high = np.maximum(found.min(axis=0) - margin, 0), found.max(axis=0) + margin + 1
    return tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))


def _slice(volume: NDArray[np.floating], plane: Plane, at: Sequence[int]) -> NDArray[np.float32]:
    """Rows from the top, columns from the left: RAS indices grow to right, anterior and head, the picture's against."""
    cut = np.take(volume, at[plane.across], axis=plane.across)
    return np.asarray(cut.T[::-1, ::-1], np.float32)


def _levels(magnitude: NDArray[np.float32]) -> tuple[float, float]:
    low, high = np.quantile(magnitude, MAGNITUDE_QUANTILES)
    return float(low), float(max(high, low + np.finfo(np.float32).tiny))


def _tile(
    cut: NDArray[np.float32], plane: Plane, size: tuple[float, float, float], low: float, high: float
) -> Image.Image:
    """A plane as a picture in millimetres × PIXELS_PER_MM, with its letters."""
    across, along = (s for axis, s in enumerate(size) if axis != plane.across)
    grey = np.clip((cut - low) / (high - low), 0, 1) * 255
    shape = (round(cut.shape[1] * across * PIXELS_PER_MM), round(cut.shape[0] * along * PIXELS_PER_MM))
    tile = Image.fromarray(grey.astype(np.uint8)).resize(shape, Image.Resampling.BICUBIC)
    _letters(tile, plane)
    return tile


def _letters(tile: Image.Image, plane: Plane) -> None:
    draw_ = ImageDraw.Draw(tile)
    width, height = tile.size
    for letter, where, anchor in (
        (plane.left, (6, height // 2), "lm"),
        (plane.right, (width - 6, height // 2), "rm"),
        (plane.top, (width // 2, 6), "mt"),
        (plane.bottom, (width // 2, height - 6), "mb"),
    ):
        draw_.text(where, letter, INK, _font(16), anchor, stroke_width=2, stroke_fill=PAPER)


def _compose(rows: Sequence[Sequence[Image.Image]], relative: str, recipe: Recipe) -> Image.Image:
    width = sum(tile.width for tile in rows[0]) + GAP * (len(PLANES) + 1) + BAR
    heights = [max(tile.height for tile in row) for row in rows]
    page = Image.new("L", (width, HEADING + sum(heights) + GAP * len(rows) + FOOTER), PAPER)
    draw_ = ImageDraw.Draw(page)
    draw_.text((GAP, 10), "Quantitative susceptibility map", INK, _font(22))
    draw_.text((GAP, 38), f"ppb {relative}; magnitude below", FAINT, _font(14))
    draw_.text((width - GAP, 10), RESEARCH_ONLY, INK, _font(16), "ra")
    top = HEADING
    for row, height in zip(rows, heights, strict=True):
        left = GAP
        for tile in row:
            page.paste(tile, (left, top + (height - tile.height) // 2))
            left += tile.width + GAP
        top += height + GAP
    _bar(page, width - BAR, HEADING, heights[0])
    draw_.text(
        (GAP, page.height - GAP), f"qsm-node {version('qsm-node')}, recipe {recipe.name}", FAINT, _font(12), "ls"
    )
    return page


def _bar(page: Image.Image, left: int, top: int, height: int) -> None:
    """The grey scale of the map with its values in ppb."""
    low, high = QSM.window
    wedge = np.linspace(255, 0, height).astype(np.uint8)
    page.paste(Image.fromarray(np.repeat(wedge[:, None], 18, axis=1)), (left, top))
    draw_ = ImageDraw.Draw(page)
    draw_.rectangle((left, top, left + 17, top + height - 1), outline=FAINT)
    for value in range(low, high + 1, 50):
        y = top + round((high - value) / (high - low) * (height - 1))
        draw_.line((left + 18, y, left + 23, y), FAINT)
        draw_.text((left + 28, y), f"{value:+d}" if value else "0", INK, _font(14), "lm")
    draw_.text((left, top + height + 4), "ppb", FAINT, _font(14))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font: the picture looks the same on every machine."""
    return ImageFont.load_default(size)
