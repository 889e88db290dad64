"""The fitted field is right, its noise map is the spread that repeated scans show, and its residual finds misfits."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numba
import numpy as np
import pytest

from reconstruction import quality
from reconstruction.acquisition import FloatArray
from reconstruction.combine.complex_fit import complex_fit
from reconstruction.combine.weighted_fit import weighted_fit
from tests.reconstruction.echoes import EVEN, UNEVEN, acquire, ball, steep_field

Fit = Callable[..., tuple[FloatArray, FloatArray, FloatArray]]
SHAPE = (24, 24, 20)
EVERYWHERE = np.ones(SHAPE, bool)
METHODS: list[Fit] = [complex_fit, weighted_fit, partial(weighted_fit, least_squares=False)]


def unwrapped_echoes(
    field: np.ndarray, echo_times: tuple[float, ...], snr: float, seed: int = 0, offset: float = 0.0
) -> tuple[FloatArray, FloatArray]:
    """Phase unwrapped by the truth, and magnitude."""
    phase, magnitude = acquire(np.ones(SHAPE), field, echo_times, offset=offset, snr=snr, seed=seed)
    for echo, time in enumerate(echo_times):
        truth = offset + 2 * np.pi * field * time
        phase[echo] += 2 * np.pi * np.rint((truth - phase[echo]) / (2 * np.pi))
    return phase, magnitude


@pytest.mark.parametrize("fit", METHODS)
@pytest.mark.parametrize("echo_times", [(20e-3,), (2.3e-3, 4.6e-3), UNEVEN, EVEN])
def test_known_field_is_found(fit: Fit, echo_times: tuple[float, ...]) -> None:
    field = steep_field(SHAPE)
    phase, magnitude = unwrapped_echoes(field, echo_times, snr=np.inf)
    found, noise, residual = fit(phase, magnitude, echo_times, EVERYWHERE)
    np.testing.assert_allclose(found, field, atol=1e-3)
    for volume in (found, noise, residual):
        assert volume.dtype == np.float32
        assert np.isfinite(volume).all()


@pytest.mark.parametrize("fit", METHODS)
@pytest.mark.parametrize("echo_times", [(20e-3,), (6e-3, 14e-3), UNEVEN])
def test_noise_map_is_the_spread_of_repeated_scans(fit: Fit, echo_times: tuple[float, ...]) -> None:
    field = steep_field(SHAPE)
    runs = [fit(*unwrapped_echoes(field, echo_times, snr=50, seed=seed), echo_times, EVERYWHERE) for seed in range(24)]
    spread = np.sqrt(np.mean([(run[0] - field) ** 2 for run in runs]))
    stated = np.mean([run[1] for run in runs])
    assert stated == pytest.approx(spread, rel=0.15)


@pytest.mark.parametrize("settings", [{}, {"free_offset": True}])
def test_misfit_is_one_for_noise_alone_whatever_is_fitted(settings: dict[str, bool]) -> None:
    offset = 0.7 if settings else 0.0
    phase, magnitude = unwrapped_echoes(steep_field(SHAPE), UNEVEN, snr=50, offset=offset)
    assert misfit(complex_fit, phase, magnitude, **settings) == pytest.approx(1, rel=0.1)
    assert misfit(complex_fit, phase, 1e3 * magnitude, **settings) == pytest.approx(1, rel=0.1)
    phase[1] += 0.3 * (-1) ** np.arange(SHAPE[0])[:, None, None]
    assert misfit(complex_fit, phase, magnitude, **settings) > 3


def test_misfit_of_what_has_no_noise_is_one() -> None:
    phase, magnitude = unwrapped_echoes(steep_field(SHAPE), UNEVEN, snr=np.inf)
    for fit in METHODS:
        assert misfit(fit, phase, magnitude) == 1


def misfit(fit: Fit, phase: FloatArray, magnitude: FloatArray, **settings: bool) -> float:
    with quality.ledger() as ledger:
        fit(phase, magnitude, UNEVEN, EVERYWHERE, **settings)
    return ledger.figures["combine.misfit"]


def test_noise_follows_the_signal() -> None:
    phase, magnitude = unwrapped_echoes(steep_field(SHAPE), UNEVEN, snr=50)
    weak = EVERYWHERE.copy()
    weak[:12] = False
    _, noise, _ = complex_fit(phase, np.where(weak, magnitude / 4, magnitude), UNEVEN, EVERYWHERE)
    assert np.median(noise[weak]) == pytest.approx(4 * np.median(noise[~weak]), rel=0.05)


def test_free_offset_is_fitted_and_its_price_stated() -> None:
    field = steep_field(SHAPE)
    phase, magnitude = unwrapped_echoes(field, EVEN, snr=50, offset=0.8)
    free, noise, _ = complex_fit(phase, magnitude, EVEN, EVERYWHERE, free_offset=True)
    fixed, noise_fixed, _ = complex_fit(phase - np.float32(0.8), magnitude, EVEN, EVERYWHERE)
    assert abs(np.median(free - field)) < 0.05
    assert np.std(free - field) == pytest.approx(np.median(noise), rel=0.15)
    assert np.std(fixed - field) == pytest.approx(np.median(noise_fixed), rel=0.15)
    assert np.median(noise) > 1.5 * np.median(noise_fixed)


def test_two_echoes_tell_offset_and_frequency() -> None:
    field, times = steep_field(SHAPE), (6e-3, 14e-3)
    phase, magnitude = unwrapped_echoes(field, times, snr=50, offset=0.8)
    free, noise, residual = complex_fit(phase, magnitude, times, EVERYWHERE, free_offset=True)
    assert abs(np.median(free - field)) < 0.05
    assert np.std(free - field) == pytest.approx(np.median(noise), rel=0.15)
    assert (residual == 1).all()
    single = complex_fit(phase[:1], magnitude[:1], times[:1], EVERYWHERE, free_offset=True)[0]
    np.testing.assert_array_equal(single, complex_fit(phase[:1], magnitude[:1], times[:1], EVERYWHERE)[0])


def test_each_echo_has_its_weight() -> None:
    """Frequencies of 10 and 20 Hz in two echoes: by hand."""
    times = (5e-3, 20e-3)
    magnitude = np.array([2, 1], np.float32).reshape(2, 1, 1, 1) * np.ones((2, 4, 4, 4), np.float32)
    phase = (2 * np.pi * np.array([10 * 5e-3, 20 * 20e-3], np.float32)).reshape(2, 1, 1, 1) * np.ones_like(magnitude)
    everywhere = np.ones((4, 4, 4), bool)
    least, noise, residual = weighted_fit(phase, magnitude, times, everywhere)
    snr, more_noise, same_residual = weighted_fit(phase, magnitude, times, everywhere, least_squares=False)
    np.testing.assert_allclose(least, (10 * 10**2 + 20 * 20**2) / (10**2 + 20**2), rtol=1e-5)
    np.testing.assert_allclose(snr, (10 * 10 + 20 * 20) / (10 + 20), rtol=1e-5)
    np.testing.assert_allclose(more_noise / noise, np.sqrt(2 * (10**2 + 20**2)) / (10 + 20), rtol=1e-5)
    np.testing.assert_array_equal(same_residual, residual)


def test_a_single_echo_unwrapped_wrongly_does_no_harm() -> None:
    field = 0.3 * steep_field(SHAPE)
    phase, magnitude = unwrapped_echoes(field, EVEN, snr=80)
    right, *_ = complex_fit(phase, magnitude, EVEN, EVERYWHERE)
    phase[1, ::2] += 2 * np.pi
    phase[2, 1::2] -= 2 * np.pi
    wrong, *_ = complex_fit(phase, magnitude, EVEN, EVERYWHERE)
    assert np.mean(np.abs(wrong - right) > 0.05) < 0.001


def test_residual_is_one_for_noise_and_large_for_flow() -> None:
    phase, magnitude = unwrapped_echoes(steep_field(SHAPE), EVEN, snr=50)
    flow = np.zeros(SHAPE, bool)
    flow[10:13, 10:13] = True
    phase[2:, flow] += 1.0
    _, _, residual = complex_fit(phase, magnitude, EVEN, EVERYWHERE)
    assert np.sqrt(np.mean(residual[~flow] ** 2)) == pytest.approx(1, abs=0.1)
    assert residual[flow].min() > 3


@pytest.mark.parametrize("fit", METHODS)
def test_scale_of_magnitude_and_threads_change_nothing(fit: Fit) -> None:
    phase, magnitude = unwrapped_echoes(steep_field(SHAPE), UNEVEN, snr=50)
    first = fit(phase, magnitude, UNEVEN, EVERYWHERE)
    for scaled, plain in zip(fit(phase, magnitude * np.float32(2**12), UNEVEN, EVERYWHERE), first, strict=True):
        np.testing.assert_allclose(scaled, plain, rtol=1e-3, atol=1e-4)
    threads = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        alone = fit(phase, magnitude, UNEVEN, EVERYWHERE)
    finally:
        numba.set_num_threads(threads)
    for one, many in zip(alone, first, strict=True):
        np.testing.assert_array_equal(one, many)


@pytest.mark.parametrize("fit", METHODS)
def test_nothing_outside_the_mask_and_no_signal_means_no_knowledge(fit: Fit) -> None:
    mask = ball(SHAPE)
    phase, magnitude = unwrapped_echoes(steep_field(SHAPE), EVEN, snr=50)
    magnitude[:, 12, 12, 10] = 0
    field, noise, residual = fit(phase, magnitude, EVEN, mask)
    for volume in (field, noise, residual):
        assert not volume[~mask].any()
        assert np.isfinite(volume).all()
    assert noise[12, 12, 10] > 100 * np.median(noise[mask])
    empty = fit(phase, magnitude, EVEN, np.zeros(SHAPE, bool))
    assert not any(volume.any() for volume in empty)
