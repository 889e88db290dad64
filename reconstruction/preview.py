"""A quick, coarse look at an acquisition: field and susceptibility on some 2 mm, good enough to judge a sign by.

Echoes are multiplied with the conjugate of the first before voxels are brought together, so that the receivers' offset
cancels and nothing is averaged over a jump from π to −π.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from reconstruction import dipole, fourier
from reconstruction.acquisition import Acquisition, BoolArray, FloatArray, Geometry
from reconstruction.background.vsharp import vsharp
from reconstruction.blocks import Steps, coarse, means, steps_of
from reconstruction.distance import depth
from reconstruction.intensity import even_intensity
from reconstruction.inversion.tkd import tkd
from reconstruction.pieces import largest_piece, without_holes
from reconstruction.region_growing import unwrapped_in_space

STEP_MM = 2.0
"""The grid looked at: half the width of the smallest structure that is looked for, a nucleus or a large vein."""

TISSUE, DARK = 0.4, 0.25
"""Parts of the local mean: soft tissue lies above the one, bone and air below the other (see `mask.brain`)."""

CORE_MM = 8.0
"""Half the thickness of what counts as brain; scalp, whose fat precesses 3.4 ppm away, is thinner."""

AIR_PPM = 9.4
"""χ of air against that of water (Schenck 1996, doi:10.1118/1.597854)."""

MARGIN_MM = 30.0
"""How far the head is continued beyond the picture, whose edge would else count as an edge of the head."""

RADII_MM, TRUNCATION = (9.0, 6.0), 0.2
"""Of the quick background removal and inversion.  Nearer to the surface than the smaller radius χ is often wrong, and
wrong with either sign."""


@dataclass(frozen=True, eq=False)
class Preview:
    """Volumes float32 (x, y, z) on the coarse grid of `geometry`.

    magnitude: (echo, x, y, z).  mask: brain, roughly.  field: ppm, total, 0 outside the mask.  misfit: radian, how far
    later echoes are from the line through the first two, (echoes − 2, voxels of the mask).  expected: ppm, the field
    that dark places would make were all of them air.  chi: ppm, valid in `inner`.
    """

    geometry: Geometry
    magnitude: FloatArray
    mask: BoolArray
    field: FloatArray
    misfit: FloatArray
    expected: FloatArray
    chi: FloatArray
    inner: BoolArray

    def on(self, fine: Geometry, mask: BoolArray) -> BoolArray:
        """A mask of the coarse grid on that of the acquisition."""
        for axis, (here, there) in enumerate(zip(self.geometry.voxel_size, fine.voxel_size, strict=True)):
            mask = mask.repeat(round(here / there), axis)
        nx, ny, nz = fine.shape
        return np.ascontiguousarray(mask[:nx, :ny, :nz])


def preview(acquisition: Acquisition) -> Preview:
    """Takes half a second for 256 × 256 × 128 voxels and five echoes.  The mask is empty where nothing is thick."""
    steps = steps_of(acquisition.geometry, STEP_MM)
    geometry = coarse(acquisition.geometry, steps)
    magnitude = np.stack([means(echo, steps) for echo in acquisition.magnitude])
    image = even_intensity(magnitude, geometry)
    mask = _core(image > TISSUE, geometry)
    times = acquisition.echo_times
    spans = np.subtract(times[1:], times[0]) if len(times) > 1 else np.array(times)
    products = _products(acquisition.magnitude, acquisition.phase, mask, steps)
    hz, misfit = _field(products, magnitude, spans, mask)
    field = hz / np.float32(acquisition.larmor_frequency * 1e-6)
    known = np.zeros_like(field)
    local, inner = (
        vsharp(field, known, mask, geometry, max_radius_mm=RADII_MM[0], min_radius_mm=RADII_MM[1], radii=3)
        if mask.any()
        else (known, mask)
    )
    chi = tkd(local, known, inner, image, geometry, threshold=TRUNCATION) if inner.any() else known
    expected = _field_of_air(image < DARK, geometry)
    return Preview(geometry, magnitude, mask, field, misfit, expected, chi, inner)


@njit(parallel=True, cache=True)
def _products(magnitude: FloatArray, phase: FloatArray, mask: BoolArray, steps: Steps) -> NDArray[np.complex64]:
    """Sums over the mask's blocks of Sₑ S₁* for each later echo (of S₁ where it is the only one), over a whole block's
    count."""
    echoes, nx, ny, nz = magnitude.shape
    bx, by, bz = mask.shape
    products = np.zeros((max(1, echoes - 1), bx, by, bz), np.complex64)
    share = np.float32(1 / (steps[0] * steps[1] * steps[2]))
    for i in prange(bx):
        for j in range(by):
            for k in range(bz):
                if not mask[i, j, k]:
                    continue
                for x in range(i * steps[0], min((i + 1) * steps[0], nx)):
                    for y in range(j * steps[1], min((j + 1) * steps[1], ny)):
                        for z in range(k * steps[2], min((k + 1) * steps[2], nz)):
                            first, angle = share * magnitude[0, x, y, z], phase[0, x, y, z]
                            if echoes == 1:
                                products[0, i, j, k] += first * complex(math.cos(angle), math.sin(angle))
                            for e in range(1, echoes):
                                turn, worth = phase[e, x, y, z] - angle, first * magnitude[e, x, y, z]
                                products[e - 1, i, j, k] += worth * complex(math.cos(turn), math.sin(turn))
    return products


def _core(tissue: BoolArray, geometry: Geometry) -> BoolArray:
    """The largest thick piece of tissue, without what hangs on by thin threads.  The picture's edge is no surface."""
    size = geometry.voxel_size
    thickness = depth(tissue, size)
    reach = min(CORE_MM, 0.5 * float(thickness.max()))
    if not reach > 0:
        return np.zeros_like(tissue)
    kept = largest_piece(thickness > reach)
    kept = tissue & (depth(~kept, size) <= reach)
    return without_holes(largest_piece(kept))


