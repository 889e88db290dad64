"""Laplacian unwrapping follows the phase but for a harmonic function, on any voxels."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from reconstruction import Geometry
from reconstruction.acquisition import FloatArray
from reconstruction.unwrap.laplacian import laplacian
from tests.reconstruction.echoes import EVEN, acquire, ball, geometry, steep_field

SHAPE = (40, 40, 36)


def second_differences(volume: FloatArray, voxel_size: tuple[float, float, float]) -> FloatArray:
    steps = (np.roll(volume, -1, a) + np.roll(volume, 1, a) - 2 * volume for a in range(3))
    return np.asarray(sum(step / size**2 for step, size in zip(steps, voxel_size, strict=True)))


@pytest.mark.parametrize("voxel_size", [(2.0, 2.0, 2.0), (1.0, 1.5, 3.0)])
def test_differs_from_the_phase_by_a_harmonic_function(voxel_size: tuple[float, float, float]) -> None:
    inside, field = ball(SHAPE), 0.4 * steep_field(SHAPE)
    phase, magnitude = acquire(inside, field, EVEN)
    unwrapped = laplacian(phase, magnitude, EVEN, inside, Geometry(SHAPE, voxel_size, (0.0, 0.0, 1.0)))
    assert unwrapped.dtype == np.float32
    assert not unwrapped[:, ~inside].any()
    inner = ndimage.binary_erosion(inside, iterations=2)
    for echo, time in enumerate(EVEN):
        true = 2 * np.pi * field * time
        error = second_differences((unwrapped[echo] - true).astype(np.float64), voxel_size)
        scale = np.abs(second_differences(true, voxel_size)[inner]).max()
        assert np.abs(error[inner]).max() < 0.01 * scale


def test_wraps_are_gone_and_echoes_agree() -> None:
    inside, field = ball(SHAPE), 0.4 * steep_field(SHAPE)
    phase, magnitude = acquire(inside, field, EVEN, snr=80)
    unwrapped = laplacian(phase, magnitude, EVEN, inside, geometry(SHAPE))
    for axis in range(3):
        both = np.take(inside, range(1, SHAPE[axis]), axis) & np.take(inside, range(SHAPE[axis] - 1), axis)
        assert np.abs(np.diff(unwrapped[-1], axis=axis))[both].max() < np.pi
    slopes = unwrapped / np.array(EVEN)[:, None, None, None] / (2 * np.pi)
    assert np.abs(slopes[-1] - slopes[-2] - np.median((slopes[-1] - slopes[-2])[inside]))[inside].mean() < 5


def test_constant_and_empty() -> None:
    inside = ball(SHAPE)
    magnitude = np.ones((1, *SHAPE), np.float32)
    phase = np.full((1, *SHAPE), 2.5, np.float32)
    np.testing.assert_allclose(laplacian(phase, magnitude, (0.01,), inside, geometry(SHAPE))[0][inside], 2.5, atol=1e-4)
    assert not laplacian(phase, magnitude, (0.01,), np.zeros_like(inside), geometry(SHAPE)).any()
