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
from scipy import ndimage

from reconstruction import dipole, fourier
from reconstruction.acquisition import Acquisition, BoolArray, FloatArray, Geometry
from reconstruction.background.vsharp import vsharp
from reconstruction.intensity import even_intensity
from reconstruction.inversion.tkd import tkd
from reconstruction.region_growing import edge_costs, grow

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
        found = np.zeros(fine.shape, bool)
        for axis, (here, there) in enumerate(zip(self.geometry.voxel_size, fine.voxel_size, strict=True)):
            mask = mask.repeat(round(here / there), axis)
        found[tuple(slice(n) for n in mask.shape)] = mask
        return found


def preview(acquisition: Acquisition) -> Preview:
    """Takes about a second for 192 × 240 × 128 voxels and five echoes.  The mask is empty where nothing is thick."""
    fine = acquisition.geometry
    sx, sy, sz = (max(1, min(round(STEP_MM / v), n)) for v, n in zip(fine.voxel_size, fine.shape, strict=True))
    magnitude, products = _blocks(acquisition.magnitude, acquisition.phase, (sx, sy, sz))
    _, nx, ny, nz = magnitude.shape
    dx, dy, dz = fine.voxel_size
    geometry = Geometry((nx, ny, nz), (dx * sx, dy * sy, dz * sz), fine.b0_direction)
    image = even_intensity(magnitude, geometry)
    mask = _core(image > TISSUE, geometry)
    times = acquisition.echo_times
    spans = np.subtract(times[1:], times[0]) if len(times) > 1 else np.array(times)
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
def _blocks(
    magnitude: FloatArray, phase: FloatArray, steps: tuple[int, int, int]
) -> tuple[FloatArray, NDArray[np.complex64]]:
    """Means over blocks of voxels: of |Sₑ|, and of Sₑ S₁* for each later echo (of S₁ where it is the only one)."""
    echoes, nx, ny, nz = magnitude.shape
    bx, by, bz = nx // steps[0], ny // steps[1], nz // steps[2]
    means = np.zeros((echoes, bx, by, bz), np.float32)
    products = np.zeros((max(1, echoes - 1), bx, by, bz), np.complex64)
    share = np.float32(1 / (steps[0] * steps[1] * steps[2]))
    for i in prange(bx):
        for e in range(echoes):
            for x in range(i * steps[0], (i + 1) * steps[0]):
                for y in range(by * steps[1]):
                    for z in range(bz * steps[2]):
                        j, k = y // steps[1], z // steps[2]
                        m = magnitude[e, x, y, z]
                        means[e, i, j, k] += share * m
                        if e == 0 and echoes > 1:
                            continue
                        angle, worth = phase[e, x, y, z], share * m
                        if e > 0:
                            angle -= phase[0, x, y, z]
                            worth *= magnitude[0, x, y, z]
                        products[max(0, e - 1), i, j, k] += worth * complex(math.cos(angle), math.sin(angle))
    return means, products


def _core(tissue: BoolArray, geometry: Geometry) -> BoolArray:
    """The largest thick piece of tissue, without what hangs on by thin threads.  The picture's edge is no surface."""
    depth = _depth(tissue, geometry)
    reach = min(CORE_MM, 0.5 * float(depth.max()))
    if not reach > 0:
        return np.zeros_like(tissue)
    kept = _largest(depth > reach)
    kept = tissue & (_depth(~kept, geometry) <= reach)
    return np.asarray(ndimage.binary_fill_holes(_largest(kept)), bool)


def _depth(inside: BoolArray, geometry: Geometry) -> FloatArray:
    """mm to the nearest voxel outside; the picture's size where there is none."""
    if inside.all():
        return np.full(inside.shape, max(np.multiply(geometry.shape, geometry.voxel_size)), np.float32)
    return np.asarray(ndimage.distance_transform_edt(inside, sampling=geometry.voxel_size), np.float32)


def _largest(mask: BoolArray) -> BoolArray:
    pieces, count = ndimage.label(mask)
    return np.asarray(pieces == 1 + int(np.argmax(np.bincount(pieces.ravel())[1:])) if count else mask, bool)


def _field(
    products: NDArray[np.complex64], magnitude: FloatArray, spans: NDArray[np.float64], mask: BoolArray
) -> tuple[FloatArray, FloatArray]:
    """Hz, and the later echoes' misfit: the first span is unwrapped in space, the others follow it in time."""
    angles = np.angle(products).astype(np.float32)
    later, ratio = (angles[1], spans[0] / spans[1]) if len(spans) > 1 else (None, 1.0)
    costs = edge_costs(angles[0], np.sqrt(np.abs(products[0])).astype(np.float32), mask, later, ratio)
    first = grow(angles[0], costs, mask)[0][mask]
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
