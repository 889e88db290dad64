"""The simulated head obeys the physics it stands for, and its files say what it holds."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import pydicom
import pytest
from scipy import ndimage

from tests.simulation import atlas, sampling
from tests.simulation.distractors import write_distractors
from tests.simulation.head import SimulatedHead, about_x, simulate_head
from tests.simulation.philips import write_philips, write_philips_enhanced
from tests.simulation.scenes import SKYRA_3T, small_head
from tests.simulation.siemens import write_siemens
from tests.simulation.siemens_enhanced import write_siemens_enhanced
from tests.simulation.susceptibility import dipole_field

GRID = ((64, 80, 44), (3.0, 3.0, 3.0))


@lru_cache
def noiseless() -> SimulatedHead:
    """`small_head` without noise."""
    return simulate_head(*GRID, (4e-3, 11e-3, 18e-3), SKYRA_3T, snr=np.inf, rotation=about_x(15), seed=11)


@lru_cache
def with_lesions() -> SimulatedHead:
    return simulate_head(*GRID, (5e-3,), rotation=about_x(15), seed=3, lesions=True)


def signal(head: SimulatedHead) -> np.ndarray:
    return head.acquisition.magnitude * np.exp(1j * head.acquisition.phase)


def mm(head: SimulatedHead) -> np.ndarray:
    """R, A, S of every voxel centre, (x, y, z, 3)."""
    ijk = np.stack(np.meshgrid(*(np.arange(n) for n in head.chi.shape), indexing="ij"), -1)
    return ijk @ head.affine[:3, :3].T + head.affine[:3, 3]


# --- the field --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", [(0, 0, 1), (0, 0.6, 0.8)])
def test_field_of_a_sphere_is_the_analytic_one(direction: tuple[float, float, float]) -> None:
    """Inside 0, outside Δχ/3 (a/r)³ (3 cos²θ − 1)."""
    n, parts, radius, voxel = 48, 5, 9.0, (1.0, 1.0, 1.5)
    fine = np.meshgrid(*(v * ((np.arange(n * parts) + 0.5) / parts - n / 2) for v in voxel), indexing="ij", sparse=True)
    ball = sum(c**2 for c in fine) < radius**2
    sphere = ball.reshape(n, parts, n, parts, n, parts).mean((1, 3, 5)).astype(np.float32)
    field = dipole_field(sphere, voxel, direction, padding=3.0)
    grid = np.stack(np.meshgrid(*(v * (np.arange(n) + 0.5 - n / 2) for v in voxel), indexing="ij"), -1)
    r = np.linalg.norm(grid, axis=-1)
    expected = (radius / r) ** 3 / 3 * (3 * (grid @ np.array(direction) / r) ** 2 - 1)
    outside = (r > radius + 3) & (r < 20)
    assert np.abs(field - expected)[outside].mean() < 0.001
    assert np.abs(field - expected)[outside].max() < 0.02
    assert np.abs(field[r < radius - 3]).max() < 0.05


def test_field_does_not_know_the_zero_of_susceptibility() -> None:
    chi = np.random.default_rng(0).standard_normal((12, 10, 8)).astype(np.float32)
    shifted = dipole_field(chi + np.float32(9.4), (1, 1, 1), padding=1.0)
    np.testing.assert_allclose(shifted, dipole_field(chi, (1, 1, 1), padding=1.0), atol=1e-5)


def test_looking_the_field_up_between_its_samples_keeps_fine_detail() -> None:
    """Waves of four samples' length: along straight lines a fifth of one would be lost."""
    wave = np.cos(np.pi / 2 * np.arange(24))[:, None, None] * np.ones((1, 24, 24))
    spline = ndimage.spline_filter(wave, order=3)
    for x in np.linspace(8, 12, 33):
        assert sampling.cubic(spline, x, 11.3, 12.6) == pytest.approx(np.cos(np.pi / 2 * x), abs=0.03)
    assert sampling.cubic(spline, 22.5, 11.0, 12.0) == 0


def test_field_above_the_sphenoid_sinus_is_positive() -> None:
    """Air below lifts the field above it: what real scans show under the project's phase convention."""
    head = noiseless()
    above = head.brain_mask & (np.linalg.norm(mm(head) - (0, 18, -24), axis=-1) < 9)
    assert above.any()
    assert head.field[above].mean() > 0.3
    first, second = signal(head)[:2]
    assert np.angle((second * first.conj())[above & (head.field < 0.5)]).mean() > 0


# --- the signal -------------------------------------------------------------------------------------------------------


def test_phase_turns_with_field_and_echo_time() -> None:
    head = noiseless()
    times, deep = head.acquisition.echo_times, head.brain_mask & (np.abs(mm(head) - (0, -20, 30)).max(-1) < 25)
    turned = np.angle((signal(head)[1] * signal(head)[0].conj())[deep])
    expected = 2 * np.pi * 1e-6 * SKYRA_3T * head.field[deep] * (times[1] - times[0])
    difference = np.angle(np.exp(1j * (turned - expected)))
    assert np.median(np.abs(difference)) < 0.01


