from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import JPEGLSLossless, RLELossless

from dicom_node.convert import convert
from dicom_node.errors import NotConvertible
from dicom_node.model import Completeness
from tests.dicom_node.convert.scans import (
    AXIAL,
    CORONAL,
    DOWNWARDS,
    SAGITTAL,
    converted,
    edit,
    edited,
    groups,
    noise,
    rotated,
)
from tests.simulation.philips import write_philips, write_philips_enhanced
from tests.simulation.siemens import write_siemens
from tests.simulation.siemens_enhanced import write_siemens_enhanced

WRITERS = {
    "siemens": write_siemens,
    "siemens_without_rescale": lambda head, folder: write_siemens(head, folder, rescale=False),
    "siemens_interoperability": lambda head, folder: write_siemens(head, folder, interoperability=True),
    "siemens_enhanced": write_siemens_enhanced,
    "philips": write_philips,
    "philips_enhanced": write_philips_enhanced,
}
ORIENTATIONS = {
    "axial": AXIAL,
    "axial, slices from above": DOWNWARDS,
    "sagittal": SAGITTAL,
    "coronal": CORONAL,
    "oblique": rotated(AXIAL, 25),
    "double oblique sagittal": rotated(rotated(SAGITTAL, 17).T, 31).T,
}
PHASE_STEP = 2 * np.pi / 4095
"""Of 12 bits."""


@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS)
def test_what_a_vendor_writes_comes_back(writer: Callable, tmp_path: Path):
    head = noise(rotated(AXIAL, 25))
    acquisition, source = converted(writer(head, tmp_path))
    expected = head.acquisition
    off = np.angle(np.exp(1j * (acquisition.phase - expected.phase)))
    # 4095 steps cannot reach π: what lies in the last half step saturates.
    assert np.abs(off).max() < PHASE_STEP
    scale = acquisition.magnitude.max() / expected.magnitude.max()
    np.testing.assert_allclose(acquisition.magnitude, scale * expected.magnitude, atol=2e-3 * scale)
    assert acquisition.echo_times == pytest.approx(expected.echo_times, abs=1e-6)
    assert acquisition.larmor_frequency == pytest.approx(123.2e6, abs=1)
    assert acquisition.geometry.voxel_size == pytest.approx(expected.geometry.voxel_size, abs=1e-4)
    assert source.encoding == writer.__name__.removeprefix("write_").replace("<lambda>", "siemens")
    assert not source.lossy


@pytest.mark.parametrize("writer", [write_siemens, write_philips_enhanced])
@pytest.mark.parametrize("axes", ORIENTATIONS.values(), ids=ORIENTATIONS)
def test_geometry_in_any_orientation(axes, writer: Callable, tmp_path: Path):
    head = noise(axes)
    acquisition, source = converted(writer(head, tmp_path))
    # Slices are ordered along row × column direction: a left-handed stack comes back with its slices reversed.
    expected, affine = head.acquisition, head.affine
    if np.linalg.det(axes) < 0:
        turned = affine.copy()
        turned[:3, 2] *= -1
        turned[:3, 3] = (affine @ [0, 0, expected.geometry.shape[2] - 1, 1])[:3]
        affine = turned
        expected = dataclasses.replace(expected, phase=expected.phase[..., ::-1].copy())
    np.testing.assert_allclose(source.affine, affine, atol=1e-4)
    off = np.angle(np.exp(1j * (acquisition.phase - expected.phase)))
    assert np.abs(off).max() < PHASE_STEP
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    np.testing.assert_allclose(acquisition.geometry.b0_direction, directions.T @ [0, 0, 1], atol=1e-4)


def test_the_order_of_files_and_instance_numbers_does_not_matter(tmp_path: Path):
    head = noise()
    paths = write_siemens(head, tmp_path)
    straight = converted(paths)[0]
    for path in paths:
        edit(path, lambda d: setattr(d, "InstanceNumber", 7))
    shuffled = converted(random.Random(1).sample(paths, len(paths)))[0]
    assert np.array_equal(straight.phase, shuffled.phase)
    assert np.array_equal(straight.magnitude, shuffled.magnitude)


