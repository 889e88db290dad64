"""V-SHARP: where a harmonic field's mean over a sphere is its value at the middle, what differs from it is local.

Wu 2012, doi:10.1002/mrm.23000; Schweser 2011 (SHARP), doi:10.1016/j.neuroimage.2010.10.070.  Every voxel uses the
largest sphere that fits into the brain round it; voxels closer to the surface than the smallest are lost.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from array_api_compat import array_namespace

from reconstruction import distance, fourier
from reconstruction.acquisition import BoolArray, FloatArray, Geometry
from reconstruction.arrays import like, to_numpy
from reconstruction.fourier import Shape, Window
from reconstruction.sphere import transfer_function
from reconstruction.stage import Millimetres, Range, Share


def vsharp(
    field: FloatArray,
    noise: FloatArray,
    mask: BoolArray,
    geometry: Geometry,
    *,
    max_radius_mm: Millimetres = 12.0,
    min_radius_mm: Millimetres = 2.0,
    radii: Annotated[int, Range(1, 100)] = 6,
    threshold: Share = 0.05,
) -> tuple[FloatArray, BoolArray]:
    """field: ppm, float32 (x, y, z).  mask: bool.  noise (ppm) tells only, by being inf, where field is unknown:
    such voxels are left out of the spheres (normalised convolution, Knutsson & Westin 1993,
    doi:10.1109/CVPR.1993.341081), and nothing is taken for local in them.

    max_radius_mm … min_radius_mm: the spheres' radii, `radii` of them.  threshold: of the deconvolution, relative.
    Returns the local field in ppm and the mask it is valid in: voxels with a sphere in the brain round them.
    """
    sizes = np.linspace(max(max_radius_mm, min_radius_mm), min_radius_mm, radii)
    sizes = np.maximum(sizes, max(geometry.voxel_size))
    xp = array_namespace(field)
    window = Window.around(mask, geometry.voxel_size, float(sizes[0]) + max(geometry.voxel_size))
    inside, known = window.cut(mask), window.cut(mask & xp.isfinite(noise))
    field_known = xp.where(known, window.cut(field), 0.0)
    spectrum = fourier.forward(field_known, window.shape)
    share_known = fourier.forward(xp.astype(known, xp.float32), window.shape)
    depth = window.cut(like(_depth(to_numpy(mask), geometry), field))

    difference = xp.zeros_like(field_known)
    done = xp.zeros_like(inside)
    largest = None
    for radius in sizes:
        here = inside & (depth > float(radius)) & ~done
        if not xp.any(here):
            continue
        sphere = transfer_function(window.shape, geometry.voxel_size, float(radius), field)
        largest = 1 - sphere if largest is None else largest
        done = done | here
        here = here & known
        total = fourier.inverse(sphere * spectrum, window.shape)
        share = fourier.inverse(sphere * share_known, window.shape)
        difference = xp.where(here, field_known - total / xp.where(here, share, 1.0), difference)
    if largest is None:
        return xp.zeros_like(field), xp.zeros_like(mask)
    local = _deconvolve(difference, largest, threshold)
    valid: BoolArray = window.paste(done)
    return xp.where(valid, window.paste(local), 0.0), valid


def _depth(mask: BoolArray, geometry: Geometry) -> FloatArray:
    """Distance to the nearest voxel outside the mask or outside the image, mm."""
    return np.ascontiguousarray(distance.depth(np.pad(mask, 1), geometry.voxel_size)[1:-1, 1:-1, 1:-1])


def _deconvolve(difference: FloatArray, transfer: FloatArray, threshold: float) -> FloatArray:
    """Truncated division by the transfer function δ − sphere."""
    xp = array_namespace(difference)
    steady = xp.abs(transfer) > threshold
    divided = fourier.forward(difference, _shape(difference))
    divided = xp.where(steady, divided / xp.where(steady, transfer, 1.0), 0.0)
    return fourier.inverse(divided, _shape(difference))


def _shape(volume: FloatArray) -> Shape:
    x, y, z = volume.shape
    return x, y, z
