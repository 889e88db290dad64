"""Image planes: one pixel-free header in classic attributes for each frame, whatever SOP class it came in.

An enhanced object keeps what varies in functional group macros (PS3.3 C.7.6.16, C.8.13.5).  Their attributes mostly
carry the classic names already; the few that have other names are renamed here.  So every rule after this file is
written once, for classic attributes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag
from pydicom.uid import EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage, MRImageStorage
from pydicom.valuerep import DSfloat

from dicom_node.convert.header import MALFORMED, element_of, items, text, values, whole

ENHANCED = (EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage)
SUPPORTED = (MRImageStorage, *ENHANCED)

_CLASSIC_NAMES = {
    "FrameType": "ImageType",
    "EffectiveEchoTime": "EchoTime",
    "TransmitterFrequency": "ImagingFrequency",
    "ResonantNucleus": "ImagedNucleus",
    "FrameAcquisitionDateTime": "AcquisitionDateTime",
    "TemporalPositionIndex": "TemporalPositionIdentifier",
    "PulseSequenceName": "SequenceName",
}
"""Enhanced attribute → classic attribute of the same meaning (PS3.3 C.8.13 against C.8.3)."""

_LEFT_BEHIND = {
    tag_for_keyword(keyword)
    for keyword in (
        "PerFrameFunctionalGroupsSequence",
        "SharedFunctionalGroupsSequence",
        "DimensionOrganizationSequence",
        "DimensionIndexSequence",
        "NumberOfFrames",
    )
}
"""What only makes sense for an object of many frames."""

_KEPT_SEQUENCES = {tag_for_keyword("RealWorldValueMappingSequence"), tag_for_keyword("ReferencedImageSequence")}
"""Macros that the classic object carries as a sequence too."""

_PIXELS = 0x7FE0

_Elements = dict[BaseTag, DataElement]


def is_enhanced(header: Dataset) -> bool:
    return text(header, "SOPClassUID") in ENHANCED


def planes(header: Dataset) -> Iterator[Dataset]:
    """The plane of every frame, in frame order; that of a classic object is its header as it stands.

    An enhanced object with malformed functional groups has fewer planes than frames, or none.  The planes share their
    elements with the header: take `detached` of one to keep or change it.
    """
    if not is_enhanced(header):
        yield header
        return
    common = {tag: element for tag, element in _elements(header).items() if tag not in _LEFT_BEHIND}
    for group in items(header, "SharedFunctionalGroupsSequence"):
        common |= _attributes(group)
    for frame in items(header, "PerFrameFunctionalGroupsSequence"):
        yield _in_classic_names(_dataset(common | _attributes(frame)))


def detached(plane: Dataset) -> Dataset:
    """A copy with elements of its own (not with items of its own), of standard and parsable ones, without pixels."""
    return _dataset({tag: copy.copy(element) for tag, element in _elements(plane, element_of).items()})


def _dataset(elements: _Elements) -> Dataset:
    # dict() widens the type: a Dataset may also hold elements that were not parsed yet
    return Dataset(dict[BaseTag, DataElement | RawDataElement](elements))


def _elements(header: Dataset, element: Callable[[Dataset, BaseTag], DataElement] = Dataset.__getitem__) -> _Elements:
    """The standard elements that can be parsed, pixels apart.  Who needs one that cannot finds it absent."""
    found: _Elements = {}
    for tag in list(header.keys()):
        if tag.is_private or tag.group >= _PIXELS:
            continue
        try:
            found[tag] = element(header, tag)
        except MALFORMED:
            continue
    return found


def _attributes(functional_groups: Dataset) -> _Elements:
    """The attributes inside functional group macros, as if they stood in the header itself."""
    found: _Elements = {}
    for tag, macro in _elements(functional_groups).items():
        if tag in _KEPT_SEQUENCES:
            found[tag] = macro
        elif macro.VR == "SQ" and macro.value:
            found |= _elements(macro.value[0])
    return found


def _in_classic_names(plane: Dataset) -> Dataset:
    """Adds the classic attributes that an enhanced object spells otherwise."""
    for enhanced, classic in _CLASSIC_NAMES.items():
        found = values(plane, enhanced)
        if found:
            _set(plane, classic, found)
    _set(plane, "ScanningSequence", _scanning_sequence(plane))
    direction = {"COLUMN": "COL", "ROW": "ROW"}.get(text(plane, "InPlanePhaseEncodingDirection"))
    frequency, phase = (
        whole(plane, "MRAcquisitionFrequencyEncodingSteps"),
        whole(plane, "MRAcquisitionPhaseEncodingStepsInPlane"),
    )
    if direction:
        _set(plane, "InPlanePhaseEncodingDirection", (direction,))
        if frequency and phase:
            # (0018,1310): frequency rows, frequency columns, phase rows, phase columns
            _set(
                plane, "AcquisitionMatrix", (frequency, 0, 0, phase) if direction == "COL" else (0, frequency, phase, 0)
            )
    return plane


def _set(plane: Dataset, keyword: str, found: tuple[object, ...]) -> None:
    try:
        if dictionary_VR(keyword) == "DS":
            # A DS has 16 characters, the FD it comes from may need more.
            found = tuple(DSfloat(float(str(value)), auto_format=True) for value in found)
        setattr(plane, keyword, list(found) if len(found) > 1 else found[0] if found else None)
    except MALFORMED:
        return


def _scanning_sequence(plane: Dataset) -> tuple[str, ...]:
    """SE, GR, EP, IR as the classic object would say it (PS3.3 C.8.3.1 against C.8.13.4)."""
    says = {
        "SE": text(plane, "EchoPulseSequence") in ("SPIN", "BOTH"),
        "GR": text(plane, "EchoPulseSequence") in ("GRADIENT", "BOTH"),
        "EP": text(plane, "EchoPlanarPulseSequence") == "YES",
        "IR": text(plane, "InversionRecovery") == "YES",
    }
    return tuple(name for name, said in says.items() if said)
