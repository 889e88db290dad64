"""The plain head is what it says: even tissue, and phase that follows its field."""

from __future__ import annotations

import numpy as np

from tests.simulation.ellipsoids import NUCLEI, simulate_ellipsoids
from tests.simulation.head import about_x

TIMES = (4e-3, 9e-3)


def test_phase_follows_the_field() -> None:
    head = simulate_ellipsoids((44, 54, 42), (4.0, 4.0, 4.0), TIMES, 123.2e6, np.inf, about_x(20), seed=3)
    turns = 123.2 * head.field * (TIMES[1] - TIMES[0])
    measured = head.acquisition.phase[1] - head.acquisition.phase[0]
    miss = np.angle(np.exp(1j * (measured - 2 * np.pi * turns)))[head.brain_mask]
    assert np.abs(miss).max() < 1e-3
    assert not (head.brain_mask & ~head.inside_skull).any()


def test_nuclei_are_even_and_alike_on_both_sides() -> None:
    head = simulate_ellipsoids((44, 54, 42), (4.0, 4.0, 4.0), TIMES, 123.2e6, 60.0, seed=4)
    for name in NUCLEI:
        left, right = (head.chi[head.labels[f"{name}_{side}"]] for side in ("left", "right"))
        assert left.size
        assert right.size
        assert np.ptp(np.concatenate([left, right])) == 0
