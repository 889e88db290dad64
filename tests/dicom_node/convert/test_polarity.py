from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_node.convert.polarity import RESEMBLANCE, alternates, correlation, turn_every_second
from tests.simulation.scenes import thin_head

AXES = pytest.mark.parametrize("axis", [0, 1, 2])


def head() -> tuple[np.ndarray, np.ndarray]:
    acquisition = thin_head().acquisition
    return acquisition.magnitude, acquisition.phase.copy()


@AXES
def test_a_head_resembles_itself_until_it_alternates(axis: int):
    magnitude, phase = head()
    before = correlation(magnitude, phase, axis)
    assert before > 0.7
    turn_every_second(phase, axis)
    assert correlation(magnitude, phase, axis) == pytest.approx(-before, abs=1e-5)
    assert alternates(magnitude, phase, axis)


@AXES
def test_turning_twice_changes_nothing(axis: int):
    _, phase = head()
    once = phase.copy()
    turn_every_second(once, axis)
    assert np.abs(once).max() <= np.pi * (1 + 1e-6)
    difference = np.moveaxis(np.angle(np.exp(1j * (once - phase))), axis + 1, 0)
    np.testing.assert_allclose(difference[0::2], 0, atol=1e-6)
    np.testing.assert_allclose(np.abs(difference[1::2]), np.pi, atol=1e-5)
    turn_every_second(once, axis)
    np.testing.assert_allclose(np.exp(1j * once), np.exp(1j * phase), atol=1e-5)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_noise_is_left_alone(seed: int):
    random = np.random.default_rng(seed)
    phase = random.uniform(-np.pi, np.pi, (2, 12, 12, 8)).astype(np.float32)
    magnitude = random.uniform(0, 1, phase.shape).astype(np.float32)
    assert abs(correlation(magnitude, phase, 2)) < RESEMBLANCE
    assert not alternates(magnitude, phase, 2)


def test_no_signal_and_a_single_plane_correlate_with_nothing():
    zeros = np.zeros((1, 4, 4, 3), np.float32)
    assert correlation(zeros, zeros, 2) == 0
    assert correlation(zeros[..., :1] + 1, zeros[..., :1], 2) == 0
