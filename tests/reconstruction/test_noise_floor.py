"""R2* where the late echoes are noise: an iron-rich nucleus at 7 T, a bleed."""

from __future__ import annotations

import numpy as np
import pytest

from reconstruction.acquisition import FloatArray
from reconstruction.relaxation._floor import noise_power
from reconstruction.relaxation.arlo import arlo
from reconstruction.relaxation.loglinear import R2STAR_CEILING, loglinear
from reconstruction.relaxation.nonlinear import nonlinear
from tests.reconstruction.echoes import acquire

SHAPE = (24, 24, 24)
EVERYWHERE = np.ones(SHAPE, bool)
TRAIN = (4e-3, 10e-3, 16e-3, 22e-3, 28e-3)
SIGMA = 1 / 30


def decayed(r2star: float, snr: float = 1 / SIGMA) -> FloatArray:
    return acquire(np.ones(SHAPE), np.zeros(SHAPE), TRAIN, r2star=r2star, snr=snr)[1]


@pytest.mark.parametrize("r2star", [5.0, 25.0, 60.0])
def test_the_floor_is_known_where_there_is_signal(r2star: float) -> None:
    assert noise_power(decayed(r2star), EVERYWHERE) == pytest.approx(2 * SIGMA**2, rel=0.06)


def test_no_mask_has_no_floor() -> None:
    assert noise_power(decayed(25.0), ~EVERYWHERE) == 0


@pytest.mark.parametrize(("r2star", "within"), [(25.0, 0.2), (60.0, 0.6), (120.0, 3.0)])
def test_nonlinear_fit_is_not_pulled_down(r2star: float, within: float) -> None:
    found = nonlinear(decayed(r2star), TRAIN, EVERYWHERE)
    assert found is not None
    assert found.mean() == pytest.approx(r2star, abs=within)


def test_each_method_gains_by_the_correction() -> None:
    """Against the same fit told of a noise of zero, which noiseless voxels in the block's place bring about."""
    noisy, clean = decayed(120.0), decayed(120.0, np.inf)
    together = np.concatenate([np.repeat(clean, 4, axis=1), noisy], axis=1)
    mask = np.ones(together.shape[1:], bool)
    assert noise_power(together, mask) < 1e-6
    for fit in (arlo, loglinear):
        corrected, plain = fit(noisy, TRAIN, EVERYWHERE), fit(together, TRAIN, mask)
        assert corrected is not None
        assert plain is not None
        assert abs(corrected.mean() - 120) < 0.8 * abs(plain[-SHAPE[0] :].mean() - 120)


def test_noise_alone_is_said_to_decay_faster_than_can_be_seen() -> None:
    """Not slower: what decays slowly would be taken for fluid."""
    magnitude = decayed(25.0)
    magnitude[:, 0] = 0.5 * SIGMA
    found = nonlinear(magnitude, TRAIN, EVERYWHERE)
    assert found is not None
    assert (found[0] == R2STAR_CEILING).all()
