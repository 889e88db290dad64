"""What a bipolar read-out adds is found and taken off; what is none is not touched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nibabel import load

from reconstruction import quality
from reconstruction.acquisition import FloatArray
from reconstruction.combine.complex_fit import complex_fit
from reconstruction.offset.mcpc3ds import mcpc3ds
from reconstruction.readout.bipolar import NEGLIGIBLE, _second_difference, bipolar, fit_plane, pairs_along
from reconstruction.unwrap.romeo import romeo
from tests.reconstruction.echoes import UNEVEN, acquire, ball, geometry, smooth_offset, steep_field
from tests.simulation.scenes import small_head

SHAPE = (48, 40, 32)
GEOMETRY = geometry(SHAPE)
TRAIN = (3e-3, 8e-3, 13e-3, 18e-3, 23e-3)


def plane(offset: float, slopes: tuple[float, float, float]) -> FloatArray:
    """rad: at the grid's middle, and per voxel."""
    axes = [s * (np.arange(n) - (n - 1) / 2) for s, n in zip(slopes, SHAPE, strict=True)]
    return np.asarray(offset + axes[0][:, None, None] + axes[1][None, :, None] + axes[2], np.float32)


def acquired(echo_times: tuple[float, ...] = TRAIN, snr: float = 60) -> tuple[FloatArray, FloatArray]:
    return acquire(ball(SHAPE), steep_field(SHAPE), echo_times, smooth_offset(SHAPE), snr=snr)


def read_both_ways(phase: FloatArray, alternation: FloatArray) -> FloatArray:
    changed = phase.copy()
    changed[1::2] = np.angle(np.exp(1j * (phase[1::2] + alternation)))
    return changed.astype(np.float32)


@pytest.mark.parametrize(
    ("offset", "slopes"),
    [(0.3, (0.0, 0.0, 0.0)), (0.0, (0.05, 0.0, 0.0)), (-0.6, (0.0, -0.12, 0.01)), (1.2, (0.3, 0.1, -0.05))],
)
@pytest.mark.parametrize("echoes", [3, 4, 5])
def test_known_alternation_is_taken_off(offset: float, slopes: tuple[float, float, float], echoes: int) -> None:
    """Several turns over the field of view included."""
    phase, magnitude = acquired(TRAIN[:echoes])
    times = TRAIN[:echoes]
    corrected = bipolar(read_both_ways(phase, plane(offset, slopes)), magnitude, times, GEOMETRY)
    left = np.angle(np.exp(1j * (corrected - phase)))[:, ball(SHAPE)]
    assert np.abs(left).max() < 0.02
    assert corrected.dtype == np.float32


def test_figure_tells_the_slope() -> None:
    phase, magnitude = acquired()
    with quality.ledger() as ledger:
        bipolar(read_both_ways(phase, plane(0.1, (0.06, 0.0, 0.0))), magnitude, TRAIN, GEOMETRY)
    assert ledger.figures["readout.slope_mrad_per_mm"] == pytest.approx(1000 * 0.06 / 2.0, rel=0.01)
    assert ledger.figures["readout.alternation_rad"] > 0.3
    assert not ledger.warnings


def test_a_read_out_in_one_direction_is_left_bit_identical() -> None:
    """Of spheres and of a head with fat, cavities and flow-free veins."""
    head = small_head().acquisition
    for phase, magnitude, times, grid in (
        (*acquired(), TRAIN, GEOMETRY),
        (head.phase, head.magnitude, head.echo_times, head.geometry),
    ):
        with quality.ledger() as ledger:
            assert bipolar(phase, magnitude, times, grid) is phase
        assert not ledger.figures
        pairs = tuple(map(pairs_along, grid.shape))
        offset, slopes, coherence = fit_plane(_second_difference(phase, magnitude, *pairs), pairs, grid.shape)
        reach = abs(offset) + np.abs(slopes) @ grid.shape / 2
        assert reach / 2 < NEGLIGIBLE
        assert coherence > 0.9


def test_what_is_no_plane_is_left_as_it_is() -> None:
    """Noise in place of one echo's phase, and in place of all."""
    phase, magnitude = acquired()
    random = np.random.default_rng(1).uniform(-np.pi, np.pi, phase.shape).astype(np.float32)
    assert bipolar(random, magnitude, TRAIN, GEOMETRY) is random
    phase[1] = random[1]
    assert bipolar(phase, magnitude, TRAIN, GEOMETRY) is phase


