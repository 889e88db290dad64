"""Describes a stored object from its header: what grouping needs to know, and why it may be of no use."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from dicom_node.convert.brain import series_of_brain
from dicom_node.convert.coil import coil_element
from dicom_node.convert.file import header_of
from dicom_node.convert.header import MALFORMED, number, numbers, text, values, whole
from dicom_node.convert.matrix import CARTESIAN
from dicom_node.convert.planes import is_enhanced, planes
from dicom_node.convert.reader import Reader, has_zero
from dicom_node.convert.readers import name, reader_of
from dicom_node.convert.refusal import is_lossy, object_refusal, refusal
from dicom_node.errors import UnreadableObject
from dicom_node.model import Component, Frame, Instance

_CHUNK = 1 << 20

_UID = re.compile(r"[0-9][0-9.]{0,63}")
"""Components with leading zeros, which PS3.5 9.1 forbids, come from the field: they index as well as any."""


def describe(path: Path, received_at: float, association: str) -> Instance:
    """What the header of a stored object says; its pixels are not decoded.

    Raises UnreadableObject for a file that is no DICOM object, that is truncated, or that lacks one of the UIDs it is
    indexed by.  Whatever else is missing or malformed ends as the instance's `refusal`.
    """
    header, encoding, digest = _read(path)
    plane_list = list(planes(header))
    reader = reader_of(header)
    frames, reasons = _frames(plane_list, reader, is_lossy(header, encoding)) if plane_list else ([], [])
    reason = object_refusal(header) or _header_refusal(header, plane_list, frames, reasons)
    first = plane_list[frames[0].index] if frames else plane_list[0] if plane_list else header
    return Instance(
        path=path,
        sop_instance_uid=_uid(header, "SOPInstanceUID"),
        sop_class_uid=_uid(header, "SOPClassUID"),
        study_instance_uid=_uid(header, "StudyInstanceUID"),
        series_instance_uid=_uid(header, "SeriesInstanceUID"),
        series_number=whole(header, "SeriesNumber") or 0,
        frame_of_reference_uid=text(header, "FrameOfReferenceUID"),
        rows=whole(header, "Rows") or 0,
        columns=whole(header, "Columns") or 0,
        pixel_spacing=_pixel_spacing(first) or (0.0, 0.0),
        encoding=name(reader) if reader else "",
        refusal=reason,
        frames=() if reason else tuple(frames),
        received_at=received_at,
        association=association,
        digest=digest,
        repetition=_repetition(first),
        processing=reader.processing(first) if reader and frames else "",
        protocol=_protocol(first),
        coil=coil_element(first),
        brain_of=series_of_brain(header),
    )


def _read(path: Path) -> tuple[Dataset, str, str]:
    """The header, the transfer syntax and the file's SHA-256."""
    try:
        with path.open("rb") as file:
            head = file.read(_CHUNK)
            digest = hashlib.sha256(head)
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
            size = file.tell()
            # What is no DICOM object at all is told by its UIDs below.
            header, end = header_of(file, head)
            remaining = size - end
    except (MemoryError, *MALFORMED) as error:
        raise UnreadableObject(f"{path.name} cannot be read as DICOM: {error}") from error
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        _uid(header, keyword)
    encoding = _transfer_syntax(header)
    _require_whole(path, header, encoding, remaining)
    return header, encoding, digest.hexdigest()


def _transfer_syntax(header: Dataset) -> str:
    return text(header.file_meta, "TransferSyntaxUID") if isinstance(header, FileDataset) else ""


def _uid(header: Dataset, keyword: str) -> str:
    found = text(header, keyword)
    if not _UID.fullmatch(found):
        what = f"{keyword} {found!r} is no UID" if found else f"no {keyword}"
        raise UnreadableObject(f"the object has {what}; without it it cannot be indexed")
    return found


def _require_whole(path: Path, header: Dataset, encoding: str, remaining: int) -> None:
    """Uncompressed pixels have a length that the header foretells: a shorter file was cut off on its way."""
    if not encoding or not UID(encoding).is_transfer_syntax or UID(encoding).is_encapsulated:
        return
    sizes = [whole(header, keyword) for keyword in ("Rows", "Columns", "BitsAllocated")]
    if encoding == DeflatedExplicitVRLittleEndian or None in sizes:
        return
    rows, columns, bits = (size or 0 for size in sizes)
    samples, frames = whole(header, "SamplesPerPixel") or 1, whole(header, "NumberOfFrames") or 1
    expected = rows * columns * bits * samples * frames // 8
    found = max(0, remaining - (8 if UID(encoding).is_implicit_VR else 12))  # without tag, VR and length
    if found < expected:
        raise UnreadableObject(f"{path.name} is truncated: {found} bytes of pixels, expected {expected}")