def test_headers_are_one_for_each_slice_and_free_of_pixels(tmp_path: Path):
    head = noise(rotated(CORONAL, 10))
    for writer in WRITERS.values():
        acquisition, source = converted(writer(head, tmp_path / writer.__name__))
        assert len(source.headers) == len(source.references) == acquisition.geometry.shape[2]
        for k, header in enumerate(source.headers):
            assert "PixelData" not in header
            assert not any(element.tag.is_private for element in header)
            position = (source.affine @ [0, 0, k, 1])[:3] * [-1, -1, 1]
            np.testing.assert_allclose(np.array(header.ImagePositionPatient, float), position, atol=1e-4)
            assert float(header.EchoTime) == pytest.approx(4)
            assert float(header.ImagingFrequency) == pytest.approx(123.2)
            assert float(header.RepetitionTime) > 0
            assert [float(s) for s in header.PixelSpacing] == pytest.approx([0.75, 1.25])
            assert float(header.SpacingBetweenSlices) == pytest.approx(2.5)
            assert header.ImageType[:2] == ["ORIGINAL", "PRIMARY"]
            assert header.PatientID
            assert header.FrameOfReferenceUID
        assert all(len(references) == 4 for references in source.references)


def test_references_name_every_image_once(tmp_path: Path):
    classic = converted(write_philips(noise(), tmp_path / "c"))[1]
    one = [r for references in classic.references for r in references]
    assert len({r.sop_instance_uid for r in one}) == len(one) == 2 * 2 * 5
    assert {r.frame for r in one} == {None}
    enhanced = converted(write_philips_enhanced(noise(), tmp_path / "e"))[1]
    assert sorted(r.frame or 0 for references in enhanced.references for r in references) == list(range(1, 21))


def test_classic_and_enhanced_of_one_simulated_scan_are_one_job(tmp_path: Path):
    head = noise(rotated(AXIAL, 25))
    classic, enhanced = write_philips(head, tmp_path / "c"), write_philips_enhanced(head, tmp_path / "e")
    one, two, both = converted(classic), converted(enhanced), converted([*classic, *enhanced])
    for other in (two, both):
        assert np.array_equal(one[0].phase, other[0].phase)
        assert np.array_equal(one[0].magnitude, other[0].magnitude)
        assert one[0].geometry == other[0].geometry
        assert one[0].echo_times == other[0].echo_times
        assert one[0].larmor_frequency == other[0].larmor_frequency
        assert np.array_equal(one[1].affine, other[1].affine)


# Real files


def test_real_philips_exports_are_identical(philips_classic: Path, philips_enhanced: Path):
    classic, enhanced = sorted(philips_classic.iterdir()), sorted(philips_enhanced.iterdir())
    one, source = converted(classic)
    two, _ = converted(enhanced)
    (both,) = groups([*enhanced, *classic])
    assert {i.path for i in both.instances} in ({*classic}, {*enhanced})
    assert one.geometry.shape == (80, 80, 53)
    assert one.echo_times == pytest.approx((2.3e-3, 4.6e-3))
    assert one.larmor_frequency == pytest.approx(127.748512e6)
    assert source.encoding == "philips"
    assert source.warnings == ()
    assert np.array_equal(one.phase, two.phase)
    assert np.array_equal(one.magnitude, two.magnitude)
    assert one.geometry == two.geometry


def test_the_field_above_the_real_sphenoid_sinus_is_positive(philips_enhanced: Path):
    acquisition, source = converted(sorted(philips_enhanced.iterdir()))
    turn = acquisition.phase[1] - acquisition.phase[0]
    field = np.angle(np.exp(1j * turn)) / (2 * np.pi * (acquisition.echo_times[1] - acquisition.echo_times[0]))
    magnitude = acquisition.magnitude[0]
    voxel = np.linalg.inv(source.affine) @ ABOVE_THE_SINUS
    x, y, z = (round(c) for c in voxel[:3])
    box = np.s_[x - 2 : x + 3, y - 1 : y + 2, z - 1 : z + 2]
    inside = magnitude[box] > 0.3 * np.percentile(magnitude, 95)
    assert inside.mean() > 0.9
    assert 100 < np.median(field[box][inside]) < 150


