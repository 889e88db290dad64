"""MCPC-3D-S finds the phase at TE = 0, whatever wraps, holes and fat do."""

from __future__ import annotations

import numpy as np
import pytest

from reconstruction.offset.mcpc3ds import mcpc3ds, phase_offset
from reconstruction.offset.none import none
from tests.reconstruction.echoes import EVEN, UNEVEN, acquire, ball, geometry, smooth_offset, steep_field

SHAPE = (64, 64, 48)


def error(found: np.ndarray, truth: np.ndarray, where: np.ndarray) -> np.ndarray:
    return np.angle(np.exp(1j * (found - truth)))[where]


@pytest.mark.parametrize("echo_times", [EVEN, UNEVEN, (2.3e-3, 4.6e-3)])
def test_known_offset_is_found(echo_times: tuple[float, ...]) -> None:
    """The field peak of 150 Hz wraps between the echoes and must not show in φ₀."""
    inside = ball(SHAPE)
    phase, magnitude = acquire(inside, steep_field(SHAPE), echo_times, smooth_offset(SHAPE), snr=60)
    found = phase_offset(phase, magnitude, echo_times, geometry(SHAPE), 4.0)
    missed = error(found, smooth_offset(SHAPE), inside)
    assert np.sqrt(np.mean(missed**2)) < 0.03
    assert np.abs(missed).max() < 0.25


def test_phase_without_offset_goes_to_zero_at_te_zero() -> None:
    inside, field = ball(SHAPE), steep_field(SHAPE)
    phase, magnitude = acquire(inside, field, EVEN, smooth_offset(SHAPE), snr=60)
    corrected = mcpc3ds(phase, magnitude, EVEN, geometry(SHAPE))
    assert corrected.dtype == np.float32
    assert -np.pi <= corrected.min()
    assert corrected.max() <= np.float32(np.pi)
    for echo, time in enumerate(EVEN):
        left = error(corrected[echo], 2 * np.pi * field * time, inside)
        assert np.sqrt(np.mean(left**2)) < 0.06  # the phase noise of SNR 60 at the last echo is 0.03


def test_uneven_echoes_agree_even_when_the_whole_head_is_off_resonance() -> None:
    """130 Hz turn the echo difference by more than π; a wrong turn would leave the third echo in disagreement."""
    inside, field = ball(SHAPE), 130 + 0.3 * steep_field(SHAPE)
    phase, magnitude = acquire(inside, field, UNEVEN, smooth_offset(SHAPE), snr=60)
    corrected = mcpc3ds(phase, magnitude, UNEVEN, geometry(SHAPE))
    for echo, time in enumerate(UNEVEN):
        left = error(corrected[echo], 2 * np.pi * field * time, inside)
        assert np.sqrt(np.mean(left**2)) < 0.06


def test_holes_and_a_bright_fat_shell_do_not_bend_the_offset() -> None:
    """A dark hole, a dark gap and a thin bright shell 420 Hz away: the head, in short."""
    outer, skull, brain = ball(SHAPE, 0.98), ball(SHAPE, 0.88), ball(SHAPE, 0.84)
    hole = np.roll(ball(SHAPE, 0.15), 8, axis=0)
    amplitude = np.where(brain & ~hole, 1.0, 0.0) + np.where(outer & ~skull, 4.0, 0.0)
    field = np.where(outer & ~skull, -420.0, 0.0) + steep_field(SHAPE)
    phase, magnitude = acquire(amplitude, field, EVEN, smooth_offset(SHAPE), snr=60)
    found = phase_offset(phase, magnitude, EVEN, geometry(SHAPE), 4.0)
    missed = np.abs(error(found, smooth_offset(SHAPE), brain & ~hole))
    assert np.percentile(missed, 99) < 0.05


def test_whole_turns_and_the_scale_of_magnitude_change_nothing() -> None:
    phase, magnitude = acquire(ball(SHAPE), steep_field(SHAPE), EVEN, smooth_offset(SHAPE), snr=60)
    turns = np.random.default_rng(1).integers(-2, 3, phase.shape).astype(np.float32) * np.float32(2 * np.pi)
    plain = mcpc3ds(phase, magnitude, EVEN, geometry(SHAPE))
    turned = mcpc3ds(phase + turns, magnitude * np.float32(1000), EVEN, geometry(SHAPE))
    assert np.abs(error(turned, plain, np.broadcast_to(ball(SHAPE), plain.shape))).max() < 1e-3


def test_a_single_echo_and_no_method_leave_the_phase_alone() -> None:
    phase, magnitude = acquire(ball(SHAPE), steep_field(SHAPE), (20e-3,), smooth_offset(SHAPE), snr=60)
    assert mcpc3ds(phase, magnitude, (20e-3,), geometry(SHAPE)) is phase
    assert none(phase, magnitude, (20e-3,), geometry(SHAPE)) is phase


def test_an_empty_acquisition_gives_numbers() -> None:
    empty = np.zeros((2, 8, 8, 8), np.float32)
    assert np.isfinite(mcpc3ds(empty, empty, (4e-3, 8e-3), geometry((8, 8, 8)))).all()
