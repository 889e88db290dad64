"""What must be true of an object before the node says that it has it.

The statuses are those of the Storage service (PS3.4 B.2.3): 0xA700 out of resources, 0xA900 data set does not match SOP
class, 0xC000 cannot understand; and 0x0122 SOP class not supported (PS3.7 C.5.6).  The rules ask for what every later
step relies on (identity, Image Pixel module, for original images the Image Plane module) and for nothing else: a
scanner's oddities are not our business.
"""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.pixels.utils import get_expected_length
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    LegacyConvertedEnhancedMRImageStorage,
    MRImageStorage,
    RLELossless,
)

from dicom_node.errors import UnreadableObject
from dicom_node.spool import UID_PATTERN
from dicom_node.structure import PIXEL_DATA, Skeleton

ADMITTED_SOP_CLASSES = (MRImageStorage, EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage)
ADMITTED_TRANSFER_SYNTAXES = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    RLELossless,
    JPEGLosslessSV1,
    JPEGLossless,
    JPEGLSLossless,
    JPEG2000Lossless,
)
"""Those whose pixels the locked decoders read without loss, in the order of our preference."""

CANNOT_UNDERSTAND = 0xC000
DOES_NOT_MATCH_SOP_CLASS = 0xA900
SOP_CLASS_NOT_SUPPORTED = 0x0122
OUT_OF_RESOURCES = 0xA700

_ANY = 0  # any number of values, but at least one
_IDENTITY = {"SOPClassUID": 1, "SOPInstanceUID": 1, "StudyInstanceUID": 1, "SeriesInstanceUID": 1}
_IMAGE_PIXEL = {
    "SamplesPerPixel": 1,
    "PhotometricInterpretation": 1,
    "Rows": 1,
    "Columns": 1,
    "BitsAllocated": 1,
    "BitsStored": 1,
    "PixelRepresentation": 1,
}
_IMAGE_PLANE = {"PixelSpacing": 2, "ImagePositionPatient": 3, "ImageOrientationPatient": 6}
"""Asked of ORIGINAL classic images only: screen captures and reports that scanners store as MR images have no plane."""
_MULTI_FRAME = {"NumberOfFrames": 1, "SharedFunctionalGroupsSequence": _ANY, "PerFrameFunctionalGroupsSequence": _ANY}
_USED_LATER = (
    "EchoTime",
    "ImagingFrequency",
    "MagneticFieldStrength",
    "RescaleSlope",
    "RescaleIntercept",
    "SeriesNumber",
)
"""May be absent; where present they must be what they claim to be."""
_BITS_ALLOCATED = (8, 16, 32)

_KEYWORDS = ("ImageType", *_IDENTITY, *_IMAGE_PIXEL, *_IMAGE_PLANE, *_MULTI_FRAME, *_USED_LATER)
_TAGS = [tag for keyword in _KEYWORDS if (tag := tag_for_keyword(keyword)) is not None]

# What pydicom is seen to raise on values that are not what their VR says.
_CONVERSION_ERRORS = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    ArithmeticError,
    NotImplementedError,
    RecursionError,
    EOFError,
    struct.error,
)


class NotAdmitted(UnreadableObject):
    """An object that is refused; `status` is what the sender is told, the message what the operator is told."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def admit(
    encoded: bytes, *, sop_class_uid: str, sop_instance_uid: str, transfer_syntax: UID, maximum_bytes: int = 2**31
) -> str:
    """Check a received data set against its C-STORE command and return its Study Instance UID.

    encoded: the data set without File Meta, in `transfer_syntax`.  maximum_bytes: of the data set, inflated, and of its
    pixels, decompressed.  Raises NotAdmitted.
    """
    plain = _inflate(encoded, maximum_bytes) if transfer_syntax == DeflatedExplicitVRLittleEndian else encoded
    skeleton = _skeleton(plain, transfer_syntax)
    header = _header(plain, transfer_syntax)
    _require_values(header, _IDENTITY)
    for keyword, commanded in (("SOPClassUID", sop_class_uid), ("SOPInstanceUID", sop_instance_uid)):
        if header[keyword].value != commanded:
            raise _mismatch(f"{keyword} is {header[keyword].value!r} in the data set but {commanded!r} in the command")
    for keyword in _IDENTITY:
        if not UID_PATTERN.fullmatch(header[keyword].value):
            raise _mismatch(f"{keyword} is {header[keyword].value!r}; expected 1 to 64 digits and dots")
    _require_vrs(skeleton)
    _require_values(header, {**_IMAGE_PIXEL, "ImageType": _ANY})
    if sop_class_uid == MRImageStorage:
        if header["ImageType"].value[0] == "ORIGINAL":
            _require_values(header, _IMAGE_PLANE)
    else:
        _require_values(header, _MULTI_FRAME)
        _require_every_frame(header)
    _require_pixels(header, skeleton, transfer_syntax, maximum_bytes)
    return str(header["StudyInstanceUID"].value)


def _inflate(encoded: bytes, maximum_bytes: int) -> bytes:
    """Undo the Deflated Explicit VR Little Endian syntax (PS3.5 A.5), never to more than `maximum_bytes`."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        plain = inflater.decompress(encoded, maximum_bytes)
    except zlib.error as error:
        raise NotAdmitted(CANNOT_UNDERSTAND, f"the deflated data set cannot be inflated: {error}") from error
    if inflater.unconsumed_tail:
        raise NotAdmitted(OUT_OF_RESOURCES, f"the deflated data set grows beyond {maximum_bytes} bytes")
    if not inflater.eof:
        raise NotAdmitted(CANNOT_UNDERSTAND, "the deflated data set does not end: truncated")
    return plain