def test_the_real_phase_difference_is_refused_by_name(siemens_phase_difference: Path):
    found = groups(sorted(path for path in siemens_phase_difference.rglob("*") if path.is_file()))
    assert {g.completeness for g in found} == {Completeness.FOREIGN}
    assert all("phase is the difference" in g.reason for g in found)


ABOVE_THE_SINUS = np.array([-3.0, 45.7, 27.4, 1.0])
"""R, A, S of this head, homogeneous: the lowest frontal cortex in the midplane, found by eye."""


# What is told in the header


def test_frequency_in_hertz_is_understood(tmp_path: Path):
    paths = edited(write_siemens(noise(), tmp_path), lambda d: setattr(d, "ImagingFrequency", "123200000"))
    assert converted(paths)[0].larmor_frequency == pytest.approx(123.2e6)


def test_nominal_field_strength_is_the_last_resort(tmp_path: Path):
    paths = edited(write_siemens(noise(), tmp_path), lambda d: delattr(d, "ImagingFrequency"))
    acquisition, source = converted(paths)
    assert acquisition.larmor_frequency == pytest.approx(127.7e6, rel=1e-3)
    assert "nominal MagneticFieldStrength of 3 T" in source.warnings[0]
    edited(paths, lambda d: delattr(d, "MagneticFieldStrength"))
    with pytest.raises(NotConvertible, match="cannot be scaled"):
        converted(paths)


def test_distortion_correction_and_zero_filling_are_warned_of(tmp_path: Path):
    paths = write_siemens(noise(), tmp_path, interoperability=True)
    edited(paths, lambda d: setattr(d, "AcquisitionMatrix", [4, 0, 0, 4]))
    _, source = converted(paths)
    assert [warning.split(" ")[0] for warning in source.warnings] == ["phase", "images"]
    assert "DIS2D" in source.warnings[0]
    assert "from 4 to 7 pixels" in source.warnings[1]


def test_an_unknown_phase_scale_is_refused(tmp_path: Path):
    def rescale(d: Dataset) -> None:
        if d.ImageType[2] == "P":
            d.RescaleSlope, d.RescaleIntercept = 1, -2048

    with pytest.raises(NotConvertible, match="RescaleSlope 1 and RescaleIntercept -2048"):
        converted(edited(write_siemens(noise(), tmp_path), rescale))


def test_philips_phase_survives_the_loss_of_private_tags_and_units(tmp_path: Path):
    paths = write_philips(noise(), tmp_path)
    expected = converted(paths)[0]

    def anonymise(d: Dataset) -> None:
        d.remove_private_tags()
        for keyword in ("RescaleType", "RealWorldValueMappingSequence", "AcquisitionTime", "AcquisitionDate"):
            if keyword in d:
                delattr(d, keyword)

    found = converted(edited(paths, anonymise))[0]
    assert np.array_equal(found.phase, expected.phase)


def test_philips_phase_without_a_known_unit_is_refused(tmp_path: Path):
    def rescale(d: Dataset) -> None:
        del d.RealWorldValueMappingSequence
        if d.ImageType[3] == "P":
            d.RescaleSlope, d.RescaleIntercept, d.RescaleType = 1, -2048, "US"

    with pytest.raises(NotConvertible, match="scale to radian is unknown"):
        converted(edited(write_philips(noise(), tmp_path), rescale))


def test_phase_is_never_stretched_to_its_own_range(tmp_path: Path):
    head = noise()
    quiet = dataclasses.replace(head.acquisition, phase=(0.1 * head.acquisition.phase).astype(np.float32))
    head = dataclasses.replace(head, acquisition=quiet)
    for writer in WRITERS.values():
        acquisition, _ = converted(writer(head, tmp_path / writer.__name__ / str(writer)))
        assert np.abs(acquisition.phase - quiet.phase).max() < PHASE_STEP


