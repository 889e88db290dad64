"""Why an image can never be part of a multi-echo gradient echo with phase.

A wrong map is worse than none: what looks like phase but is not (phase differences, maps in Hz, filtered phase) is
refused by name, from its header alone.
"""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSNearLossless,
)

from dicom_node.convert.header import items, number, text, words
from dicom_node.convert.planes import SUPPORTED

_ALWAYS_LOSSY = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless)
_PERHAPS_LOSSY = (JPEG2000, HTJ2K)

_IMAGE_TYPE_WORDS = {
    "LOCALIZER": "localiser",
    "SCOUT": "localiser",
    "DIFFUSION": "diffusion image",
    "ADC": "diffusion map",
    "FA": "diffusion map",
    "TRACEW": "diffusion map",
    "TENSOR": "diffusion map",
    "FMRI": "functional series",
    "ASL": "perfusion image",
    "PERFUSION": "perfusion image",
    "MOSAIC": "mosaic of slices",
    "SWI": "filtered susceptibility-weighted image",
    "SW_P_FFE": "filtered susceptibility-weighted phase",
    "SW_M_FFE": "filtered susceptibility-weighted image",
    "MNIP": "minimum intensity projection",
    "MINIP": "minimum intensity projection",
    "MIN_IP": "minimum intensity projection",
    "MIP": "maximum intensity projection",
    "MIP_SAG": "maximum intensity projection",
    "MIP_COR": "maximum intensity projection",
    "MIP_TRA": "maximum intensity projection",
    "PROJECTION IMAGE": "projection",
    "MPR": "reformatted image",
    "CSA MPR": "reformatted image",
    "CSA RESAMPLED": "reformatted image",
    "FIELD_MAP": "field map in Hz",
    "B0_MAP": "field map in Hz",
    "B0": "field map in Hz",
    "B0 MAP": "field map in Hz",
    "B1 MAP": "B1 map",
    "T1 MAP": "relaxation map",
    "T2 MAP": "relaxation map",
    "T2STAR MAP": "relaxation map",
    "R2 MAP": "relaxation map",
    "VELOCITY MAP": "velocity map",
    "VELOCITY": "velocity map",
    "PHASE CONTRAST M": "velocity image",
    "QSM": "susceptibility map",
    "SECONDARY": "secondary image",
}
"""Words of ImageType or FrameType that decide on their own."""

_HERTZ = ("HZ", "1/S", "HERTZ", "KHZ")


def refusal(plane: Dataset) -> str:
    """The reason in words, "" if nothing general speaks against this plane."""
    return next(filter(None, (rule(plane) for rule in _RULES)), "")


def object_refusal(header: Dataset) -> str:
    """The reason in words for an object that is no MR image at all, "" if it is one."""
    sop_class = UID(text(header, "SOPClassUID"))
    if sop_class not in SUPPORTED:
        return f"{sop_class.name} is not an MR image that the node reads"
    samples = number(header, "SamplesPerPixel")
    if samples is not None and samples != 1:
        return f"colour image ({samples:g} samples per pixel)"
    return ""


def is_lossy(header: Dataset, transfer_syntax: str) -> bool:
    """Whether the pixels were ever compressed with loss (PS3.3 C.7.6.1.1.5)."""
    flag = text(header, "LossyImageCompression")
    return flag == "01" or transfer_syntax in _ALWAYS_LOSSY or (transfer_syntax in _PERHAPS_LOSSY and flag != "00")


def _image_type(plane: Dataset) -> str:
    found = words(plane, "ImageType")
    for word in found:
        if word in _IMAGE_TYPE_WORDS:
            return f"{_IMAGE_TYPE_WORDS[word]} (ImageType {text(plane, 'ImageType')})"
    if found[:1] == ("DERIVED",) and "MFSPLIT" not in found:
        # MFSPLIT: Siemens XA splits its enhanced object into classic ones; nothing is computed anew.
        return f"derived image (ImageType {text(plane, 'ImageType')})"
    return ""


def _unit(plane: Dataset) -> str:
    units = [text(plane, "RescaleType")]
    for mapping in items(plane, "RealWorldValueMappingSequence"):
        units += [text(code, "CodeValue") for code in items(mapping, "MeasurementUnitsCodeSequence")]
    for unit in units:
        if unit in _HERTZ:
            return f"map in {unit.capitalize()}, not phase: a frequency has no echo time to be combined with"
    return ""


def _sequence(plane: Dataset) -> str:
    sequence = words(plane, "ScanningSequence")
    if "EP" in sequence:
        return "echo-planar image"
    if "SE" in sequence and "GR" not in sequence:
        return "spin echo"
    if "RM" in sequence and "GR" not in sequence and not _looks_like_gradient_echo(plane):
        return "research sequence that is neither 3D nor said to be a gradient echo (ScanningSequence RM)"
    if "IR" in sequence:
        return "inversion recovery"
    b_value = number(plane, "DiffusionBValue")
    if b_value:
        return f"diffusion image (b = {b_value:g} s/mm²)"
    if text(plane, "PhaseContrast") == "YES":
        return "phase-contrast (velocity) image"
    return ""


def _looks_like_gradient_echo(plane: Dataset) -> bool:
    """Philips writes RM for its multi-echo mDIXON, a 3D FFE, and GE for product sequences that a site has changed: the
    word alone says nothing.  3D multi-echo sequences with phase are gradient echoes; FFE is Philips' name for one."""
    image_type = words(plane, "ImageType")
    return text(plane, "MRAcquisitionType") == "3D" or any(word.endswith("FFE") for word in image_type)


def _nucleus(plane: Dataset) -> str:
    nucleus = text(plane, "ImagedNucleus")
    return f"image of {nucleus}, not of protons" if nucleus not in ("", "1H", "H1", "H") else ""


def _echo_time(plane: Dataset) -> str:
    echo_time = number(plane, "EchoTime")
    if echo_time is None:
        return "no echo time"
    return f"echo time {echo_time:g} ms: a computed image" if echo_time <= 0 else ""


_RULES = (_image_type, _unit, _sequence, _nucleus, _echo_time)
