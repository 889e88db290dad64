"""R2* of a known decay, for every kind of echo train."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from reconstruction.acquisition import FloatArray
from reconstruction.relaxation.arlo import arlo
from reconstruction.relaxation.loglinear import R2STAR_CEILING, loglinear
from reconstruction.relaxation.nonlinear import nonlinear
from tests.reconstruction.echoes import EVEN, UNEVEN, acquire

METHODS = [arlo, loglinear, nonlinear]
Fit = Callable[..., FloatArray | None]
SHAPE = (20, 20, 16)
EVERYWHERE = np.ones(SHAPE, bool)


def decay(r2star: np.ndarray | float, echo_times: tuple[float, ...], snr: float = np.inf) -> FloatArray:
    return acquire(np.full(SHAPE, 300.0), np.zeros(SHAPE), echo_times, r2star=r2star, snr=snr)[1]


@pytest.mark.parametrize("fit", METHODS)
@pytest.mark.parametrize("echo_times", [(4e-3, 20e-3), EVEN, UNEVEN, (3e-3, 7e-3, 11e-3)])
def test_known_decay(fit: Fit, echo_times: tuple[float, ...]) -> None:
    """From CSF to the pallidum at 7 T; Simpson's rule is exact to a fraction of a per cent there."""
    truth = np.linspace(2, 90, EVERYWHERE.size).reshape(SHAPE)
    found = fit(decay(truth, echo_times), echo_times, EVERYWHERE)
    assert found is not None
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, truth, rtol=0.01, atol=0.01)


@pytest.mark.parametrize("fit", METHODS)
def test_unbiased_under_noise(fit: Fit) -> None:
    found = fit(decay(25.0, EVEN, snr=60 / 300), EVEN, EVERYWHERE)
    assert found is not None
    assert found.mean() == pytest.approx(25, abs=0.3)


@pytest.mark.parametrize("fit", METHODS)
def test_single_echo_has_none(fit: Fit) -> None:
    assert fit(decay(25.0, (20e-3,)), (20e-3,), EVERYWHERE) is None


@pytest.mark.parametrize("fit", METHODS)
@pytest.mark.parametrize("echo_times", [(4e-3, 20e-3), EVEN])
def test_every_signal_gives_a_physical_number(fit: Fit, echo_times: tuple[float, ...]) -> None:
    """Nothing, growth, an instant decay and noise."""
    random = np.random.default_rng(0)
    magnitude = random.random((len(echo_times), *SHAPE)).astype(np.float32)
    magnitude[:, 0] = 0
    magnitude[0, 1], magnitude[1:, 1] = 1, 0
    magnitude[0, 2], magnitude[1:, 2] = 0, 1
    mask = EVERYWHERE.copy()
    mask[-1] = False
    found = fit(magnitude, echo_times, mask)
    assert found is not None
    assert np.isfinite(found).all()
    assert found.min() >= 0
    assert found.max() <= R2STAR_CEILING
    assert not found[~mask].any()
    assert not found[0].any()


@pytest.mark.parametrize("fit", METHODS)
def test_scale_changes_nothing(fit: Fit) -> None:
    magnitude = decay(25.0, EVEN, snr=0.2)
    np.testing.assert_allclose(
        fit(magnitude * np.float32(1e-3), EVEN, EVERYWHERE), fit(magnitude, EVEN, EVERYWHERE), rtol=1e-4
    )


@pytest.mark.parametrize("fit", [loglinear, nonlinear])
def test_echoes_count_as_they_are_known(fit: Fit) -> None:
    """The spread of R2* is the least that any unbiased fit can have (Cramér and Rao), where late echoes are dark."""
    r2star, snr = 60.0, 100.0
    times = np.array(EVEN)
    found = fit(decay(r2star, EVEN, snr=snr / 300), EVEN, EVERYWHERE)
    assert found is not None
    decayed = np.exp(-times * r2star)
    slopes = np.stack([decayed, -times * decayed])  # of the signal over amplitude and R2*
    least = np.linalg.inv(slopes @ slopes.T)[1, 1] ** 0.5 / snr
    assert found.std() == pytest.approx(least, rel=0.06)