def _field(
    products: NDArray[np.complex64], magnitude: FloatArray, spans: NDArray[np.float64], mask: BoolArray
) -> tuple[FloatArray, FloatArray]:
    """Hz, and the later echoes' misfit: the first span is unwrapped in space, the others follow it in time."""
    angles = np.angle(products).astype(np.float32)
    later, ratio = (angles[1], spans[0] / spans[1]) if len(spans) > 1 else (None, 1.0)
    first = unwrapped_in_space(angles[0], np.sqrt(np.abs(products[0])), mask, later, ratio)[mask]
    weights = magnitude[-len(spans) :, mask] ** 2
    latest, before = first, spans[0]
    total, norm = weights[0] * first * spans[0], weights[0] * spans[0] ** 2
    misfit = np.zeros((len(spans) - 1, first.size), np.float32)
    for place, span in enumerate(spans[1:], start=1):
        predicted = latest * (span / before)
        misfit[place - 1] = _wrapped(angles[place][mask] - predicted)
        latest, before = predicted + misfit[place - 1], span
        total += weights[place] * latest * span
        norm += weights[place] * span**2
    field = np.zeros(mask.shape, np.float32)
    field[mask] = total / np.maximum(norm, np.finfo(np.float32).tiny) / (2 * np.pi)
    return field, misfit


def _wrapped(angle: FloatArray) -> FloatArray:
    return np.asarray(angle - 2 * np.pi * np.floor(angle / (2 * np.pi) + 0.5), np.float32)


def _field_of_air(dark: BoolArray, geometry: Geometry) -> FloatArray:
    """ppm: the field were everything dark air and all else water, the picture's rim continued outwards."""
    margins = [min(round(MARGIN_MM / v), n) for v, n in zip(geometry.voxel_size, geometry.shape, strict=True)]
    source = np.pad(dark.astype(np.float32), [(m, m) for m in margins], mode="edge")
    source -= source.mean()
    shape = fourier.fast_shape((source.shape[0], source.shape[1], source.shape[2]))
    padded = np.zeros(shape, np.float32)
    padded[: source.shape[0], : source.shape[1], : source.shape[2]] = AIR_PPM * source
    field = fourier.apply(dipole.kernel(shape, geometry.voxel_size, geometry.b0_direction), padded)
    return field[tuple(slice(m, m + n) for m, n in zip(margins, geometry.shape, strict=True))]