def _frames(plane_list: list[Dataset], reader: Reader | None, lossy: bool) -> tuple[list[Frame], list[str]]:
    """The usable frames, and what speaks against the others."""
    frames, reasons = [], []
    for index, plane in enumerate(plane_list):
        found = _frame(index, plane, reader, lossy)
        if isinstance(found, Frame):
            frames.append(found)
        elif found not in reasons:
            reasons.append(found)
    return frames, reasons


def _frame(index: int, plane: Dataset, reader: Reader | None, lossy: bool) -> Frame | str:
    # The vendor's own reason goes first: it names the cause more closely.
    reason = (reader.refusal(plane) if reader else "") or refusal(plane)
    if reason or reader is None:
        return reason or "not an MR image"
    component = reader.component(plane)
    if component is None:
        return f"ImageType {text(plane, 'ImageType')} tells neither magnitude, phase, real nor imaginary" + _hint(plane)
    if component in CARTESIAN and not has_zero(plane):
        return f"the {component} part is unsigned and has no rescale: its zero is unknown"
    if lossy and component is not Component.MAGNITUDE:
        return f"{component} was compressed with loss: its jumps from π to −π are smeared"
    position = numbers(plane, "ImagePositionPatient", 3)
    orientation = numbers(plane, "ImageOrientationPatient", 6)
    echo_time = number(plane, "EchoTime")
    if position is None or orientation is None or _pixel_spacing(plane) is None or echo_time is None:
        return "no position, orientation or pixel spacing: it cannot be placed in space"
    return Frame(
        index=index,
        component=component,
        echo_time=echo_time,
        position=(position[0], position[1], position[2]),
        orientation=(
            orientation[0],
            orientation[1],
            orientation[2],
            orientation[3],
            orientation[4],
            orientation[5],
        ),
        acquired_at=_acquired_at(plane),
    )


def _is_magnitude(frame: Frame) -> bool:
    return frame.component is Component.MAGNITUDE


def _hint(plane: Dataset) -> str:
    if values(plane, "Manufacturer"):
        return ""
    return ", and the header names no vendor: private elements that told may have been removed by an anonymiser"


def _header_refusal(header: Dataset, plane_list: list[Dataset], frames: list[Frame], reasons: list[str]) -> str:
    if not frames:
        return "; ".join(reasons) or "an enhanced object without readable frames"
    if reasons and len({(frame.component, frame.echo_time) for frame in frames}) == 1 and _is_magnitude(frames[0]):
        # The magnitude that goes with a map: what the map is says more than that the magnitude is alone.
        return "; ".join(reasons)
    if not (whole(header, "Rows") and whole(header, "Columns")):
        return "no rows and columns: not an image"
    used = [plane_list[frame.index] for frame in frames]
    if len({_pixel_spacing(plane) for plane in used}) > 1:
        return "frames of several pixel spacings in one object"
    if len({frame.orientation for frame in frames}) > 1:
        return "planes of several orientations in one object"
    if len({coil_element(plane) for plane in used}) > 1:
        return "uncombined images of single coil elements in one object: send the combined ones"
    if len({_repetition(plane) for plane in used}) > 1:
        return "several repetitions in one object: not yet supported"
    if is_enhanced(header) and len(plane_list) != whole(header, "NumberOfFrames"):
        return f"{len(plane_list)} described frames, expected {text(header, 'NumberOfFrames')} (NumberOfFrames)"
    return ""


def _pixel_spacing(plane: Dataset) -> tuple[float, float] | None:
    found = numbers(plane, "PixelSpacing", 2)
    return (found[0], found[1]) if found and min(found) > 0 else None


def _repetition(plane: Dataset) -> str:
    return f"{text(plane, 'AcquisitionNumber')}/{text(plane, 'TemporalPositionIdentifier')}"


def _protocol(plane: Dataset) -> str:
    found = (number(plane, keyword) for keyword in ("RepetitionTime", "FlipAngle"))
    return "/".join("" if value is None else f"{value:.4g}" for value in found)


def _acquired_at(plane: Dataset) -> str:
    """DT or TM of the acquisition (never of the series or the content: those differ within one scan)."""
    together = text(plane, "AcquisitionDateTime")
    if re.match(r"\d{14}", together):
        return together
    time = text(plane, "AcquisitionTime")
    if not re.match(r"\d{6}", time):
        return ""
    dates = [text(plane, keyword) for keyword in ("AcquisitionDate", "SeriesDate", "StudyDate")]
    return next((date for date in dates if re.fullmatch(r"\d{8}", date)), "") + time