def _skeleton(plain: bytes, transfer_syntax: UID) -> Skeleton:
    try:
        return Skeleton(
            plain,
            implicit=transfer_syntax.is_implicit_VR,
            little_endian=transfer_syntax.is_little_endian,
            encapsulated=transfer_syntax.is_encapsulated,
        )
    except UnreadableObject as error:
        raise NotAdmitted(CANNOT_UNDERSTAND, str(error)) from error


def _header(plain: bytes, transfer_syntax: UID) -> Dataset:
    """The elements this module looks at, their values not yet converted."""
    try:
        return read_dataset(
            BytesIO(plain),
            transfer_syntax.is_implicit_VR,
            transfer_syntax.is_little_endian,
            stop_when=lambda tag, _vr, _length: tag >= PIXEL_DATA,
            specific_tags=list(_TAGS),
        )
    except _CONVERSION_ERRORS as error:
        raise NotAdmitted(CANNOT_UNDERSTAND, f"the data set cannot be parsed: {error}") from error


def _require_values(header: Dataset, required: dict[str, int]) -> None:
    """Each keyword is there, converts to its VR and has its number of values."""
    missing = [keyword for keyword in required if keyword not in header]
    if missing:
        raise _mismatch(f"required attributes are missing: {', '.join(missing)}")
    for keyword, multiplicity in required.items():
        element = _convert(header, keyword)
        found = len(element.value) if element.VR == "SQ" else element.VM
        if found == 0 or (multiplicity and found != multiplicity):
            raise _mismatch(f"{keyword} has {found} values, expected {multiplicity or 'at least one'}")


def _require_vrs(skeleton: Skeleton) -> None:
    """In explicit VR, what we rely on is encoded with the VR of the dictionary (PS3.6), or as UN (PS3.5 6.2.2)."""
    for tag in (*_TAGS, PIXEL_DATA):
        element = skeleton.elements.get(tag)
        expected = dictionary_VR(tag)
        if element and element.vr and element.vr not in (*expected.split(" or "), "UN"):
            raise _mismatch(f"{keyword_for_tag(tag)} has the VR {element.vr}, expected {expected}")


def _require_every_frame(header: Dataset) -> None:
    frames, described = int(header.NumberOfFrames), len(header.PerFrameFunctionalGroupsSequence)
    if frames != described:
        raise _mismatch(f"NumberOfFrames is {frames}, but {described} frames are described")


def _require_pixels(header: Dataset, skeleton: Skeleton, transfer_syntax: UID, maximum_bytes: int) -> None:
    """Pixel Data is there and as long as Rows, Columns and the rest say (PS3.5 8.1.1)."""
    for keyword in _USED_LATER:
        if keyword in header:
            _convert(header, keyword)
    pixels = skeleton.elements.get(PIXEL_DATA)
    if pixels is None:
        raise _mismatch("required attributes are missing: PixelData")
    for keyword in ("Rows", "Columns", "SamplesPerPixel", "BitsStored"):
        if header[keyword].value < 1:
            raise _mismatch(f"{keyword} is {header[keyword].value}, expected 1 or more")
    if header.BitsAllocated not in _BITS_ALLOCATED or header.BitsStored > header.BitsAllocated:
        raise _mismatch(f"{header.BitsStored} bits stored in {header.BitsAllocated} cannot be read")
    frames = _convert(header, "NumberOfFrames").value if "NumberOfFrames" in header else 1
    if frames is None or frames < 1:
        raise _mismatch(f"NumberOfFrames is {frames}, expected 1 or more")
    expected = get_expected_length(header)
    if expected > maximum_bytes:
        raise NotAdmitted(OUT_OF_RESOURCES, f"the pixels would take {expected} bytes, {maximum_bytes} are allowed")
    if transfer_syntax.is_encapsulated:
        if pixels.items < frames:
            raise NotAdmitted(
                CANNOT_UNDERSTAND, f"Pixel Data has {pixels.items} fragments for {frames} frames: truncated"
            )
    elif pixels.length is not None and pixels.length < expected:
        raise NotAdmitted(
            CANNOT_UNDERSTAND,
            f"Pixel Data has {pixels.length} bytes, {expected} are needed for {frames} frames of "
            f"{header.Rows} x {header.Columns}: truncated",
        )


def _convert(header: Dataset, keyword: str):  # type: ignore[no-untyped-def]  # DataElement is generic in its value only
    try:
        element = header[keyword]
        str(element.value)
        return element
    except _CONVERSION_ERRORS as error:
        raise _mismatch(f"{keyword} cannot be read as {dictionary_VR(keyword)}: {type(error).__name__}") from error


def _mismatch(reason: str) -> NotAdmitted:
    return NotAdmitted(DOES_NOT_MATCH_SOP_CLASS, reason)
