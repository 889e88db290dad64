"""What cannot be believed is left out; what is merely noisy is not."""

from __future__ import annotations

import numpy as np

from reconstruction.reliability import reliable
from tests.reconstruction.echoes import ball

SHAPE = (16, 16, 16)


def test_noise_and_misfit_count_alike_and_iron_stays() -> None:
    mask = ball(SHAPE)
    residual, noise = mask.astype(np.float32), np.where(mask, 0.2, 0).astype(np.float32)
    noise[8, 8, 8] *= 20
    residual[8, 8, 4] = 20
    noise[8, 8, 10], residual[8, 8, 10] = 0.5, 1.5  # short T2* in an iron-rich nucleus
    kept = reliable(residual, noise, mask)
    assert not kept[~mask].any()
    assert set(map(tuple, np.argwhere(mask & ~kept))) == {(8, 8, 8), (8, 8, 4)}
    assert np.array_equal(reliable(residual, noise * np.float32(1e-3), mask), kept)


def test_a_small_residual_makes_no_noise_good() -> None:
    mask = ball(SHAPE)
    noise = np.where(mask, 0.2, 0).astype(np.float32)
    noise[8, 8, 8] = 3
    residual = mask.astype(np.float32)
    residual[8, 8, 8] = 0.01
    assert not reliable(residual, noise, mask)[8, 8, 8]


def test_an_empty_mask_stays_empty() -> None:
    empty = np.zeros(SHAPE, np.float32)
    assert not reliable(empty, empty, empty > 0).any()
