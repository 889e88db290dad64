"""What scanners, archives and people do to a scan on its way, on files as the vendors write them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from dicom_node.convert import convert, describe
from dicom_node.errors import NotConvertible
from dicom_node.group import group
from dicom_node.model import Completeness
from tests.dicom_node.convert.scans import AXIAL, converted, edited, groups, noise
from tests.simulation.ge import write_ge
from tests.simulation.hitachi import write_hitachi
from tests.simulation.philips import write_philips
from tests.simulation.siemens import write_siemens
from tests.simulation.siemens_enhanced import write_siemens_enhanced

PHASE_STEP = 2 * np.pi / 4095


def copied(paths: Sequence[Path], folder: Path, change: Callable[[Dataset], object]) -> list[Path]:
    """Copies as instances and series of their own."""
    folder.mkdir()
    copies = []
    for number, path in enumerate(paths):
        d = dcmread(path)
        d.SOPInstanceUID = d.file_meta.MediaStorageSOPInstanceUID = generate_uid(
            entropy_srcs=[d.SOPInstanceUID, folder.name]
        )
        d.SeriesInstanceUID = generate_uid(entropy_srcs=[d.SeriesInstanceUID, folder.name])
        change(d)
        copies.append(folder / f"{number}.dcm")
        d.save_as(copies[-1])
    return copies


def is_phase(path: Path) -> bool:
    return dcmread(path, stop_before_pixels=True).ImageType[2] == "P"


# Echoes


def test_echo_times_that_differ_in_the_third_decimal_are_one_echo(tmp_path: Path):
    def round_off(d: Dataset) -> None:
        if d.ImageType[2] == "P":
            d.EchoTime = f"{float(d.EchoTime) + 0.001:.3f}"

    acquisition, _ = converted(edited(write_siemens(noise(), tmp_path), round_off))
    assert acquisition.echo_times == pytest.approx((4e-3, 10.7e-3), abs=2e-6)


def test_a_single_echo(tmp_path: Path):
    for write in (write_siemens, write_philips, write_ge):
        acquisition, _ = converted(write(noise(echo_times=(20e-3,)), tmp_path / write.__name__))
        assert acquisition.phase.shape == (1, 7, 6, 5)


@pytest.mark.parametrize("series", ["one", "each"])
def test_an_enhanced_object_for_each_echo(series: str, tmp_path: Path):
    whole = write_siemens_enhanced(noise(), tmp_path)
    parts = []
    for path in whole:
        for echo in range(2):
            d = dcmread(path)
            pixels = d.pixel_array
            chosen = [n for n in range(len(pixels)) if n // 5 == echo]
            d.PerFrameFunctionalGroupsSequence = [d.PerFrameFunctionalGroupsSequence[n] for n in chosen]
            d.NumberOfFrames = len(chosen)
            d.PixelData = pixels[chosen].tobytes()
            d.SOPInstanceUID = d.file_meta.MediaStorageSOPInstanceUID = f"{d.SOPInstanceUID}.{echo + 1}"[-64:]
            if series == "each":
                d.SeriesInstanceUID = f"{d.SeriesInstanceUID}.{echo + 1}"[-64:]
            parts.append(tmp_path / f"{path.parent.name}-{echo}.dcm")
            d.save_as(parts[-1])
    assert np.array_equal(converted(parts)[0].phase, converted(whole)[0].phase)


# Arrival


def test_phase_that_comes_minutes_later_by_another_association(tmp_path: Path):
    paths = write_siemens(noise(), tmp_path)
    magnitude = [describe(path, 0.0, "first") for path in paths if not is_phase(path)]
    phase = [describe(path, 400.0, "second") for path in paths if is_phase(path)]
    (waiting,) = group(magnitude, 30.0, 60.0, frozenset())
    (incomplete,) = group(magnitude, 200.0, 60.0, frozenset())
    (complete,) = group([*magnitude, *phase], 500.0, 60.0, frozenset())
    assert (waiting.completeness, incomplete.completeness) == (Completeness.WAITING, Completeness.INCOMPLETE)
    assert incomplete.reason == "phase missing"
    assert complete.completeness is Completeness.COMPLETE
    assert waiting.key == incomplete.key == complete.key
    with pytest.raises(NotConvertible, match="phase missing"):
        convert(incomplete)


def test_two_repetitions_are_two_jobs(tmp_path: Path):
    first = write_siemens(noise(seed=1), tmp_path / "first", seed=1)
    second = write_siemens(noise(seed=2), tmp_path / "again", seed=1)

    def later(d: Dataset) -> None:
        d.AcquisitionTime = "103155.000000"

    second = copied(second, tmp_path / "second", later)
    found = groups([*first, *second])
    assert {frozenset(i.path for i in g.instances) for g in found} == {frozenset(first), frozenset(second)}
    phases = [convert(g)[0].phase for g in found]
    assert not np.array_equal(*phases)


@pytest.mark.parametrize("millimetres", [1.0, 12.5, 200.0])
def test_other_table_positions_are_other_jobs(millimetres: float, tmp_path: Path):
    first = write_siemens(noise(), tmp_path / "first")

    def moved(d: Dataset) -> None:
        x, y, z = d.ImagePositionPatient
        d.ImagePositionPatient = [x, y, float(z) + millimetres]
        d.AcquisitionTime = "103155.000000"

    second = copied(first, tmp_path / "second", moved)
    found = groups([*first, *second])
    assert {g.completeness for g in found} == {Completeness.COMPLETE}
    assert {frozenset(i.path for i in g.instances) for g in found} == {frozenset(first), frozenset(second)}
    assert all(convert(g)[0].geometry.shape == (7, 6, 5) for g in found)


# Slices


def test_slices_with_gaps_are_as_far_apart_as_they_are(tmp_path: Path):
    def thinner(d: Dataset) -> None:
        d.SliceThickness, d.SpacingBetweenSlices = "2", None

    acquisition, source = converted(edited(write_siemens(noise(), tmp_path), thinner))
    assert acquisition.geometry.voxel_size[2] == pytest.approx(2.5)
    assert source.warnings == ()


def test_duplicated_slices_with_other_pixels_are_refused(tmp_path: Path):
    paths = write_siemens(noise(), tmp_path)
    d = dcmread(paths[3])
    d.SOPInstanceUID = d.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    d.PixelData = bytes(len(d.PixelData))
    d.save_as(tmp_path / "twice.dcm")
    (found,) = groups([*paths, tmp_path / "twice.dcm"])
    assert found.completeness is Completeness.INCOMPLETE
    assert "there more than once and cannot be told apart" in found.reason
    with pytest.raises(NotConvertible, match="more than once"):
        convert(found)


def test_too_few_slices_are_no_volume(tmp_path: Path):
    with pytest.raises(NotConvertible, match="has 3 slices; expected a volume"):
        converted(write_siemens(noise(shape=(7, 6, 3)), tmp_path))


POSITIONS = {
    "HFS": AXIAL,
    "FFS": np.array([[1.0, 0, 0], [0, -1, 0], [0, 0, -1]]),
    "HFP": np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]]),
    "HFDL": np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]]),
    "HFDR": np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]),
    "FFDR": np.array([[0.0, -1, 0], [-1, 0, 0], [0, 0, -1]]),
}
"""R, A, S directions of columns, rows and slices of a slab across the magnet, for patients who lie otherwise."""


@pytest.mark.parametrize("position", POSITIONS)
def test_however_the_patient_lies_the_field_is_along_the_body(position: str, tmp_path: Path):
    head = noise(POSITIONS[position])
    acquisition, source = converted(
        edited(write_philips(head, tmp_path), lambda d: setattr(d, "PatientPosition", position))
    )
    assert np.abs(acquisition.geometry.b0_direction) == pytest.approx((0, 0, 1))
    np.testing.assert_allclose(source.affine, head.affine, atol=1e-4)


# Pixels


def test_pixels_that_are_no_number_are_set_to_zero(tmp_path: Path):
    head = noise()

    def to_float(d: Dataset) -> None:
        values = d.pixel_array.astype("<f4")
        values[1, 2] = np.nan
        values[2, 3] = np.inf
        del d.PixelData, d.BitsStored, d.HighBit, d.PixelRepresentation
        d.BitsAllocated = 32
        d.FloatPixelData = values.tobytes()

    acquisition, source = converted(edited(write_siemens(head, tmp_path), to_float))
    off = np.abs(np.angle(np.exp(1j * (acquisition.phase - head.acquisition.phase))))
    off[:, 2, 1] = off[:, 3, 2] = 0
    assert off.max() < PHASE_STEP
    for place in ((slice(None), 2, 1), (slice(None), 3, 2)):
        assert np.all(acquisition.phase[place] == 0)
        assert np.all(acquisition.magnitude[place] == 0)
    assert source.warnings == ("pixels that are no number were set to 0",)


def test_a_range_of_padding_is_no_phase(tmp_path: Path):
    def pad(d: Dataset) -> None:
        stored = d.pixel_array.astype("<i2")
        stored[0, 0], stored[0, 1] = -2000, -1990
        d.PixelRepresentation, d.BitsStored, d.HighBit = 1, 16, 15
        d.add_new("PixelPaddingValue", "SS", -2000)
        d.add_new("PixelPaddingRangeLimit", "SS", -1980)
        d.PixelData = stored.tobytes()

    acquisition, _ = converted(edited(write_siemens(noise(), tmp_path), pad))
    assert np.all(acquisition.phase[:, :2, 0] == 0)


def test_signed_phase_of_twelve_bits_keeps_its_sign_under_foreign_high_bits(tmp_path: Path):
    paths = write_hitachi(noise(), tmp_path)
    expected = converted(paths)[0]

    def soil(d: Dataset) -> None:
        d.PixelData = (np.frombuffer(d.PixelData, "<u2") ^ 0xA000).tobytes()

    assert np.array_equal(converted(edited(paths, soil))[0].phase, expected.phase)


# Headers


def test_image_type_with_fewer_values(tmp_path: Path):
    paths = write_philips(noise(), tmp_path / "philips")
    expected = converted(paths)[0]
    edited(paths, lambda d: setattr(d, "ImageType", d.ImageType[:3]))
    assert np.array_equal(converted(paths)[0].phase, expected.phase)
    edited(paths, lambda d: setattr(d, "ImageType", d.ImageType[:2]))
    assert np.array_equal(converted(paths)[0].phase, expected.phase)  # (2005,xx11) still tells
    (found, _) = groups(edited(write_siemens(noise(), tmp_path / "s"), lambda d: setattr(d, "ImageType", ["ORIGINAL"])))
    assert "tells neither magnitude, phase" in found.reason


@pytest.mark.parametrize(
    ("character_set", "name"),
    [
        ("ISO_IR 100", "Müller^Jürgen"),
        ("ISO_IR 144", "Люкceмбypг"),
        ("ISO_IR 192", "王^小東"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
        ("GB18030", "Wang^XiaoDong=王^小东="),
    ],
)
def test_names_in_any_script(character_set, name: str, tmp_path: Path):
    def rename(d: Dataset) -> None:
        d.SpecificCharacterSet, d.PatientName = character_set, name
        d.SeriesDescription = d.ProtocolName = name.partition("=")[0] if character_set != "GB18030" else "王"

    _, source = converted(edited(write_siemens(noise(), tmp_path), rename))
    assert str(source.headers[0].PatientName) == name.rstrip("=")
    assert source.headers[0].SpecificCharacterSet == character_set


@pytest.mark.parametrize("write", [write_philips, write_ge])
def test_three_dimensional_multi_echo_that_calls_itself_research_is_read(write, tmp_path: Path):
    paths = edited(write(noise(), tmp_path), lambda d: setattr(d, "ScanningSequence", "RM"))
    assert converted(paths)[0].phase.shape == (2, 7, 6, 5)


def test_research_that_is_neither_three_dimensional_nor_gradient_echo_is_refused(tmp_path: Path):
    def research(d: Dataset) -> None:
        d.ScanningSequence, d.MRAcquisitionType = "RM", "2D"

    assert {g.reason for g in groups(edited(write_siemens(noise(), tmp_path), research))} == {
        "research sequence that is neither 3D nor said to be a gradient echo (ScanningSequence RM)"
    }


def test_unsigned_parts_without_a_zero_are_refused_but_leave_magnitude_and_phase(tmp_path: Path):
    paths = write_siemens(noise(), tmp_path)

    def part(letter: str) -> Callable[[Dataset], object]:
        return lambda d: setattr(d, "ImageType", ["ORIGINAL", "PRIMARY", letter, "ND"])

    real = copied([path for path in paths if not is_phase(path)], tmp_path / "real", part("R"))
    imaginary = copied([path for path in paths if not is_phase(path)], tmp_path / "imaginary", part("I"))
    found = {g.completeness: g for g in groups([*paths, *real, *imaginary])}
    assert {i.path for i in found[Completeness.COMPLETE].instances} == set(paths)
    assert "its zero is unknown" in found[Completeness.FOREIGN].reason
