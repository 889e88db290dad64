"""The check of the phase tells right from wrong by physics alone, and never stops a scan that is right."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import nibabel
import numpy as np
import pytest

from dicom_node.convert import convert
from dicom_node.folder import read
from dicom_node.group import group
from dicom_node.model import Completeness
from reconstruction import Acquisition, Geometry, Plausibility, Verdict, check_phase
from tests.simulation.head import about_x, simulate_head
from tests.simulation.scenes import AERA_1T5, TERRA_7T, small_head

CONFIRMED, CONTRADICTED, UNDECIDED = Verdict.CONFIRMED, Verdict.CONTRADICTED, Verdict.UNDECIDED


def wrapped(phase: np.ndarray) -> np.ndarray:
    return np.asarray((phase + np.pi) % (2 * np.pi) - np.pi, np.float32)


def times(acquisition: Acquisition, factor: float, wrap: bool = False) -> Acquisition:
    phase = acquisition.phase * np.float32(factor)
    return replace(acquisition, phase=wrapped(phase) if wrap else phase)


def part(acquisition: Acquisition, slices: slice, echoes: slice = slice(None)) -> Acquisition:
    magnitude, phase = (
        np.ascontiguousarray(v[echoes, ..., slices]) for v in (acquisition.magnitude, acquisition.phase)
    )
    shape = (*acquisition.geometry.shape[:2], magnitude.shape[-1])
    return replace(
        acquisition,
        magnitude=magnitude,
        phase=phase,
        echo_times=acquisition.echo_times[echoes],
        geometry=replace(acquisition.geometry, shape=shape),
    )


@lru_cache(maxsize=4)
def head(name: str) -> Acquisition:
    """Coarse whole heads that differ in all that the check could lean on."""
    more: dict[str, dict] = {
        "3 T oblique": {},
        "1.5 T noisy": {
            "larmor_frequency": AERA_1T5,
            "echo_times": (5e-3, 20e-3, 35e-3),
            "snr": 20.0,
            "rotation": None,
            "seed": 31,
        },
        "7 T": {"larmor_frequency": TERRA_7T, "echo_times": (3e-3, 8e-3, 13e-3), "rotation": about_x(-10), "seed": 32},
    }
    if not more[name]:
        return small_head().acquisition
    return simulate_head((64, 80, 44), (3.0, 3.0, 3.0), **more[name]).acquisition


@pytest.mark.parametrize(
    "name",
    [
        "3 T oblique",
        pytest.param("1.5 T noisy", marks=pytest.mark.slow),
        pytest.param("7 T", marks=pytest.mark.slow),
    ],
)
def test_right_is_confirmed_and_turned_is_contradicted(name: str) -> None:
    right, turned = check_phase(head(name)), check_phase(times(head(name), -1))
    assert (right.verdict, right.sign, right.scale) == (CONFIRMED, CONFIRMED, CONFIRMED)
    assert (turned.verdict, turned.sign, turned.scale) == (CONTRADICTED, CONTRADICTED, CONFIRMED)
    assert right.sentences
    assert turned.sentences


def test_every_figure_of_the_sign_is_odd() -> None:
    right, turned = (check_phase(times(small_head().acquisition, sign)).sign_evidence for sign in (1, -1))
    assert len(right) == 3
    for here, there in zip(right, turned, strict=True):
        assert here.name == there.name
        assert there.value == pytest.approx(-here.value, rel=0.05, abs=0.01)
        assert there.score == pytest.approx(-here.score, rel=0.05, abs=0.01)


@pytest.mark.parametrize("slices", [slice(0, 14), slice(12, 26), slice(20, 34), slice(30, 44), slice(18, 24)])
@pytest.mark.parametrize("echoes", [slice(0, 1), slice(2, 3), slice(0, 2), slice(0, 3)])
def test_slabs_and_few_echoes_are_never_stopped(slices: slice, echoes: slice) -> None:
    assert check_phase(part(small_head().acquisition, slices, echoes)).verdict is not CONTRADICTED


@pytest.mark.parametrize("factor", [0.5, 0.767, 1.27, 2.0])
def test_wrong_scale_is_contradicted(factor: float) -> None:
    found = check_phase(times(small_head().acquisition, factor))
    assert found.verdict is found.scale is CONTRADICTED
    jumps = next(e for e in found.scale_evidence if e.name == "jumps")
    assert jumps.value == pytest.approx(factor, rel=0.05)


def test_scaled_and_wrapped_again() -> None:
    """Doubled and wrapped, phase is that of twice the field: its noise alone gives it away, which decides nothing."""
    assert check_phase(times(small_head().acquisition, 1.27, wrap=True)).scale is CONTRADICTED
    assert check_phase(times(small_head().acquisition, 2.0, wrap=True)).verdict is UNDECIDED


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_planes_that_alternate_in_sign(axis: int) -> None:
    phase = small_head().acquisition.phase.copy()
    odd = np.moveaxis(phase, axis + 1, 0)[1::2]
    odd[...] = wrapped(odd + np.pi)
    found = check_phase(replace(small_head().acquisition, phase=phase))
    assert found.verdict is CONTRADICTED
    assert found.sign is CONFIRMED
    assert any(("column", "row", "slice")[axis] in sentence for sentence in found.sentences)


def test_no_phase_at_all() -> None:
    acquisition = small_head().acquisition
    one_missing = acquisition.phase.copy()
    one_missing[1] = 0
    noise = np.random.default_rng(0).uniform(-np.pi, np.pi, acquisition.phase.shape).astype(np.float32)
    for phase in (np.zeros_like(acquisition.phase), one_missing, noise):
        assert check_phase(replace(acquisition, phase=phase)).verdict is CONTRADICTED


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 4, 3), (20, 20, 2)])
def test_what_is_no_head_is_left_open(shape: tuple[int, int, int]) -> None:
    geometry = Geometry(shape, (1.0, 1.0, 1.0), (0.0, 0.0, 1.0))
    phase = np.linspace(-3, 3, 2 * int(np.prod(shape)), dtype=np.float32).reshape(2, *shape)
    for level in (0.0, 1.0):
        magnitude = np.full((2, *shape), level, np.float32)
        assert check_phase(Acquisition(magnitude, phase, (4e-3, 9e-3), 123e6, geometry)).sign is UNDECIDED


def test_zero_filled_and_masked_images_are_judged_alike() -> None:
    acquisition = small_head().acquisition
    signal = np.fft.fft(acquisition.magnitude * np.exp(1j * acquisition.phase), axis=1)
    half = signal.shape[1] // 2
    signal = np.fft.ifft(np.insert(signal, [half] * signal.shape[1], 0, axis=1), axis=1)
    dx, dy, dz = acquisition.geometry.voxel_size
    geometry = replace(acquisition.geometry, shape=signal.shape[1:], voxel_size=(dx / 2, dy, dz), affine=None)
    filled = replace(
        acquisition,
        magnitude=np.abs(signal).astype(np.float32),
        phase=np.angle(signal).astype(np.float32),
        geometry=geometry,
    )
    inside = small_head().head_mask
    masked = replace(acquisition, magnitude=acquisition.magnitude * inside, phase=acquisition.phase * inside)
    for other in (filled, masked):
        assert check_phase(other).verdict is CONFIRMED


def test_real_brain(philips_classic: Path) -> None:
    groups = group(read(philips_classic), 0.0, 0.0, frozenset())
    acquisition, _ = convert(next(g for g in groups if g.completeness is Completeness.COMPLETE))
    assert check_phase(acquisition).verdict is CONFIRMED
    assert check_phase(times(acquisition, -1)).sign is CONTRADICTED
    for factor in (0.5, 1.27, 2.0):
        assert check_phase(times(acquisition, factor)).scale is CONTRADICTED


def test_real_block_is_too_small_for_the_sign(romeo_brain: Path) -> None:
    phase, magnitude = (
        np.ascontiguousarray(np.moveaxis(np.asarray(nibabel.load(path).dataobj.get_unscaled(), np.float32), -1, 0))
        for path in (romeo_brain / "small" / "Phase.nii", romeo_brain / "small" / "Mag.nii")
    )
    geometry = Geometry(phase.shape[1:], (0.469, 0.469, 1.0), (0.0, 0.0, 1.0))
    acquisition = Acquisition(magnitude, phase, (4e-3, 8e-3, 12e-3), TERRA_7T, geometry)
    found = check_phase(acquisition)
    assert (found.verdict, found.sign, found.scale) == (UNDECIDED, UNDECIDED, CONFIRMED)
    for factor in (0.5, 1.27, 2.0):
        assert check_phase(times(acquisition, factor)).scale is CONTRADICTED


def test_findings_are_told_in_the_order_that_the_verdict_needs() -> None:
    found = check_phase(times(small_head().acquisition, -1))
    assert isinstance(found, Plausibility)
    against = [e.sentence for e in (*found.sign_evidence, *found.scale_evidence) if e.score < 0]
    assert list(found.sentences) == against
