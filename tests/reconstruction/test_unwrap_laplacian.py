"""Laplacian unwrapping follows the phase but for a harmonic function, on any voxels."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from reconstruction import Geometry, Recipe, quality, reconstruct
from reconstruction.combine.complex_fit import complex_fit
from reconstruction.unwrap.laplacian import laplacian
from tests.reconstruction.echoes import EVEN, acquire, ball, geometry, grid, steep_field
from tests.reconstruction.test_pipeline import default_recipe
from tests.simulation.scenes import small_head

SHAPE = (40, 40, 36)


def second_differences(volume: np.ndarray, voxel_size: tuple[float, float, float]) -> np.ndarray:
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


def test_wraps_are_gone() -> None:
    inside, field = ball(SHAPE), 0.4 * steep_field(SHAPE)
    phase, magnitude = acquire(inside, field, EVEN, snr=80)
    unwrapped = laplacian(phase, magnitude, EVEN, inside, geometry(SHAPE))
    for axis in range(3):
        both = np.take(inside, range(1, SHAPE[axis]), axis) & np.take(inside, range(SHAPE[axis] - 1), axis)
        assert np.abs(np.diff(unwrapped[-1], axis=axis))[both].max() < np.pi


def test_echoes_lie_on_one_line() -> None:
    """Their constants too, where the background makes the harmonic difference many radian wide."""
    inside, (x, y, z) = ball(SHAPE), grid(SHAPE)
    field = 0.4 * steep_field(SHAPE) + 100 * x * y + 150 * z + 80 * z * z
    phase, magnitude = acquire(inside, field, EVEN, snr=80)
    unwrapped = laplacian(phase, magnitude, EVEN, inside, geometry(SHAPE))
    with quality.ledger() as ledger:
        _, _, residual = complex_fit(unwrapped, magnitude, EVEN, inside)
    assert ledger.figures["combine.misfit"] < 1.5
    assert np.median(residual[ndimage.binary_erosion(inside, iterations=3)]) < 1.5


@pytest.mark.slow
def test_a_head_is_as_good_as_by_romeo() -> None:
    head = small_head()
    content = {stage: step for stage, step in default_recipe().items() if stage not in ("regions", "weighting")}
    nuclei = [label for label in head.labels.values() if label.sum() > 20]
    truth = np.array([head.chi[label].mean() for label in nuclei])
    errors = []
    for method in ("romeo", "laplacian"):
        maps = reconstruct(head.acquisition, Recipe.from_mapping(content | {"unwrap": {"method": method}}))
        assert maps.grade == "good", maps.grounds
        found = np.array([maps.chi[label & maps.mask].mean() for label in nuclei])
        errors.append((found - truth).std())
        assert np.polyfit(truth, found, 1)[0] == pytest.approx(1, abs=0.12)
    assert errors[1] < 1.3 * errors[0]


def test_constant_and_empty() -> None:
    inside = ball(SHAPE)
    magnitude = np.ones((1, *SHAPE), np.float32)
    phase = np.full((1, *SHAPE), 2.5, np.float32)
    np.testing.assert_allclose(laplacian(phase, magnitude, (0.01,), inside, geometry(SHAPE))[0][inside], 2.5, atol=1e-4)
    assert not laplacian(phase, magnitude, (0.01,), np.zeros_like(inside), geometry(SHAPE)).any()
