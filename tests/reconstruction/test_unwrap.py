"""ROMEO's unwrapped phase is the wrapped one plus whole turns, and follows the field through wraps and holes."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconstruction.region_growing import edge_costs, grow, voxel_quality
from reconstruction.unwrap.romeo import romeo
from tests.reconstruction.echoes import EVEN, UNEVEN, acquire, ball, geometry, grid, steep_field

SHAPE = (48, 48, 40)
TURN = np.float32(2 * np.pi)


def whole_turns(difference: np.ndarray) -> bool:
    return bool(np.abs(difference - TURN * np.rint(difference / TURN)).max() < 1e-3)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_costs_of_a_line_of_voxels_by_hand(axis: int) -> None:
    """Phase, gradient and magnitude coherence and linearity, each w as 0.1 + 0.9 w, and the dark end's weight.

    The first edge: 1 − 0.2/π, 1 − |0.2 − 0.3/2|, 1, 1 − 0.6/2π and 1 make 0.8229.
    The second: 1 − 0.8/π, 1 − |0.8 − 1.8/2|, (50/100)², 1 − (0.6 + 0.5)/2π and 1 make 0.1920.
    The third: 1 − 0.3/π, 1 − |0.3 − 0.2/2|, (25/50)², 1 − 0.5/2π and 0.75 make 0.1696.
    """
    values = np.array([[0, 0.2, 1.0, 1.3], [0, 0.3, 2.1, 2.3], [100, 100, 50, 25]], np.float32)
    phase, later, magnitude = np.moveaxis(values.reshape(3, 4, 1, 1), 1, 1 + axis)
    costs = edge_costs(_wrapped(phase + 2.5), magnitude, np.ones(phase.shape, bool), _wrapped(later + 3), 0.5)
    # 255 (1 − w), rounded, and no edge beyond the last voxel
    np.testing.assert_array_equal(costs[..., axis].ravel(), [45, 206, 212, 0])
    assert not np.delete(costs, axis, axis=3).any()


def _wrapped(phase: np.ndarray) -> np.ndarray:
    return np.angle(np.exp(1j * phase)).astype(np.float32)


@pytest.mark.parametrize("echo_times", [EVEN, UNEVEN, (6e-3, 25e-3), (20e-3,)])
@pytest.mark.parametrize("temporal", [True, False])
def test_known_field_is_recovered(echo_times: tuple[float, ...], temporal: bool) -> None:
    inside, field = ball(SHAPE), steep_field(SHAPE)
    phase, magnitude = acquire(inside, field, echo_times, snr=80)
    unwrapped = romeo(phase.copy(), magnitude, echo_times, inside, geometry(SHAPE), temporal=temporal)
    for echo, time in enumerate(echo_times):
        error = (unwrapped[echo] - 2 * np.pi * field * time)[inside]
        assert np.mean(np.abs(error) > np.pi) < 1e-3
        assert whole_turns((unwrapped[echo] - phase[echo])[inside])
    assert not unwrapped[:, ~inside].any()


@given(st.integers(0, 2**32 - 1), st.integers(1, 3))
@settings(max_examples=25, deadline=None)
def test_congruent_even_in_pure_noise(seed: int, echoes: int) -> None:
    random = np.random.default_rng(seed)
    shape = tuple(random.integers(1, 7, 3))
    phase = random.uniform(-np.pi, np.pi, (echoes, *shape)).astype(np.float32)
    magnitude = random.choice([0.0, 1.0], (echoes, *shape)).astype(np.float32)
    mask = random.random(shape) < 0.7
    unwrapped = romeo(phase.copy(), magnitude, EVEN[:echoes], mask, geometry(shape))
    assert np.isfinite(unwrapped).all()
    assert whole_turns(np.where(mask, unwrapped - phase, 0))


def test_whole_turns_threads_and_magnitude_scale_change_nothing() -> None:
    inside = ball(SHAPE)
    phase, magnitude = acquire(inside, steep_field(SHAPE), EVEN, snr=40)
    first = romeo(phase.copy(), magnitude, EVEN, inside, geometry(SHAPE))
    turned = romeo(phase + 3 * TURN, magnitude * np.float32(1e4), EVEN, inside, geometry(SHAPE))
    np.testing.assert_allclose(turned, first, atol=1e-4)
    threads = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        alone = romeo(phase.copy(), magnitude, EVEN, inside, geometry(SHAPE))
    finally:
        numba.set_num_threads(threads)
    np.testing.assert_array_equal(alone, first)


def test_an_open_ended_fringe_line_is_walked_around() -> None:
    """A phase vortex: no unwrapping is free of a jump, but it needs no more than one cut from the axis to the rim."""
    x, y, z = grid(SHAPE)
    vortex = np.arctan2(y - 0.3, x - 0.1)
    phase = np.angle(np.exp(1j * (vortex + 6 * z))).astype(np.float32)
    magnitude = np.clip(np.hypot(x - 0.1, y - 0.3) * 4, 0.05, 1).astype(np.float32)
    inside = ball(SHAPE)
    unwrapped, _ = grow(phase, edge_costs(phase, magnitude, inside), inside)
    broken = 0
    for axis in range(3):
        step = np.abs(np.diff(unwrapped, axis=axis))
        both = np.take(inside, range(1, SHAPE[axis]), axis) & np.take(inside, range(SHAPE[axis] - 1), axis)
        broken += int((both & (step > np.pi)).sum())
    one_sheet = SHAPE[0] // 2 * SHAPE[2]  # voxels from the axis to the rim, times height
    assert broken < 1.5 * one_sheet


def test_regions_apart_each_come_near_zero() -> None:
    x, _, _ = grid(SHAPE)
    mask = ball(SHAPE) & (np.abs(x) > 0.1)
    phase, magnitude = acquire(mask, 30 * x, (10e-3,), snr=80)
    unwrapped, region = grow(phase[0], edge_costs(phase[0], magnitude[0], mask), mask)
    assert region.max() == 2
    assert not region[~mask].any()
    for number in (1, 2):
        assert abs(np.median(unwrapped[region == number])) <= np.pi


@pytest.mark.parametrize("temporal", [True, False])
def test_second_echo_fixes_the_turns_of_the_whole_first_echo(temporal: bool) -> None:
    """A whole head 150 Hz off: at 4 ms the nearest median is wrong, and the echo at 10 ms tells.  The later ones' turns
    follow from it, however they were unwrapped."""
    inside = ball(SHAPE)
    field = 150 + 0.2 * steep_field(SHAPE)
    phase, magnitude = acquire(inside, field, EVEN, snr=80)
    unwrapped = romeo(phase.copy(), magnitude, EVEN, inside, geometry(SHAPE), temporal=temporal)
    assert np.abs(unwrapped[-1] - 2 * np.pi * field * EVEN[-1])[inside].max() < 1


def test_quality_tells_signal_from_noise() -> None:
    inside = ball(SHAPE, 0.7)
    phase, magnitude = acquire(inside, steep_field(SHAPE), EVEN, snr=40)
    everywhere = np.ones(SHAPE, bool)
    quality = voxel_quality(phase[0], magnitude[0], everywhere, phase[1], EVEN[0] / EVEN[1])
    assert quality.min() >= 0
    assert quality.max() <= 1
    assert np.percentile(quality[ball(SHAPE, 0.6)], 1) > np.percentile(quality[~ball(SHAPE, 0.8)], 99)


def test_real_brain(romeo_brain: Path) -> None:
    """Three echoes of a real brain block: congruent, smooth, and linear in time in nearly all voxels."""
    folder = romeo_brain / "small"
    phase, magnitude = (
        np.ascontiguousarray(np.moveaxis(np.asarray(nibabel.load(path).dataobj.get_unscaled(), np.float32), -1, 0))
        for path in (next(folder.glob("*hase.nii*")), next(folder.glob("*ag.nii*")))
    )
    mask = magnitude[0] > 0.2 * np.percentile(magnitude[0], 98)
    times = (4e-3, 8e-3, 12e-3)
    unwrapped = romeo(phase.copy(), magnitude, times, mask, geometry(mask.shape), temporal=False)
    assert whole_turns((unwrapped - phase)[:, mask])
    for echo in unwrapped:
        for axis in range(3):
            both = np.take(mask, range(1, mask.shape[axis]), axis) & np.take(mask, range(mask.shape[axis] - 1), axis)
            assert np.mean(np.abs(np.diff(echo, axis=axis))[both] > np.pi) < 0.01
