"""Where the planes of a stack lie: their order, spacing, direction of the main field, and affine.

Patient coordinates are DICOM's (LPS, mm) unless a name says RAS.  The normal is row × column direction (PS3.3
C.7.6.2.1.1); slices are ordered along it, so that array axes (column, row, slice) always form a right-handed system.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dicom_node.convert.stack import DIRECTION_TOLERANCE, Orientation, Vector
from dicom_node.errors import NotConvertible

SPACING_TOLERANCE = 0.05
"""Share of the mean slice spacing by which single spacings may differ from it."""
_DECIMALS = 5
"""Of a spacing in mm (twice as many in the affine): two exports of one scan write positions
that differ in the 13th decimal, and must give the same grid."""

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def normal(orientation: Orientation) -> NDArray[np.float64]:
    """Unit normal of a plane.  Raises NotConvertible for directions that are not orthonormal."""
    row, column = np.asarray(orientation[:3], np.float64), np.asarray(orientation[3:], np.float64)
    lengths = float(row @ row), float(column @ column)
    if max(abs(lengths[0] - 1), abs(lengths[1] - 1), abs(float(row @ column))) > DIRECTION_TOLERANCE:
        raise NotConvertible(f"ImageOrientationPatient {orientation} is not two orthogonal unit vectors")
    across: NDArray[np.float64] = np.cross(row, column)
    across /= np.linalg.norm(across)
    return across


def slice_spacing(distances: Sequence[float]) -> float:
    """Spacing of ascending slice positions in mm.  Raises NotConvertible where they are not regular."""
    steps = np.diff(distances)
    if steps.size == 0:
        raise NotConvertible("the acquisition has a single slice; expected a volume of at least 2")
    spacing = float(steps.mean())
    worst = int(np.abs(steps - spacing).argmax())
    if abs(float(steps[worst]) - spacing) > SPACING_TOLERANCE * spacing:
        raise NotConvertible(
            f"slices are not regularly spaced: {steps[worst]:.3f} mm between slices {worst + 1} and {worst + 2}, "
            f"{spacing:.3f} mm on average; expected one spacing"
        )
    return round(spacing, _DECIMALS)


def b0_direction(orientation: Orientation) -> Vector:
    """The main field, along patient z, in array axes (column step, row step, slice)."""
    direction = np.array([orientation[2], orientation[5], normal(orientation)[2]])
    unit = direction / np.linalg.norm(direction)
    return float(unit[0]), float(unit[1]), float(unit[2])


def affine(
    orientation: Orientation, pixel_spacing: tuple[float, float], first: Vector, last: Vector, slices: int
) -> NDArray[np.float64]:
    """4×4: voxel (column, row, slice) → patient RAS in mm.

    pixel_spacing: (between rows, between columns).  first, last: ImagePositionPatient of the outer slices.
    """
    found = np.eye(4)
    found[:3, 0] = np.asarray(orientation[:3]) * pixel_spacing[1]
    found[:3, 1] = np.asarray(orientation[3:]) * pixel_spacing[0]
    found[:3, 2] = (np.asarray(last) - np.asarray(first)) / (slices - 1)
    found[:3, 3] = first
    ras: NDArray[np.float64] = np.round(_LPS_TO_RAS @ found, 2 * _DECIMALS)
    return ras
