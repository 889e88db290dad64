"""Cuts through a volume as a reader expects them: radiological convention, true aspect, letters at the edges.

The patient's right is at the picture's left in axial and coronal planes, anterior is at the left in the sagittal one.
Oblique scans are shown in their nearest axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

MARGIN_MM = 2.0
"""Shown around the brain."""

OBLIQUE_DEGREES = 2.0
"""Between an axis of the scan and the patient's: less is not worth a word."""


@dataclass(frozen=True)
class Plane:
    """A plane of a volume in RAS axes: the axis across it, what that axis goes towards and away from, edge letters."""

    name: str
    across: int
    towards: str
    away: str
    left: str
    right: str
    top: str
    bottom: str


AXIAL = Plane("axial", 2, "S", "I", "R", "L", "A", "P")
CORONAL = Plane("coronal", 1, "A", "P", "R", "L", "S", "I")
SAGITTAL = Plane("sagittal", 0, "R", "L", "A", "P", "S", "I")
PLANES = (AXIAL, CORONAL, SAGITTAL)


@dataclass(frozen=True, eq=False)
class View:
    """Turns arrays of one scan into RAS axes, cut to the brain.

    size: mm of a voxel along R, A, S.  affine: 4×4, voxel of what was turned and cut → patient RAS in mm.
    """

    axes: NDArray[np.float64]
    size: tuple[float, float, float]
    box: tuple[slice, ...]
    affine: NDArray[np.float64]

    @classmethod
    def of(cls, brain: NDArray[np.bool_], voxel_size: Sequence[float], affine: NDArray[np.float64]) -> View:
        """Around the brain with a margin, or of the whole volume where no brain was found.

        affine: 4×4, voxel index → patient RAS in mm.
        """
        axes = nib.io_orientation(affine)
        size = [0.0, 0.0, 0.0]
        for array_axis, (ras_axis, _) in enumerate(axes):
            size[int(ras_axis)] = voxel_size[array_axis]
        turned = np.asarray(nib.apply_orientation(brain, axes))
        planes = [np.asarray(turned.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
        first, last = (
            np.array([np.flatnonzero(held)[end] if held.any() else end % held.size for held in planes])
            for end in (0, -1)
        )
        margin = np.ceil(MARGIN_MM / np.asarray(size)).astype(int)
        low, high = np.maximum(first - margin, 0), last + margin + 1
        box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        start = np.eye(4)
        start[:3, 3] = low
        ras = np.asarray(affine @ nib.orientations.inv_ornt_aff(axes, brain.shape) @ start, np.float64)
        return cls(axes, (size[0], size[1], size[2]), box, ras)

    def turn(self, volume: NDArray[np.generic]) -> NDArray[np.generic]:
        """The volume in RAS axes, cut to the brain."""
        turned: NDArray[np.generic] = np.asarray(nib.apply_orientation(volume, self.axes))[self.box]
        return turned

    def extent(self, shape: Sequence[int], plane: Plane) -> tuple[float, float]:
        """Width and height of a plane in mm; shape: of a turned volume."""
        width, height = (
            n * s for axis, (n, s) in enumerate(zip(shape, self.size, strict=True)) if axis != plane.across
        )
        return width, height

    def position(self, plane: Plane, index: int, shape: Sequence[int]) -> float:
        """Where the middle of a plane lies, in mm towards `plane.towards` from the scanner's origin.

        shape: of a turned volume.
        """
        middle = [(n - 1) / 2 for n in shape]
        middle[plane.across] = index
        return float((self.affine @ [*middle, 1.0])[plane.across])


def cut(volume: NDArray[np.generic], plane: Plane, index: int) -> NDArray[np.generic]:
    """Rows from the top, columns from the left: RAS indices grow to right, anterior and head, the picture's against."""
    picture: NDArray[np.generic] = np.take(volume, index, axis=plane.across).T[::-1, ::-1]
    return picture


def grey(plane: NDArray[np.generic], low: float, high: float, size: tuple[int, int]) -> Image.Image:
    """A cut as an 8-bit picture of `size` pixels, black at `low` and white at `high`."""
    levels = np.clip((plane.astype(np.float64) - low) / (high - low), 0, 1) * 255
    return Image.fromarray(np.ascontiguousarray(levels.astype(np.uint8))).resize(size, Image.Resampling.BICUBIC)


def outline(plane: NDArray[np.bool_], size: tuple[int, int], width: int) -> NDArray[np.bool_]:
    """The rim of a region, `width` pixels wide, on a picture of `size` pixels; (rows, columns)."""
    smooth = Image.fromarray(np.ascontiguousarray(plane.astype(np.uint8) * 255)).resize(size, Image.Resampling.BICUBIC)
    inside = np.asarray(smooth) > 127
    core = inside
    for _ in range(width):
        padded = np.pad(core, 1)
        core = core & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.asarray(inside & ~core)


def obliqueness(affine: NDArray[np.float64]) -> float:
    """Degrees between the scan's axes and the patient's nearest ones, the largest of three.

    affine: 4×4, voxel index → patient RAS in mm.
    """
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return float(np.degrees(np.arccos(np.clip(np.abs(axes).max(axis=0).min(), 0, 1))))
