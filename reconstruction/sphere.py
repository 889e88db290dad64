"""The mean over a sphere: a harmonic field's own value in the middle (Gauss), and so what tells it from a local one."""

from __future__ import annotations

import numpy as np
from array_api_compat import array_namespace

from reconstruction import fourier
from reconstruction.acquisition import BoolArray, FloatArray
from reconstruction.arrays import Array, like
from reconstruction.fourier import Shape

SUBSAMPLES = 5
"""Points along each edge of a voxel by which the share of it within a sphere is found."""

WHOLE = 0.999
"""Share of a sphere within a mask that counts as all of it."""


def transfer_function(shape: Shape, voxel_size: tuple[float, float, float], radius: float, of: Array) -> FloatArray:
    """The half spectrum of the mean over a ball of `radius` mm: real, since the ball is even.

    Each voxel counts by the share of it inside.  of: an array whose library and device it shall have.
    """
    fine = (np.arange(SUBSAMPLES) + 0.5) / SUBSAMPLES - 0.5
    squares = []
    for n, h in zip(shape, voxel_size, strict=True):
        reach = min(int(np.ceil(radius / h)) + 1, (n - 1) // 2)
        points = (np.arange(-reach, reach + 1)[:, None] + fine).ravel() * h
        squares.append(points**2)
    ball = (squares[0][:, None, None] + squares[1][None, :, None] + squares[2][None, None, :]) <= radius**2
    x, y, z = (s.size // SUBSAMPLES for s in squares)
    share = ball.reshape(x, SUBSAMPLES, y, SUBSAMPLES, z, SUBSAMPLES).mean(axis=(1, 3, 5))
    weights = np.zeros(shape, np.float32)
    weights[:x, :y, :z] = share / share.sum()
    weights = np.roll(weights, (-(x // 2), -(y // 2), -(z // 2)), axis=(0, 1, 2))
    transfer: FloatArray = array_namespace(of).real(fourier.forward(like(weights, of), shape))
    return transfer


def eroded(mask: BoolArray, sphere: FloatArray) -> BoolArray:
    """The voxels whose whole sphere lies in the mask.  sphere: from `transfer_function`, on the mask's grid."""
    xp = array_namespace(sphere)
    inner: BoolArray = mask & (fourier.apply(sphere, xp.astype(mask, xp.float32)) > WHOLE)
    return inner


def mean_of_known(volume: FloatArray, known: BoolArray, sphere: FloatArray) -> FloatArray:
    """The mean of the known voxels in the sphere round each voxel, 0 where there are none.

    Normalised convolution: Knutsson & Westin 1993, doi:10.1109/CVPR.1993.341081.
    """
    xp = array_namespace(sphere)
    total = fourier.apply(sphere, xp.where(known, volume, 0.0))
    share = fourier.apply(sphere, xp.astype(known, xp.float32))
    some = share > 1 - WHOLE
    mean: FloatArray = xp.where(some, total / xp.where(some, share, 1.0), 0.0)
    return mean