def test_a_real_brain_read_in_one_direction_is_left_bit_identical(romeo_brain: Path) -> None:
    phase, magnitude = (
        np.ascontiguousarray(np.moveaxis(np.asarray(load(path).dataobj.get_unscaled(), np.float32), -1, 0))
        for path in (romeo_brain / "small" / "Phase.nii", romeo_brain / "small" / "Mag.nii")
    )
    assert bipolar(phase, magnitude, (4e-3, 8e-3, 12e-3), geometry(phase.shape[1:], (1.0, 1.0, 1.0))) is phase


def test_correcting_twice_changes_nothing() -> None:
    phase, magnitude = acquired()
    once = bipolar(read_both_ways(phase, plane(0.4, (0.1, 0.0, 0.0))), magnitude, TRAIN, GEOMETRY)
    assert bipolar(once, magnitude, TRAIN, GEOMETRY) is once


def test_the_scale_of_the_magnitude_changes_nothing() -> None:
    phase, magnitude = acquired()
    raw = read_both_ways(phase, plane(0.4, (0.1, 0.02, 0.0)))
    scaled = bipolar(raw, magnitude * np.float32(2.0**-10), TRAIN, GEOMETRY)
    np.testing.assert_allclose(scaled, bipolar(raw, magnitude, TRAIN, GEOMETRY), atol=1e-5)


def test_the_field_is_that_of_a_read_out_in_one_direction() -> None:
    """Uncorrected it is Hz away: the alternation passes for field."""
    inside = ball(SHAPE)
    phase, magnitude = acquired()
    raw = read_both_ways(phase, plane(0.3, (0.12, 0.0, 0.0)))

    def field(given: FloatArray) -> FloatArray:
        settled = mcpc3ds(given, magnitude, TRAIN, GEOMETRY)
        unwrapped = romeo(settled, magnitude, TRAIN, inside, GEOMETRY)
        return complex_fit(unwrapped, magnitude, TRAIN, inside)[0][inside]

    truth = field(phase)
    assert np.abs(field(bipolar(raw, magnitude, TRAIN, GEOMETRY)) - truth).max() < 0.5
    assert np.percentile(np.abs(field(raw) - truth), 90) > 2


@pytest.mark.parametrize("echo_times", [UNEVEN, TRAIN[:2], TRAIN[:1]])
def test_what_cannot_be_told_is_left_without_a_word(echo_times: tuple[float, ...]) -> None:
    """Every recipe asks, and most scans have none."""
    phase, magnitude = acquired(echo_times)
    with quality.ledger() as ledger:
        assert bipolar(phase, magnitude, echo_times, GEOMETRY) is phase
    assert (ledger.figures, ledger.warnings) == ({}, [])


def test_nothing_is_left_as_it_is() -> None:
    empty = np.zeros((3, 8, 8, 8), np.float32)
    assert bipolar(empty, empty, TRAIN[:3], geometry((8, 8, 8))) is empty


@pytest.mark.parametrize("pairs_of_an_axis", [32, 6])
def test_plane_is_found_whatever_wraps(pairs_of_an_axis: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """On every voxel, and on so few that the phase goes round between their pairs."""
    monkeypatch.setattr("reconstruction.readout.bipolar.PAIRS", pairs_of_an_axis)
    pairs = tuple(map(pairs_along, SHAPE))
    truth = plane(2.5, (0.8, -0.4, 0.2))[np.ix_(*pairs)]
    offset, slopes, coherence = fit_plane(np.exp(1j * truth).astype(np.complex64), pairs, SHAPE)
    assert offset == pytest.approx(2.5, abs=1e-3)
    np.testing.assert_allclose(slopes, (0.8, -0.4, 0.2), atol=1e-4)
    assert coherence == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("n", [1, 2, 3, 63, 64, 100, 128, 448])
def test_pairs_are_neighbours_within_the_axis(n: int) -> None:
    pairs = pairs_along(n)
    assert pairs.min() == 0
    assert n - 1 - 2 * max(2, n // 32) < pairs.max() < n
    assert set(np.diff(pairs)[::2]) == {min(1, n - 1)}
    assert pairs.size < 2 * 64


def test_one_slice_has_an_alternation_too() -> None:
    phase, magnitude = (np.ascontiguousarray(volume[..., 16:17]) for volume in acquired())
    raw = read_both_ways(phase, np.full(1, 0.4, np.float32))
    grid = geometry((*SHAPE[:2], 1))
    left = np.angle(np.exp(1j * (bipolar(raw, magnitude, TRAIN, grid) - phase)))
    assert np.abs(left[:, ball(SHAPE)[..., 16:17]]).max() < 0.02
