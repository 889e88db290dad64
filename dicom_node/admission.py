"""What must be true of an object before the node says that it has it.

The statuses are those of the Storage service (PS3.4 B.2.3): 0xA700 out of resources, 0xA900 data set does not match SOP
class, 0xC000 cannot understand; and 0x0122 SOP class not supported (PS3.7 C.5.6).  The rules ask for what every later
step relies on (identity, Image Pixel module, for original images the Image Plane module) and for nothing else: a
scanner's oddities are not our business.
"""

from __future__ import annotations

import math
import re
import struct
import threading
import zlib
from collections.abc import Iterable, Sequence
from functools import cache
from typing import NamedTuple, TypeVar

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.pixels.common import PhotometricInterpretation
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
    SegmentationStorage,
)

from dicom_node.codestream import size_of
from dicom_node.errors import UnreadableObject
from dicom_node.structure import PIXEL_DATA, Encoded, Skeleton

ADMITTED_SOP_CLASSES = (
    MRImageStorage,
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    SegmentationStorage,
)
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

_IDENTITY = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_SIZES = ("SamplesPerPixel", "Rows", "Columns", "BitsAllocated", "BitsStored")
_IMAGE_PIXEL = (*_SIZES, "PixelRepresentation", "PhotometricInterpretation")
_IMAGE_PLANE = {"PixelSpacing": 2, "ImagePositionPatient": 3, "ImageOrientationPatient": 6}
"""Asked of ORIGINAL classic images only: screen captures and reports that scanners store as MR images have no plane."""
_FUNCTIONAL_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
_MULTI_FRAME = ("NumberOfFrames", *_FUNCTIONAL_GROUPS)
_USED_LATER = ("EchoTime", "ImagingFrequency", "RescaleSlope", "RescaleIntercept", "SeriesNumber")
"""May be absent or empty; a value must be the number it claims to be."""
_LARGEST_INFLATED = 2**28
"""Bytes.  256 kB can hold as many; what is deflated is inflated in memory, here and by pydicom."""
_DEFLATED_SLICE = 2**20
"""Bytes that are given to zlib at once."""
_inflating = threading.Lock()
"""However many send such objects, one of them is in memory."""
_SIZE_WITHIN = 2**16
"""Bytes of a frame within which it must say its size; comments may come before."""
_MOST_FRAMES = 2**16
"""Several times what any scanner makes; each is described by some kB."""
_BITS_ALLOCATED = (8, 16, 32)
_BITS_OF_SEGMENTATION = (1, 8)
"""BINARY and FRACTIONAL (PS3.3 C.8.20.2)."""
_PHOTOMETRIC_INTERPRETATIONS = frozenset(term.value for term in PhotometricInterpretation)

_VALID_UID = re.compile(r"(?=.{1,64}\Z)(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))*")  # PS3.5 9.1

_T = TypeVar("_T")