def test_phase_offset_is_several_radian() -> None:
    head = noiseless()
    offset = signal(head)[0] * np.exp(-2j * np.pi * 1e-6 * SKYRA_3T * head.field * head.acquisition.echo_times[0])
    along = np.angle(offset[1:] * offset[:-1].conj())
    steps = np.where(head.brain_mask[1:] & head.brain_mask[:-1], along, 0)
    offsets = np.cumsum(steps, axis=0)
    assert np.ptp(offsets) > 1


def test_signal_decays_with_r2star_but_faster_near_air() -> None:
    head = noiseless()
    magnitude, times = head.acquisition.magnitude, head.acquisition.echo_times
    ratio = np.maximum(magnitude[0], 1e-6) / np.maximum(magnitude[2], 1e-6)
    decay = np.log(ratio) / (times[2] - times[0]) - head.r2star
    place = mm(head)
    deep = head.brain_mask & (np.abs(place - (0, -20, 30)).max(-1) < 25)
    near_sinus = head.brain_mask & (np.linalg.norm(place - (0, 18, -26), axis=-1) < 8)
    assert abs(np.median(decay[deep])) < 1
    assert np.median(decay[near_sinus]) > 5


def test_noise_has_the_deviation_that_was_asked_for() -> None:
    noise = signal(small_head()) - signal(noiseless())
    brain = noiseless().brain_mask
    sigma = noiseless().acquisition.magnitude[0][brain].mean() / 60
    for echo in noise:
        assert echo[brain].real.std() == pytest.approx(sigma, rel=0.05)
        assert echo[brain].imag.std() == pytest.approx(sigma, rel=0.05)


# --- the head ---------------------------------------------------------------------------------------------------------


def test_nuclei_have_the_size_of_real_ones() -> None:
    """ml on one side in the template's brain, which is a fifth larger than the mean adult's."""
    axes = tuple(np.arange(-90.0, 90.0) for _ in range(3))
    volume = {name: (atlas.membership(c, axes)[1] > 0.5).sum() / 1000 for name, c in atlas.nuclei().items()}
    assert len(volume) == 16
    for side in ("left", "right"):
        assert 3.5 < volume[f"putamen_{side}"] < 7
        assert 3 < volume[f"caudate_{side}"] < 6
        pallidum = volume[f"globus_pallidus_external_{side}"] + volume[f"globus_pallidus_internal_{side}"]
        assert 0.8 < pallidum < 2.5
        assert 0.15 < volume[f"red_nucleus_{side}"] < 0.5
        assert 0.2 < volume[f"substantia_nigra_{side}"] < 0.8


def test_left_is_left_and_masks_nest() -> None:
    head = noiseless()
    assert mm(head)[head.labels["putamen_left"]][:, 0].mean() < -15
    assert mm(head)[head.labels["putamen_right"]][:, 0].mean() > 15
    assert not (head.brain_mask & ~head.inside_skull).any()
    assert not (head.inside_skull & ~head.head_mask).any()
    assert 1000 < head.brain_mask.sum() * head.acquisition.geometry.voxel_volume / 1000 < 2200


def test_seed_decides_the_head() -> None:
    one, again, other = noiseless(), small_head(), with_lesions()
    np.testing.assert_array_equal(one.field, again.field)
    np.testing.assert_array_equal(one.chi, again.chi)
    assert (one.brain_mask != other.brain_mask).sum() > 1000


def test_slab_turns_and_the_head_stays() -> None:
    """The same places of the patient hold the same tissue and field, and B₀ stays along the body."""
    straight, turned = simulate_head(*GRID, (5e-3,), SKYRA_3T, snr=np.inf, seed=11), noiseless()
    np.testing.assert_allclose(turned.affine[2, :3] / 3, turned.acquisition.geometry.b0_direction, atol=1e-6)
    where = np.linalg.inv(straight.affine) @ turned.affine
    inner = np.argwhere(turned.brain_mask & (np.abs(mm(turned) - (0, -20, 20)).max(-1) < 30))
    there = np.round(inner @ where[:3, :3].T + where[:3, 3]).astype(int)
    a, b = turned.field[tuple(inner.T)], straight.field[tuple(there.T)]
    assert np.corrcoef(a, b)[0, 1] > 0.98


def test_lesions_are_there_when_asked_for() -> None:
    brain = with_lesions().chi[with_lesions().brain_mask]
    assert brain.max() > 1
    assert brain.min() < -1
    assert small_head().chi[small_head().brain_mask].max() < 0.5


# --- the files --------------------------------------------------------------------------------------------------------

Writer = Callable[..., list[Path]]
WRITERS: tuple[Writer, ...] = (write_siemens, write_siemens_enhanced, write_philips, write_philips_enhanced)


