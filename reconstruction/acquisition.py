"""What the physics is given: a multi-echo gradient-echo acquisition and its geometry.

Conventions, here and everywhere in this package:

- array axes are (x, y, z) = (column index, row index, slice index); an echo axis comes first;
- phase is in radian and follows φ = φ₀ + 2π Δf TE, so that paramagnetic tissue (iron) comes out positive;
- echo times are in seconds, lengths in mm, fields in Hz or ppm (the name or the docstring says which), χ in ppm;
- floating point arrays are float32.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reconstruction.errors import InvalidAcquisition

FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]

GYROMAGNETIC_RATIO = 42.577478518e6
"""Proton γ/2π in Hz/T (CODATA 2018)."""

AFFINE_TOLERANCE = 0.01
"""Share by which an affine's steps may differ from the voxel size: a drifting stack is longer than its slices are
apart, direction cosines are rounded."""

SMALLEST_MM, LARGEST_MM = 0.01, 50.0
"""A voxel's sides: smaller than microscopy's, or larger than any that still shows a brain, they are in another unit."""

Affine = tuple[tuple[float, float, float, float], ...]
"""The four rows of a 4×4 matrix."""


@dataclass(frozen=True)
class Geometry:
    """The grid of an acquisition.

    shape: voxels along x, y, z.  voxel_size: distance between voxel centres along x, y, z in mm.
    b0_direction: unit vector of the main field in array axes.
    affine: voxel index (x, y, z) → the patient's right, front, top (RAS) in mm; None where it is not known.
    """

    shape: tuple[int, int, int]
    voxel_size: tuple[float, float, float]
    b0_direction: tuple[float, float, float]
    affine: Affine | None = None

    def __post_init__(self) -> None:
        if not _are(Integral, self.shape, 3) or min(self.shape) < 1:
            raise InvalidAcquisition(
                f"shape is {self.shape}; expected three positive whole numbers: give the array's columns, rows, slices"
            )
        if not _are(Real, self.voxel_size, 3) or not all(SMALLEST_MM <= s <= LARGEST_MM for s in self.voxel_size):
            raise InvalidAcquisition(
                f"voxel_size is {self.voxel_size}; expected three lengths from {SMALLEST_MM:g} to {LARGEST_MM:g} mm: "
                "give the distances between voxel centres in mm"
            )
        if not _are(Real, self.b0_direction, 3) or not abs(np.linalg.norm(self.b0_direction) - 1) < 1e-3:
            raise InvalidAcquisition(
                f"b0_direction is {self.b0_direction}; expected a unit vector in array axes: divide it by its length, "
                "or give (0, 0, 1) for slices across the main field"
            )
        if self.affine is not None:
            _require_affine(np.array(self.affine), self.voxel_size)

    @property
    def voxel_volume(self) -> float:
        """mm³."""
        return float(np.prod(self.voxel_size))


@dataclass(frozen=True, eq=False)
class Acquisition:
    """A 3D multi-echo gradient echo, magnitude and phase.

    magnitude, phase: float32 (echo, x, y, z), arbitrary unit, never negative, and radian.  echo_times: s, ascending.
    larmor_frequency: proton frequency of the scan in Hz (ImagingFrequency × 10⁶).
    mask: bool (x, y, z) where the site supplies its own brain mask, else None.
    """

    magnitude: FloatArray
    phase: FloatArray
    echo_times: tuple[float, ...]
    larmor_frequency: float
    geometry: Geometry
    mask: BoolArray | None = None

    def __post_init__(self) -> None:
        times = self.echo_times
        if not (
            _are(Real, times) and times[0] > 0 and times[-1] < 1 and all(a < b for a, b in itertools.pairwise(times))
        ):
            raise InvalidAcquisition(
                f"echo times are {times} s; expected ascending positive seconds below 1: sort the echoes by their "
                "time, and divide milliseconds by 1000"
            )
        expected = (len(times), *self.geometry.shape)
        _require("magnitude", self.magnitude, np.dtype(np.float32), expected)
        _require("phase", self.phase, np.dtype(np.float32), expected)
        if self.mask is not None:
            _require("mask", self.mask, np.dtype(np.bool_), self.geometry.shape)
        if self.magnitude.min() < 0:
            raise InvalidAcquisition(
                f"magnitude goes down to {self.magnitude.min():g}; expected 0 or more: give the absolute value of the "
                "complex signal, with its sign in the phase"
            )
        if not _are(Real, (self.larmor_frequency,)) or not 1e6 < self.larmor_frequency < 1e9:
            raise InvalidAcquisition(
                f"larmor_frequency is {self.larmor_frequency}; expected Hz (123.2e6 at 2.9 T): multiply MHz by 1e6"
            )

    @property
    def field_strength(self) -> float:
        """Tesla."""
        return self.larmor_frequency / GYROMAGNETIC_RATIO


def _are(kind: type, values: Any, count: int | None = None) -> bool:
    """Whether these are so many numbers of a kind; one or more where no count is given."""
    if not isinstance(values, tuple | list | np.ndarray) or len(values) != (count or max(1, len(values))):
        return False
    return all(isinstance(value, kind) and not isinstance(value, bool) for value in values)


def _require_affine(affine: NDArray[Any], voxel_size: tuple[float, float, float]) -> None:
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or tuple(affine[3]) != (0, 0, 0, 1):
        raise InvalidAcquisition(
            f"affine is {affine.tolist()}; expected four rows of four, the last one 0, 0, 0, 1: give the image's "
            "affine to RAS, or None"
        )
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if np.abs(lengths / voxel_size - 1).max() > AFFINE_TOLERANCE:
        raise InvalidAcquisition(
            f"affine has steps of {lengths.round(4).tolist()} mm; expected the voxel size {voxel_size}: give both of "
            "the same image, or no affine"
        )


def _require(name: str, array: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    if not isinstance(array, np.ndarray):
        raise InvalidAcquisition(f"{name} is {type(array).__name__}; expected a NumPy array: see numpy.asarray")
    if array.dtype != dtype:
        raise InvalidAcquisition(f"{name} is {array.dtype}; expected {dtype}: use {name}.astype(numpy.{dtype.name})")
    if array.shape != shape:
        raise InvalidAcquisition(
            f"{name} has the shape {array.shape}; expected {shape}, of the echo times and the geometry: order its axes "
            "as (echo, x, y, z), a mask's as (x, y, z)"
        )
    if dtype.kind == "f" and not np.isfinite([array.min(), array.max()]).all():  # both keep a NaN
        raise InvalidAcquisition(f"{name} holds NaN or infinity; expected finite numbers: set them to 0 first")