class NotAdmitted(UnreadableObject):
    """An object that is refused; `status` is what the sender is told, the message what the operator is told."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def admit(
    encoded: Encoded, *, sop_class_uid: str, sop_instance_uid: str, transfer_syntax: UID, maximum_bytes: int = 2**31
) -> str:
    """Check a received data set against its C-STORE command and return its Study Instance UID.

    encoded: the data set without File Meta, in `transfer_syntax`.  maximum_bytes: of the data set, inflated, and of its
    pixels, decompressed.  Raises NotAdmitted.
    """
    arguments = (sop_class_uid, sop_instance_uid, transfer_syntax, maximum_bytes)
    if transfer_syntax != DeflatedExplicitVRLittleEndian:
        return _admit(encoded, *arguments)
    with _inflating:
        return _admit(_inflate(encoded, min(maximum_bytes, _LARGEST_INFLATED)), *arguments)


def _admit(plain: Encoded, sop_class_uid: str, sop_instance_uid: str, transfer_syntax: UID, maximum_bytes: int) -> str:
    try:
        skeleton = Skeleton(
            plain,
            implicit=transfer_syntax.is_implicit_VR,
            little_endian=transfer_syntax.is_little_endian,
            encapsulated=transfer_syntax.is_encapsulated,
        )
        header = _Header(plain, skeleton, transfer_syntax)
        _require_identity(header, sop_class_uid, sop_instance_uid)
        _require_attributes(header, classic=sop_class_uid == MRImageStorage)
        if sop_class_uid != MRImageStorage:
            _require_every_frame(header, skeleton)
        _require_pixels(header, skeleton, transfer_syntax, maximum_bytes)
    except NotAdmitted:
        raise
    except UnreadableObject as error:
        raise NotAdmitted(CANNOT_UNDERSTAND, str(error)) from error
    return header.text("StudyInstanceUID")


class _Header:
    """The values this module looks at, from where the skeleton found them: of VR UI, CS, DS, IS and US (PS3.5 6.2).

    Every reader raises NotAdmitted when the attribute is missing, has another VR than the dictionary's (PS3.6; UN is
    allowed, PS3.5 6.2.2), or a value that cannot be one of that VR.
    """

    def __init__(self, plain: Encoded, skeleton: Skeleton, transfer_syntax: UID) -> None:
        self._plain = plain
        self._elements = skeleton.elements
        self._order = "<" if transfer_syntax.is_little_endian else ">"

    def __contains__(self, keyword: str) -> bool:
        return _entry(keyword).tag in self._elements

    def require(self, keywords: Iterable[str]) -> None:
        missing = [keyword for keyword in keywords if keyword not in self]
        if missing:
            raise _mismatch(f"required attributes are missing: {', '.join(missing)}")

    def require_vr(self, keyword: str) -> None:
        entry = _entry(keyword)
        found = self._elements[entry.tag].vr
        if found is not None and found not in entry.allowed:
            raise _mismatch(f"{keyword} has the VR {found}, expected {entry.vr}")

    def texts(self, keyword: str) -> list[str]:
        return [str(value) for value in self._values(keyword)]

    def text(self, keyword: str) -> str:
        return self._single(keyword, self.texts(keyword))

    def number(self, keyword: str) -> int:
        return int(self._single(keyword, self.numbers(keyword)))

    def numbers(self, keyword: str) -> list[float]:
        try:
            numbers = [float(value) for value in self._values(keyword)]
        except ValueError as error:
            raise _mismatch(f"{keyword} holds what is no number") from error
        if not all(math.isfinite(number) for number in numbers):
            raise _mismatch(f"{keyword} holds a number that is not finite")
        if _entry(keyword).vr == "IS" and not all(number.is_integer() for number in numbers):
            raise _mismatch(f"{keyword} holds a number that is not whole")
        return numbers

    def _values(self, keyword: str) -> Sequence[str | int]:
        """Decoded by hand: pydicom takes ten times as long, and all of it while no other image is received."""
        entry = _entry(keyword)
        if entry.tag not in self._elements:
            self.require([keyword])
        self.require_vr(keyword)
        element = self._elements[entry.tag]
        if element.length is None:
            raise _mismatch(f"{keyword} is encoded as a sequence")
        raw = bytes(self._plain[element.start : element.start + element.length])
        if entry.vr == "US":
            if len(raw) % 2:
                raise _mismatch(f"{keyword} has {len(raw)} bytes, which no number of US has")
            return struct.unpack(f"{self._order}{len(raw) // 2}H", raw)
        text = raw.decode("latin-1").rstrip("\0 ")
        return [value.strip(" ") for value in text.split("\\")] if text else []

    def _single(self, keyword: str, values: Sequence[_T]) -> _T:
        if len(values) != 1:
            raise _mismatch(f"{keyword} has {len(values)} values, expected one")
        return values[0]


def _inflate(encoded: Encoded, maximum_bytes: int) -> memoryview:
    """Undo the Deflated Explicit VR Little Endian syntax (PS3.5 A.5), never to more than `maximum_bytes`.

    In slices: zlib copies what it has not taken, and what follows the end, of all that it is given at once.
    """
    if len(encoded) > maximum_bytes:
        raise NotAdmitted(
            OUT_OF_RESOURCES, f"the deflated data set has {len(encoded)} bytes, {maximum_bytes} are allowed inflated"
        )
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    plain = bytearray()
    taken = 0
    while taken < len(encoded) and not inflater.eof:
        piece = encoded[taken : taken + _DEFLATED_SLICE]
        taken += len(piece)
        try:
            plain += inflater.decompress(piece, maximum_bytes + 1 - len(plain))
        except zlib.error as error:
            raise NotAdmitted(CANNOT_UNDERSTAND, f"the deflated data set cannot be inflated: {error}") from error
        if len(plain) > maximum_bytes:
            raise NotAdmitted(OUT_OF_RESOURCES, f"the deflated data set grows beyond {maximum_bytes} bytes")
    if not inflater.eof:
        raise NotAdmitted(CANNOT_UNDERSTAND, "the deflated data set does not end: truncated")
    if (behind := len(inflater.unused_data) + len(encoded) - taken) > 1:  # one pads it to an even length
        raise NotAdmitted(CANNOT_UNDERSTAND, f"{behind} bytes follow the end of the deflated data set")
    return memoryview(plain)


def _require_identity(header: _Header, sop_class_uid: str, sop_instance_uid: str) -> None:
    header.require(_IDENTITY)
    for keyword, commanded in (("SOPClassUID", sop_class_uid), ("SOPInstanceUID", sop_instance_uid)):
        if header.text(keyword) != commanded:
            raise _mismatch(f"{keyword} is {header.text(keyword)!r} in the data set but {commanded!r} in the command")
    for keyword in _IDENTITY:
        if not _VALID_UID.fullmatch(header.text(keyword)):
            raise _mismatch(f"{keyword} is {header.text(keyword)!r}, which is no UID of PS3.5 9.1")


def _require_attributes(header: _Header, *, classic: bool) -> None:
    header.require((*_IMAGE_PIXEL, "ImageType", "PixelData", *(() if classic else _MULTI_FRAME)))
    for keyword in ("PixelData", *(() if classic else _FUNCTIONAL_GROUPS)):
        header.require_vr(keyword)
    image_type = header.texts("ImageType")
    if not image_type:
        raise _mismatch("ImageType is empty")
    if classic and image_type[0] == "ORIGINAL":
        header.require(_IMAGE_PLANE)
        for keyword, multiplicity in _IMAGE_PLANE.items():
            if len(found := header.numbers(keyword)) != multiplicity:
                raise _mismatch(f"{keyword} has {len(found)} values, expected {multiplicity}")
    for keyword in _USED_LATER:
        if keyword in header:
            header.numbers(keyword)


def _require_every_frame(header: _Header, skeleton: Skeleton) -> None:
    frames = header.number("NumberOfFrames")
    if frames > _MOST_FRAMES:
        raise NotAdmitted(CANNOT_UNDERSTAND, f"NumberOfFrames is {frames}, {_MOST_FRAMES} are allowed")
    shared, described = (skeleton.count_items(_entry(keyword).tag) for keyword in _FUNCTIONAL_GROUPS)
    if shared != 1 or described != frames:
        raise _mismatch(f"NumberOfFrames is {frames}, but {described} frames are described, {shared} times shared")


def _require_pixels(header: _Header, skeleton: Skeleton, transfer_syntax: UID, maximum_bytes: int) -> None:
    """Pixel Data is as long as Rows, Columns and the rest say (PS3.5 8.1.1)."""
    pixels = skeleton.elements[PIXEL_DATA]
    sizes = {keyword: header.number(keyword) for keyword in _SIZES}
    sizes["NumberOfFrames"] = header.number("NumberOfFrames") if "NumberOfFrames" in header else 1
    for keyword, size in sizes.items():
        if size < 1:
            raise _mismatch(f"{keyword} is {size}, expected 1 or more")
    known = _BITS_OF_SEGMENTATION if header.text("SOPClassUID") == SegmentationStorage else _BITS_ALLOCATED
    if sizes["BitsAllocated"] not in known or sizes["BitsStored"] > sizes["BitsAllocated"]:
        raise _mismatch(f"{sizes['BitsStored']} bits stored in {sizes['BitsAllocated']} cannot be read")
    if header.number("PixelRepresentation") not in (0, 1):
        raise _mismatch(f"PixelRepresentation is {header.number('PixelRepresentation')}, expected 0 or 1")
    photometric = header.text("PhotometricInterpretation")
    if photometric not in _PHOTOMETRIC_INTERPRETATIONS:
        raise _mismatch(f"PhotometricInterpretation is {photometric!r}, which is none of PS3.3 C.7.6.3.1.2")
    values = math.prod(sizes[keyword] for keyword in ("SamplesPerPixel", "Rows", "Columns", "NumberOfFrames"))
    expected = (values * sizes["BitsAllocated"] + 7) // 8  # of all frames together (PS3.5 8.1.1)
    if photometric == PhotometricInterpretation.YBR_FULL_422:
        expected = expected // 3 * 2  # two pixels share their colour (PS3.3 C.7.6.3.1.2)
    if expected > maximum_bytes:
        raise NotAdmitted(OUT_OF_RESOURCES, f"the pixels would take {expected} bytes, {maximum_bytes} are allowed")
    frames = sizes["NumberOfFrames"]
    if transfer_syntax.is_encapsulated:
        if pixels.items < frames:
            raise NotAdmitted(
                CANNOT_UNDERSTAND, f"Pixel Data has {pixels.items} fragments for {frames} frames: truncated"
            )
        for fragment in skeleton.fragments(_SIZE_WITHIN):
            found = size_of(fragment)
            if found is not None and found != (sizes["Rows"], sizes["Columns"]):
                raise NotAdmitted(
                    CANNOT_UNDERSTAND,
                    f"a compressed frame is {found[0]} x {found[1]}, expected {sizes['Rows']} x {sizes['Columns']}",
                )
    elif pixels.length is not None and pixels.length < expected:
        raise NotAdmitted(
            CANNOT_UNDERSTAND,
            f"Pixel Data has {pixels.length} bytes, {expected} are needed for {frames} frames of "
            f"{sizes['Rows']} x {sizes['Columns']}: truncated",
        )


class _Entry(NamedTuple):
    """What PS3.6 says of an attribute.  allowed: the VRs that it may be encoded with."""

    tag: int
    vr: str
    allowed: tuple[str, ...]


@cache
def _entry(keyword: str) -> _Entry:
    tag = tag_for_keyword(keyword)
    assert tag is not None, f"{keyword} is not in the dictionary"
    vr = dictionary_VR(tag)
    return _Entry(tag, vr, (*vr.split(" or "), "UN"))


def _mismatch(reason: str) -> NotAdmitted:
    return NotAdmitted(DOES_NOT_MATCH_SOP_CLASS, reason)
