"""FANSI's own: the voxel-wise step of its nonlinear problem."""

from __future__ import annotations

import numpy as np

from reconstruction.inversion.fansi import MU_FIELD, follow_signal
from reconstruction.noise import BEST_WEIGHT


def test_the_voxelwise_step_finds_the_least_cost_however_much_a_voxel_is_trusted() -> None:
    v = np.linspace(-6, 6, 101, dtype=np.float32)[:, None]
    W = np.linspace(0, BEST_WEIGHT, 9, dtype=np.float32)[None, :]
    phase = np.full(v.shape, 0.7, np.float32)

    def cost(z: np.ndarray) -> np.ndarray:
        return np.asarray(W * (1 - np.cos(z - phase)) + MU_FIELD / 2 * (z - v) ** 2)

    least = np.min([cost(np.full(v.shape, z)) for z in np.linspace(-7, 7, 1401)], axis=0)
    assert (cost(follow_signal(v + 0 * W, phase, W)) - least).max() < 0.02