def planes(path: Path) -> list[tuple[str, float, tuple[float, ...], np.ndarray]]:
    """Component, echo time, position and phase or magnitude (rows, columns) of each plane, as the standard reads it."""
    d = pydicom.dcmread(path)
    found = []
    if "PerFrameFunctionalGroupsSequence" in d:
        for frame, pixels in zip(d.PerFrameFunctionalGroupsSequence, d.pixel_array, strict=True):
            values = frame.PixelValueTransformationSequence[0]
            found.append(
                (
                    frame.MRImageFrameTypeSequence[0].ComplexImageComponent[0],
                    float(frame.MREchoSequence[0].EffectiveEchoTime),
                    tuple(frame.PlanePositionSequence[0].ImagePositionPatient),
                    pixels * float(values.RescaleSlope) + float(values.RescaleIntercept),
                )
            )
    else:
        values = d.pixel_array * float(d.get("RescaleSlope", 1)) + float(d.get("RescaleIntercept", 0))
        letter = next(value for value in d.ImageType if value in ("M", "P"))
        found.append((letter, float(d.EchoTime), tuple(d.ImagePositionPatient), values))
    return found


@pytest.mark.parametrize("write", WRITERS)
def test_files_hold_the_phase_where_it_lies(write: Writer, tmp_path: Path) -> None:
    head = small_head()
    milliradian = write in (write_philips, write_philips_enhanced)
    radian, step = (1e-3, 6.284 / 4095) if milliradian else (np.pi / 4096, 2 * np.pi / 4096)
    to_voxel = np.linalg.inv(head.affine)
    seen = set()
    for path in write(head, tmp_path):
        for letter, echo_time, position, values in planes(path):
            echo = int(np.argmin(np.abs(np.array(head.acquisition.echo_times) * 1e3 - echo_time)))
            corner = to_voxel @ [-position[0], -position[1], position[2], 1]
            np.testing.assert_allclose(corner[:2], 0, atol=1e-3)
            k = round(corner[2])
            seen.add((letter, echo, k))
            if letter == "P":
                difference = np.angle(np.exp(1j * (values.T * radian - head.acquisition.phase[echo, :, :, k])))
                assert np.abs(difference).max() <= step
            else:
                magnitude = head.acquisition.magnitude[echo, :, :, k]
                assert np.corrcoef(values.T.ravel(), magnitude.ravel())[0, 1] > 0.999
    assert len(seen) == 2 * 3 * 44


def test_uids_follow_the_seed(tmp_path: Path) -> None:
    def uids(folder: str, seed: int) -> set[str]:
        paths = write_siemens(small_head(), tmp_path / folder, seed=seed)
        return {pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in paths[::50]}

    assert uids("a", 1) == uids("b", 1)
    assert not uids("a", 1) & uids("c", 2)


def test_siemens_exports_differ_as_they_do_in_hospitals(tmp_path: Path) -> None:
    bare = pydicom.dcmread(write_siemens(small_head(), tmp_path / "bare", rescale=False)[-1])
    assert "RescaleSlope" not in bare
    np.testing.assert_allclose(
        bare.pixel_array.T * 2 * np.pi / 4096 - np.pi, small_head().acquisition.phase[-1, :, :, -1], atol=0.002
    )
    split = [pydicom.dcmread(p) for p in write_siemens(small_head(), tmp_path / "split", interoperability=True)]
    assert len({d.SeriesInstanceUID for d in split}) == 2 * 3
    assert all(d.EchoNumbers is None for d in split)


@pytest.mark.parametrize("write", WRITERS)
def test_files_are_legal(write: Writer, tmp_path: Path, dciodvfy_command: Path) -> None:
    paths = write(small_head(), tmp_path)
    for path in {paths[0], paths[-1]}:
        faults = errors(dciodvfy_command, path)
        if write is write_philips_enhanced:  # Philips counts its private dimension from 0, in its real files too
            faults = [fault for fault in faults if "Must start from one" not in fault]
        assert faults == []


def test_foreign_objects_are_legal_and_of_the_same_study(tmp_path: Path, dciodvfy_command: Path) -> None:
    ours = pydicom.dcmread(write_siemens(small_head(), tmp_path / "ours")[0], stop_before_pixels=True)
    series = {ours.SeriesInstanceUID}
    for paths in write_distractors(small_head(), tmp_path / "foreign").values():
        assert errors(dciodvfy_command, paths[0]) == []
        d = pydicom.dcmread(paths[0])
        assert d.StudyInstanceUID == ours.StudyInstanceUID
        assert d.SeriesInstanceUID not in series
        assert d.pixel_array.size
        series.add(d.SeriesInstanceUID)


def errors(dciodvfy: Path, path: Path) -> list[str]:
    run = subprocess.run([dciodvfy, path], capture_output=True, text=True, check=False)
    return [line for line in (run.stdout + run.stderr).splitlines() if line.startswith("Error")]