def test_real_and_imaginary_become_magnitude_and_phase(tmp_path: Path):
    paths = write_siemens(noise(), tmp_path)
    values = {}

    def cartesian(d: Dataset) -> None:
        is_real = d.ImageType[2] == "M"
        d.ImageType = ["ORIGINAL", "PRIMARY", "R" if is_real else "I", "ND"]
        d.RescaleSlope, d.RescaleIntercept = 2, -4096
        key = (float(d.EchoTime), float(d.ImagePositionPatient[2]), is_real)
        values[key] = 2.0 * d.pixel_array.astype(float) - 4096

    acquisition, _ = converted(edited(paths, cartesian))
    positions = sorted({position for _, position, _ in values})
    for echo, echo_time in enumerate((4.0, 10.7)):
        for k, position in enumerate(positions):
            expected = values[echo_time, position, True].T + 1j * values[echo_time, position, False].T
            found = acquisition.magnitude[echo, :, :, k] * np.exp(1j * acquisition.phase[echo, :, :, k])
            np.testing.assert_allclose(found, expected, atol=0.01)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
def test_losslessly_compressed_images_are_the_same(syntax, tmp_path: Path):
    head = noise(shape=(8, 8, 4))
    paths = write_siemens(head, tmp_path)
    expected = converted(paths)[0]

    def compress(d: Dataset) -> None:
        d.compress(syntax, generate_instance_uid=False)

    found, source = converted(edited(paths, compress))
    assert np.array_equal(found.phase, expected.phase)
    assert not source.lossy


def test_garbage_above_the_stored_bits_is_ignored(tmp_path: Path):
    paths = write_siemens(noise(), tmp_path)
    expected = converted(paths)[0]

    def soil(d: Dataset) -> None:
        d.PixelData = (np.frombuffer(d.PixelData, "<u2") | 0xA000).tobytes()

    assert np.array_equal(converted(edited(paths, soil))[0].phase, expected.phase)


def test_files_without_preamble_are_read(tmp_path: Path):
    paths = write_siemens(noise(), tmp_path)
    expected = converted(paths)[0]
    for path in paths:
        Dataset(dict(dcmread(path).items())).save_as(path, implicit_vr=True, little_endian=True)
    assert np.array_equal(converted(paths)[0].phase, expected.phase)


def test_padding_outside_the_turn_is_no_phase(tmp_path: Path):
    paths = write_siemens(noise(), tmp_path)

    def pad(d: Dataset) -> None:
        stored = d.pixel_array.astype("<i2")
        stored[0, 0] = -2000
        d.PixelRepresentation, d.BitsStored, d.HighBit = 1, 16, 15
        d.add_new("PixelPaddingValue", "SS", -2000)
        d.PixelData = stored.tobytes()

    acquisition, _ = converted(edited(paths, pad))
    assert np.all(acquisition.phase[:, 0, 0] == 0)
    assert np.all(acquisition.magnitude[:, 0, 0] == 0)


def test_phase_beyond_a_turn_is_refused(tmp_path: Path):
    def widen(d: Dataset) -> None:
        d.BitsStored, d.HighBit = 16, 15
        d.PixelData = (4 * np.frombuffer(d.PixelData, "<u2")).tobytes()

    with pytest.raises(NotConvertible, match="rad after the vendor's rule"):
        converted(edited(write_siemens(noise(), tmp_path), widen))


def test_irregular_slices_are_refused(tmp_path: Path):
    def shift(d: Dataset) -> None:
        if float(d.ImagePositionPatient[2]) > 45:
            d.ImagePositionPatient[2] = str(float(d.ImagePositionPatient[2]) + 1)

    with pytest.raises(NotConvertible, match="not regularly spaced"):
        converted(edited(write_siemens(noise(), tmp_path), shift))


def test_a_file_that_went_away_is_no_crash(tmp_path: Path):
    paths = write_siemens(noise(), tmp_path)
    (found,) = groups(paths)
    paths[3].unlink()
    with pytest.raises(NotConvertible, match="cannot be read any more"):
        convert(found)


def test_an_incomplete_group_is_refused_with_its_holes(tmp_path: Path):
    (found,) = groups(write_siemens(noise(), tmp_path)[:-1])
    with pytest.raises(NotConvertible, match="slice 5 missing"):
        convert(found)
