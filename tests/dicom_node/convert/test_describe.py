from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    EnhancedSRStorage,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    MRSpectroscopyStorage,
    SecondaryCaptureImageStorage,
)

from dicom_node.convert import convert, describe
from dicom_node.errors import NotConvertible, UnreadableObject
from dicom_node.group import group
from dicom_node.model import Component, Instance
from tests.dicom_node.convert.scans import noise
from tests.simulation.bruker import write_bruker
from tests.simulation.ge import write_ge
from tests.simulation.generic import write_generic
from tests.simulation.hitachi import write_hitachi
from tests.simulation.philips import write_philips, write_philips_enhanced
from tests.simulation.siemens import write_siemens
from tests.simulation.siemens_enhanced import write_siemens_enhanced
from tests.simulation.united_imaging import write_united_imaging


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """One small scan by each writer."""
    head = noise(shape=(6, 5, 4), echo_times=(4e-3, 10.7e-3))
    writers = (
        write_siemens,
        write_siemens_enhanced,
        write_philips,
        write_philips_enhanced,
        write_ge,
        write_united_imaging,
        write_hitachi,
        write_bruker,
        write_generic,
    )
    return {w.__name__: w(head, tmp_path_factory.mktemp(w.__name__)) for w in writers}


def described(dataset: Dataset, folder: Path) -> Instance:
    path = folder / "object"
    dataset.save_as(path)
    return describe(path, 7.0, "association")


def siemens(stored: dict[str, list[Path]], component: str = "M") -> Dataset:
    return dcmread(stored["write_siemens"][0 if component == "M" else -1])


def test_a_siemens_image(stored, tmp_path: Path):
    instance = described(siemens(stored), tmp_path)
    assert (instance.encoding, instance.refusal, instance.series_number) == ("siemens", "", 5)
    assert (instance.rows, instance.columns, instance.pixel_spacing) == (5, 6, (0.75, 1.25))
    (frame,) = instance.frames
    assert (frame.component, frame.echo_time) == (Component.MAGNITUDE, 4.0)
    assert (instance.received_at, instance.association, len(instance.digest)) == (7.0, "association", 64)
    assert instance.protocol == "15.7/15"


def test_an_enhanced_object_has_its_frames(stored):
    (path,) = stored["write_philips_enhanced"]
    instance = describe(path, 0.0, "1")
    assert len(instance.frames) == 2 * 2 * 4
    assert {frame.echo_time for frame in instance.frames} == {4.0, 10.7}
    assert {frame.component for frame in instance.frames} == {Component.MAGNITUDE, Component.PHASE}
    assert [frame.index for frame in instance.frames] == list(range(16))


def set_(**attributes: object) -> Callable[[Dataset], None]:
    def change(dataset: Dataset) -> None:
        for keyword, value in attributes.items():
            setattr(dataset, keyword, value)

    return change


