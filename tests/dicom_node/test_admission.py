"""What is admitted and what is not, byte by byte.  The law: any bytes are admitted or NotAdmitted, nothing else."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from dicom_node.admission import NotAdmitted, admit
from dicom_node.convert import describe
from dicom_node.errors import UnreadableObject
from dicom_node.structure import Skeleton
from tests.objects import STUDY, encode, enhanced_mr_image, mr_image, part_10, with_meta

pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR")

PLAIN = [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian]
IMAGE = mr_image()
ENHANCED = enhanced_mr_image()


def _admit(encoded: bytes, image: Dataset = IMAGE, syntax: UID = ExplicitVRLittleEndian, **limits: int) -> str:
    return admit(
        encoded,
        sop_class_uid=image.SOPClassUID,
        sop_instance_uid=image.SOPInstanceUID,
        transfer_syntax=syntax,
        **limits,
    )


def _refusal(
    encoded: bytes, image: Dataset = IMAGE, syntax: UID = ExplicitVRLittleEndian, **limits: int
) -> NotAdmitted:
    with pytest.raises(NotAdmitted) as caught:
        _admit(encoded, image, syntax, **limits)
    return caught.value


def _deflate(plain: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflater.compress(plain) + deflater.flush()


def _rle(image: Dataset) -> bytes:
    compressed = with_meta(image, ExplicitVRLittleEndian)
    compressed.compress(RLELossless, generate_instance_uid=False)
    return encode(compressed)


@pytest.mark.parametrize("syntax", PLAIN, ids=lambda syntax: syntax.name)
@pytest.mark.parametrize("image", [IMAGE, ENHANCED], ids=["classic", "enhanced"])
def test_a_sound_image_is_admitted_with_its_study(image: Dataset, syntax: UID) -> None:
    assert _admit(encode(image, syntax), image, syntax) == STUDY


def test_deflated_and_compressed_images_are_admitted() -> None:
    assert _admit(_deflate(encode(IMAGE)), syntax=DeflatedExplicitVRLittleEndian) == STUDY
    assert _admit(_rle(mr_image()), syntax=RLELossless) == STUDY


@pytest.mark.parametrize("syntax", PLAIN, ids=lambda syntax: syntax.name)
@pytest.mark.parametrize("image", [IMAGE, ENHANCED], ids=["classic", "enhanced"])
def test_cut_off_at_any_byte_is_refused(image: Dataset, syntax: UID) -> None:
    encoded = encode(image, syntax)
    for length in range(len(encoded)):
        assert _refusal(encoded[:length], image, syntax).status in (0xA900, 0xC000)


def test_cut_off_compressed_and_deflated_is_refused() -> None:
    compressed, deflated = _rle(mr_image()), _deflate(encode(IMAGE))
    for length in range(len(compressed)):
        _refusal(compressed[:length], syntax=RLELossless)
    for length in range(len(deflated)):
        _refusal(deflated[:length], syntax=DeflatedExplicitVRLittleEndian)


@pytest.mark.parametrize(
    "keyword",
    [
        *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "ImageType"),
        *("Rows", "Columns", "BitsAllocated", "BitsStored", "SamplesPerPixel", "PixelRepresentation"),
        *("PhotometricInterpretation", "PixelData", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"),
    ],
)
def test_a_missing_or_empty_attribute_is_named(keyword: str) -> None:
    image = mr_image()
    delattr(image, keyword)
    refusal = _refusal(encode(image))
    assert refusal.status == 0xA900
    assert keyword in str(refusal)
    if keyword != "PixelData":
        image = mr_image()
        setattr(image, keyword, None)
        assert _refusal(encode(image)).status == 0xA900


@pytest.mark.parametrize(
    "keyword", ["NumberOfFrames", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"]
)
def test_a_missing_multi_frame_attribute_is_named(keyword: str) -> None:
    image = enhanced_mr_image()
    delattr(image, keyword)
    assert keyword in str(_refusal(encode(image), image))


def test_a_screen_capture_needs_no_plane() -> None:
    image = mr_image()
    image.ImageType = ["DERIVED", "SECONDARY"]
    del image.ImagePositionPatient, image.ImageOrientationPatient, image.PixelSpacing
    assert _admit(encode(image)) == STUDY


@pytest.mark.parametrize(
    ("keyword", "vr", "value"),
    [
        ("Rows", b"LO", b"4   "),
        ("Rows", b"OW", b""),
        ("EchoTime", b"FD", struct.pack("<d", 4.0)),
        ("PixelSpacing", b"SH", b"1\\1 "),
        ("StudyInstanceUID", b"LO", b"1.23"),
        ("ImagePositionPatient", b"DS", b"a\\b\\c "),
        ("EchoTime", b"DS", b"four"),
        ("BitsAllocated", b"US", b"\x10\x00\x10"),
        ("Rows", b"US", b"\x04\x00\x04\x00"),
        ("Rows", b"ZZ", b"\x04\x00"),
    ],
)
def test_a_wrong_value_representation_is_refused(keyword: str, vr: bytes, value: bytes) -> None:
    """The element is replaced by one of another VR, or of the right VR with a value it cannot have."""
    tag = tag_for_keyword(keyword)
    assert tag is not None
    image = mr_image()
    before, behind = Dataset(), Dataset()
    for element in image:
        if element.tag != tag:
            (before if element.tag < tag else behind).add(element)
    header = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr)
    length = struct.pack("<HL", 0, len(value)) if vr == b"OW" else struct.pack("<H", len(value))
    refusal = _refusal(encode(before) + header + length + value + encode(behind))
    assert refusal.status in (0xA900, 0xC000)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (lambda image: setattr(image, "SOPInstanceUID", "1.2.3"), 0xA900),
        (lambda image: setattr(image, "SOPClassUID", "1.2.840.10008.5.1.4.1.1.2"), 0xA900),
        (lambda image: setattr(image, "Rows", 0), 0xA900),
        (lambda image: setattr(image, "Rows", 5), 0xC000),
        (lambda image: setattr(image, "NumberOfFrames", 2), 0xC000),
        (lambda image: setattr(image, "NumberOfFrames", -1), 0xA900),
        (lambda image: setattr(image, "NumberOfFrames", 2**31 - 1), 0xA700),
        (lambda image: setattr(image, "BitsAllocated", 12), 0xA900),
        (lambda image: setattr(image, "BitsStored", 17), 0xA900),
        (lambda image: setattr(image, "PhotometricInterpretation", "MONOCHROME3"), 0xA900),
        (lambda image: setattr(image, "PixelRepresentation", 2), 0xA900),
        (lambda image: setattr(image, "PixelSpacing", [1, 1, 1]), 0xA900),
    ],
)
def test_what_does_not_belong_together_is_refused(change: Callable[[Dataset], None], status: int) -> None:
    image = mr_image()
    change(image)
    assert _refusal(encode(image)).status == status


def test_frames_that_are_not_described_are_refused() -> None:
    image = enhanced_mr_image(3)
    image.PerFrameFunctionalGroupsSequence = image.PerFrameFunctionalGroupsSequence[:2]
    assert "2 frames are described" in str(_refusal(encode(image), image))


@pytest.mark.parametrize("uid", ["../../etc/passwd", "1.2.3/4", "1.2.3\\4", "..", "1.2.03", "1" * 65])
def test_a_uid_that_is_a_path_or_none_is_refused(uid: str) -> None:
    image = mr_image()
    image.add_new("SOPInstanceUID", "UI", uid)
    assert _refusal(encode(image), image).status == 0xA900
    study = mr_image()
    study.add_new("StudyInstanceUID", "UI", uid)
    assert _refusal(encode(study), study).status == 0xA900


def test_compressed_pixels_in_a_plain_syntax_and_the_reverse_are_refused() -> None:
    assert "undefined length" in str(_refusal(_rle(mr_image())))
    assert "not encapsulated" in str(_refusal(encode(IMAGE), syntax=RLELossless))


def test_fewer_fragments_than_frames_are_refused() -> None:
    image = enhanced_mr_image(3)
    image.PixelData = encapsulate([b"\0\0", b"\0\0"])
    image["PixelData"].is_undefined_length = True
    assert "2 fragments for 3 frames" in str(_refusal(encode(image), image, RLELossless))


def test_a_deflate_bomb_stops_at_the_limit() -> None:
    bomb = _deflate(bytes(50_000_000))
    assert len(bomb) < 100_000
    refusal = _refusal(bomb, syntax=DeflatedExplicitVRLittleEndian, maximum_bytes=1_000_000)
    assert refusal.status == 0xA700


def test_a_deflate_bomb_is_smaller_in_memory_than_an_object_may_be_on_disk() -> None:
    refusal = _refusal(_deflate(bytes(2**28 + 2**20)), syntax=DeflatedExplicitVRLittleEndian)
    assert (refusal.status, "grows beyond 268435456 bytes" in str(refusal)) == (0xA700, True)


def test_what_follows_a_deflated_data_set_is_refused_and_costs_no_memory() -> None:
    deflated = _deflate(encode(IMAGE))
    assert _admit(deflated + b"\0", syntax=DeflatedExplicitVRLittleEndian) == STUDY, "a byte that pads it is refused"
    assert "2 bytes follow" in str(_refusal(deflated + b"\0\0", syntax=DeflatedExplicitVRLittleEndian))
    behind = deflated + bytes(40_000_000)
    tracemalloc.start()
    try:
        refusal = _refusal(behind, syntax=DeflatedExplicitVRLittleEndian)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (refusal.status, peak < 8_000_000) == (0xC000, True)
    refusal = _refusal(behind, syntax=DeflatedExplicitVRLittleEndian, maximum_bytes=10_000_000)
    assert refusal.status == 0xA700, "what is larger deflated than it may be inflated"


def test_a_tower_of_sequences_is_refused() -> None:
    tower = struct.pack("<HH2sHL", 0x0040, 0xA730, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    assert "nested" in str(_refusal(tower * 100_000))


def test_an_element_twice_is_ambiguous() -> None:
    encoded = encode(IMAGE)
    assert "twice" in str(_refusal(encoded + encoded[-60:]))


@pytest.mark.parametrize("garbage", [b"", b"\0", b"hello world, I am no data set", bytes(128) + b"DICM", bytes(10_000)])
def test_what_is_no_data_set_is_refused(garbage: bytes) -> None:
    for syntax in (*PLAIN, DeflatedExplicitVRLittleEndian, RLELossless):
        assert _refusal(garbage, syntax=syntax).status in (0xA900, 0xC000)


_SYNTAXES = st.sampled_from([*PLAIN, DeflatedExplicitVRLittleEndian, RLELossless])


def _admitted_or_refused(encoded: bytes, image: Dataset, syntax: UID) -> None:
    try:
        status = 0x0000 if _admit(encoded, image, syntax, maximum_bytes=2**24) else None
    except NotAdmitted as refusal:
        status = refusal.status
    assert status in (0x0000, 0xA700, 0xA900, 0xC000)


@given(st.binary(max_size=400), _SYNTAXES)
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_admitted_or_refused(encoded: bytes, syntax: UID) -> None:
    _admitted_or_refused(encoded, IMAGE, syntax)


@given(
    st.sampled_from([IMAGE, ENHANCED]),
    st.sampled_from(PLAIN),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6),
)
@settings(max_examples=600, deadline=None)
def test_any_mutation_is_admitted_or_refused(image: Dataset, syntax: UID, changes: list[tuple[float, int]]) -> None:
    encoded = bytearray(encode(image, syntax))
    for place, value in changes:
        encoded[int(place * len(encoded))] = value
    _admitted_or_refused(bytes(encoded), image, syntax)


@given(
    st.sampled_from([IMAGE, ENHANCED]),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=3),
)
@settings(max_examples=200, deadline=None)
def test_what_is_admitted_can_be_described(
    tmp_path_factory: pytest.TempPathFactory, image: Dataset, changes: list[tuple[float, int]]
) -> None:
    """A sender is not told 0x0000 for an object that the next step would throw out."""
    encoded = bytearray(encode(image))
    for place, value in changes:
        encoded[int(place * len(encoded))] = value
    try:
        _admit(bytes(encoded), image)
    except NotAdmitted:
        return
    path = tmp_path_factory.getbasetemp() / "admitted.dcm"
    path.write_bytes(part_10(image, encoded))
    assert describe(path, 0.0, "").sop_instance_uid == image.SOPInstanceUID


@given(st.integers(0, 300), st.binary(min_size=1, max_size=40))
@settings(max_examples=200, deadline=None)
def test_any_splice_is_admitted_or_refused(place: int, inserted: bytes) -> None:
    encoded = encode(ENHANCED)
    _admitted_or_refused(encoded[:place] + inserted + encoded[place:], ENHANCED, ExplicitVRLittleEndian)


@pytest.mark.parametrize("syntax", PLAIN, ids=lambda syntax: syntax.name)
def test_the_skeleton_names_the_elements_that_pydicom_reads(syntax: UID) -> None:
    encoded = encode(ENHANCED, syntax)
    skeleton = Skeleton(
        encoded, implicit=syntax.is_implicit_VR, little_endian=syntax.is_little_endian, encapsulated=False
    )
    assert list(skeleton.elements) == [element.tag for element in ENHANCED]


def test_undefined_lengths_are_walked() -> None:
    image = enhanced_mr_image()
    image["PerFrameFunctionalGroupsSequence"].is_undefined_length = True
    for item in image.PerFrameFunctionalGroupsSequence:
        item.is_undefined_length_sequence_item = True
        item["PlanePositionSequence"].is_undefined_length = True
    encoded = encode(image)
    assert b"\xfe\xff\x0d\xe0" in encoded
    skeleton = Skeleton(encoded, implicit=False, little_endian=True, encapsulated=False)
    assert skeleton.elements[0x52009230].items == 3
    assert _admit(encoded, image) == STUDY
    for length in range(len(encoded)):
        with pytest.raises(UnreadableObject):
            _admit(encoded[:length], image)


@pytest.mark.parametrize("name", ["philips_classic", "philips_enhanced", "siemens_phase_difference"])
def test_real_objects_are_admitted(name: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(name)
    files = [path for path in folder.rglob("*") if path.is_file() and path.read_bytes()[128:132] == b"DICM"]
    assert files
    for path in files[::10]:
        content = path.read_bytes()
        meta = dcmread(BytesIO(content), stop_before_pixels=True).file_meta
        data_set = content[128 + 4 + 12 + meta.FileMetaInformationGroupLength :]
        assert admit(
            data_set,
            sop_class_uid=meta.MediaStorageSOPClassUID,
            sop_instance_uid=meta.MediaStorageSOPInstanceUID,
            transfer_syntax=meta.TransferSyntaxUID,
        )


_EMPTY_ITEM = b"\xfe\xff\x00\xe0" + bytes(4)


@pytest.mark.parametrize("undefined", [True, False])
def test_more_items_than_any_object_has_are_refused_before_they_are_parsed(undefined: bool) -> None:
    """pydicom makes more than a kilobyte of an item of eight bytes: 2 GB of them would be 300 GB of memory."""
    items = _EMPTY_ITEM * (2**19 + 1)
    length, end = (b"\xff" * 4, b"\xfe\xff\xdd\xe0" + bytes(4)) if undefined else (struct.pack("<L", len(items)), b"")
    refusal = _refusal(_with(struct.pack("<HH2sH", 0x0029, 0x1010, b"SQ", 0) + length + items + end))
    assert (refusal.status, "items of sequences" in str(refusal)) == (0xC000, True)


def test_items_within_items_count_too() -> None:
    inner = _EMPTY_ITEM * (2**19 + 1)
    nested = struct.pack("<HH2sHL", 0x0029, 0x1011, b"SQ", 0, len(inner)) + inner
    outer = struct.pack("<HHL", 0xFFFE, 0xE000, len(nested)) + nested + b"\xfe\xff\xdd\xe0" + bytes(4)
    refusal = _refusal(_with(struct.pack("<HH2sHL", 0x0029, 0x1010, b"SQ", 0, 0xFFFFFFFF) + outer))
    assert "items of sequences" in str(refusal)


def test_more_frames_than_any_scanner_makes_are_refused() -> None:
    image = enhanced_mr_image()
    image.NumberOfFrames = 2**16 + 1
    refusal = _refusal(encode(image), image)
    assert (refusal.status, "65536 are allowed" in str(refusal)) == (0xC000, True)


def test_a_header_larger_than_any_is_refused_wherever_it_lies() -> None:
    blob = struct.pack("<HH2sHL", 0x7FE1, 0x1010, b"OB", 0, 2**26) + bytes(2**26)
    last = struct.pack("<HH2sHL", 0xFFFC, 0xFFFC, b"OB", 0, 0)
    for encoded in (_with(blob), encode(IMAGE) + blob + last):
        assert "besides its Pixel Data" in str(_refusal(encoded))


def test_more_fragments_than_any_frame_needs_are_refused() -> None:
    head, _, _ = encode(IMAGE).partition(_PIXEL_DATA)
    pixels = _PIXEL_DATA + struct.pack("<2sHL", b"OB", 0, 0xFFFFFFFF) + _EMPTY_ITEM * (2**20 + 2)
    refusal = _refusal(head + pixels + b"\xfe\xff\xdd\xe0" + bytes(4), syntax=RLELossless)
    assert "1048576 fragments" in str(refusal)


_PIXEL_DATA = struct.pack("<HH", 0x7FE0, 0x0010)


def _with(element: bytes) -> bytes:
    """The image with one more element before its pixels."""
    head, tag, pixels = encode(IMAGE).partition(_PIXEL_DATA)
    return head + element + tag + pixels