REFUSED = {
    "localiser": (set_(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER", "M"]), "localiser"),
    "derived": (set_(ImageType=["DERIVED", "PRIMARY", "M", "ND"]), "derived image"),
    "swi": (set_(ImageType=["ORIGINAL", "PRIMARY", "P", "ND", "SWI"]), "filtered susceptibility-weighted"),
    "mip": (set_(ImageType=["ORIGINAL", "PRIMARY", "MNIP", "ND"]), "minimum intensity projection"),
    "diffusion": (set_(ImageType=["ORIGINAL", "PRIMARY", "DIFFUSION", "NONE"]), "diffusion image"),
    "field map": (set_(ImageType=["ORIGINAL", "PRIMARY", "FIELD_MAP", "P"]), "field map in Hz"),
    "hertz": (set_(RescaleType="Hz"), "map in Hz"),
    "echo-planar": (set_(ScanningSequence=["EP", "GR"]), "echo-planar"),
    "spin echo": (set_(ScanningSequence="SE"), "spin echo"),
    "b-value": (set_(DiffusionBValue=1000.0), "b = 1000"),
    "no echo": (set_(EchoTime=None), "no echo time"),
    "echo of zero": (set_(EchoTime="0"), "echo time 0 ms"),
    "sodium": (set_(ImagedNucleus="23NA"), "image of 23NA"),
    "phase difference": (set_(SequenceName="*fm2d2"), "phase is the difference"),
    "velocity": (set_(SequenceName="*fl2d1_v150in"), "its phase is velocity"),
    "mprage": (set_(ScanningSequence=["GR", "IR"]), "inversion recovery"),
    "no component": (set_(ImageType=["ORIGINAL", "PRIMARY", "OTHER"]), "tells neither magnitude, phase"),
    "no component, no vendor": (
        set_(Manufacturer=None, ImageType=["ORIGINAL", "PRIMARY", "OTHER"]),
        "may have been removed by an anonymiser",
    ),
    "position": (set_(ImagePositionPatient=None), "cannot be placed"),
    "spacing": (set_(PixelSpacing=["0", "1"]), "cannot be placed"),
    "colour": (set_(SamplesPerPixel=3), "colour"),
    "spectroscopy": (set_(SOPClassUID=MRSpectroscopyStorage), "MR Spectroscopy Storage is not an MR image"),
    "capture": (set_(SOPClassUID=SecondaryCaptureImageStorage), "Secondary Capture Image Storage is not"),
    "report": (set_(SOPClassUID=EnhancedSRStorage), "Enhanced SR Storage is not"),
    "private": (set_(SOPClassUID="1.2.3.4"), "1.2.3.4 is not"),
}


@pytest.mark.parametrize(("change", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_multi_echo_phase_is_refused_by_name(change, reason: str, stored, tmp_path: Path):
    dataset = siemens(stored)
    change(dataset)
    if "SamplesPerPixel" in dataset and dataset.SamplesPerPixel == 3:
        dataset.PixelData = dataset.PixelData * 3
    instance = described(dataset, tmp_path)
    assert reason in instance.refusal
    assert instance.frames == ()


def test_philips_maps_in_other_units_are_refused(stored, tmp_path: Path):
    dataset = dcmread(stored["write_philips"][-1])
    dataset.RescaleType = "cm/s"
    assert "unit is cm/s" in described(dataset, tmp_path).refusal
    dataset.RescaleType = "US"
    dataset.RealWorldValueMappingSequence[0].MeasurementUnitsCodeSequence[0].CodeValue = "Hz"
    assert "map in Hz" in described(dataset, tmp_path).refusal
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "SW_P_FFE", "P", "FFE"]
    assert "filtered" in described(dataset, tmp_path).refusal


def test_lossy_phase_is_refused_and_lossy_magnitude_is_not(stored, tmp_path: Path):
    for component, refused in (("M", False), ("P", True)):
        dataset = siemens(stored, component)
        dataset.LossyImageCompression = "01"
        assert ("compressed with loss" in described(dataset, tmp_path).refusal) is refused
        dataset = siemens(stored, component)
        dataset.LossyImageCompression = "00"
        dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
        dataset.PixelData = b"\xfe\xff\x00\xe0\x00\x00\x00\x00"
        assert ("compressed with loss" in described(dataset, tmp_path).refusal) is refused


def test_an_enhanced_object_keeps_the_frames_that_are_of_use(stored, tmp_path: Path):
    dataset = dcmread(stored["write_philips_enhanced"][0])
    dataset.PerFrameFunctionalGroupsSequence[0].MREchoSequence[0].EffectiveEchoTime = 0.0
    assert [frame.index for frame in described(dataset, tmp_path).frames] == list(range(1, 16))


def test_an_enhanced_object_of_several_repetitions_is_refused(stored, tmp_path: Path):
    dataset = dcmread(stored["write_philips_enhanced"][0])
    dataset.PerFrameFunctionalGroupsSequence[0].FrameContentSequence[0].TemporalPositionIndex = 2
    assert "several repetitions" in described(dataset, tmp_path).refusal


def test_an_enhanced_object_of_several_orientations_is_refused(stored, tmp_path: Path):
    dataset = dcmread(stored["write_philips_enhanced"][0])
    plane = dataset.PerFrameFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
    plane.ImageOrientationPatient = ["0", "1", "0", "0", "0", "-1"]
    assert "several orientations" in described(dataset, tmp_path).refusal


def test_an_enhanced_object_without_its_functional_groups_is_refused(stored, tmp_path: Path):
    dataset = dcmread(stored["write_siemens_enhanced"][0])
    dataset.PerFrameFunctionalGroupsSequence = Sequence()
    assert "without readable frames" in described(dataset, tmp_path).refusal
    del dataset.PerFrameFunctionalGroupsSequence
    assert "without readable frames" in described(dataset, tmp_path).refusal


def test_pixels_are_not_decoded(stored, tmp_path: Path):
    dataset = siemens(stored)
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.70"
    dataset["PixelData"].is_undefined_length = True
    dataset["PixelData"].VR = "OB"
    dataset.PixelData = b"\xfe\xff\x00\xe0\x00\x00\x00\x00" + b"\xfe\xff\x00\xe0\x04\x00\x00\x00abcd"
    assert described(dataset, tmp_path).refusal == ""


# Bytes that are no object


def test_unreadable_files(stored, tmp_path: Path):
    whole = stored["write_siemens"][0].read_bytes()
    path = tmp_path / "object"
    for content, reason in (
        (b"", "no SOPClassUID"),
        (b"not DICOM at all, but longer than the preamble would be" * 10, "cannot be read|no SOPClassUID"),
        (bytes(200), "no SOPClassUID"),
        (whole[:200], "no SOPClassUID"),
        (whole[:-10], "truncated"),
        (whole[: whole.index(b"\xe0\x7f\x10\x00")], "truncated"),
    ):
        path.write_bytes(content)
        with pytest.raises(UnreadableObject, match=reason):
            describe(path, 0.0, "1")
    with pytest.raises(UnreadableObject, match="cannot be read"):
        describe(tmp_path / "absent", 0.0, "1")


@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID"])
def test_an_object_without_its_uids_cannot_be_indexed(keyword: str, stored, tmp_path: Path):
    dataset = siemens(stored)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    delattr(dataset, keyword)
    path = tmp_path / "object"
    dataset.save_as(path)
    with pytest.raises(UnreadableObject, match=keyword):
        describe(path, 0.0, "1")


def test_a_file_without_preamble_is_read(stored, tmp_path: Path):
    dataset = siemens(stored)
    path = tmp_path / "object"
    plain = Dataset(dict(dataset.items()))
    plain.save_as(path, implicit_vr=True, little_endian=True)
    assert describe(path, 0.0, "1").refusal == ""


# Hostile headers

WRITERS = [
    "write_siemens",
    "write_siemens_enhanced",
    "write_philips",
    "write_philips_enhanced",
    "write_ge",
    "write_united_imaging",
    "write_hitachi",
    "write_bruker",
    "write_generic",
]

unhurried = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


@pytest.fixture(scope="module")
def companions(stored) -> dict[str, list[Instance]]:
    """What belongs to the first object of each scan."""
    return {writer: [describe(path, 0.0, "1") for path in paths[1:]] for writer, paths in stored.items()}


def try_everything(path: Path, companions: list[Instance]) -> None:
    """Describes, groups and converts; the only errors are those that have a name."""
    try:
        instances = [describe(path, 0.0, "1"), *companions]
    except UnreadableObject:
        return
    for found in group(instances, 1e4, 60.0, frozenset()):
        try:
            convert(found)
        except NotConvertible:
            continue


def places(dataset: Dataset) -> list[tuple[Dataset, int]]:
    """Every element at any depth, pixels apart."""
    found = []
    for element in dataset:
        if element.tag.group == 0x7FE0 or element.keyword == "SpecificCharacterSet":
            continue  # pydicom writes nothing without a sound character set
        found.append((dataset, int(element.tag)))
        if element.VR == "SQ":
            for item in element.value:
                found += places(item)
    return found


damages = st.lists(
    st.tuples(
        st.integers(0, 10_000),
        st.one_of(
            st.sampled_from(["remove", "empty"]),
            st.tuples(st.sampled_from(["its own", "FD", "US", "LO", "DS", "UN", "AT"]), st.binary(max_size=20)),
        ),
    ),
    min_size=1,
    max_size=4,
)
"""Which element, and what is done to it: removed, emptied, or overwritten with bytes, also of a VR not its own."""


def damaged(dataset: Dataset, damage: list[tuple[int, str | tuple[str, bytes]]], path: Path) -> None:
    """Stores the damaged dataset.  pydicom writes no malformed element: the VR is put in after it wrote."""
    known = places(dataset)
    overwritten = {}
    for place, action in damage:
        where, tag = known[place % len(known)]
        if tag not in where:
            continue
        vr = where[tag].VR
        if action == "remove":
            del where[tag]
        elif action == "empty":
            where[tag] = DataElement(tag, vr, Sequence() if vr == "SQ" else None)
        else:
            new, content = action
            where[tag] = DataElement(tag, "OB", content + b" " * (len(content) % 2))
            overwritten[struct.pack("<HH", tag >> 16, tag & 0xFFFF)] = vr if new == "its own" else new
    dataset.save_as(path)
    stored = path.read_bytes()
    for tag_bytes, vr in overwritten.items():
        head, found, tail = stored.partition(tag_bytes + b"OB\0\0")
        if found and vr in LONG_FORM:
            stored = head + tag_bytes + vr.encode() + bytes(2) + tail
        elif found:
            # The short form has 4 bytes less of length, which go to the value: no other length changes.
            (length,) = struct.unpack("<L", tail[:4])
            value = tail[4 : 4 + length] + bytes(4)
            stored = head + tag_bytes + vr.encode() + struct.pack("<H", len(value)) + value + tail[4 + length :]
    path.write_bytes(stored)


LONG_FORM = ("UN", "SQ", "OW", "OB", "UT")


@unhurried
@given(
    damage=damages,
    writer=st.sampled_from(WRITERS),
)
def test_hostile_headers_raise_named_errors_only(damage, writer: str, stored, companions, tmp_path: Path):
    path = tmp_path / "hostile"
    damaged(dcmread(stored[writer][0]), damage, path)
    try_everything(path, companions[writer])


@unhurried
@given(
    writer=st.sampled_from(["write_siemens", "write_philips", "write_philips_enhanced"]),
    cut=st.integers(0, 4000),
    soiled=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=5),
)
def test_damaged_bytes_raise_named_errors_only(writer: str, cut: int, soiled, stored, companions, tmp_path: Path):
    content = bytearray(stored[writer][0].read_bytes())
    for at, byte in soiled:
        content[at % len(content)] = byte
    path = tmp_path / "damaged"
    path.write_bytes(content[: len(content) - cut] if cut % 2 else content)
    try_everything(path, companions[writer])
