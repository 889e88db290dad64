"""The figures of quality as coded numbers, so that a program can follow them over scans.

A figure's code is its own name ("mask.covered") in the scheme of this software: what a method notes needs no
table here.  Its unit is told by the end of its name, as everywhere in the physics, and is else listed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import highdicom as hd
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from dicom_node.encode.identity import LOCAL_SCHEME, Identity
from dicom_node.encode.quantity import PPB
from reconstruction import Maps

MILLIMETER = codes.UCUM.Millimeter
UNITS: dict[str, Code] = {
    "_mrad_per_mm": Code("mrad/mm", "UCUM", "mrad/mm"),
    "_ppb": PPB,
    "_ml": Code("mL", "UCUM", "mL"),
    "_mm": MILLIMETER,
    "_rad": codes.UCUM.Radian,
    "regions.turn": Code("deg", "UCUM", "deg"),
    "regions.bend": MILLIMETER,
    "separation.r2": codes.UCUM.PerSecond,
    "separation.relaxivity": Code("/s/[ppm]", "UCUM", "1/s/ppm"),
}
"""By the end of a name.  A ratio, a count or a correlation has no unit."""

GROUPS = {"quality": False, "match of the atlas": True}
"""Tracking identifiers; the second is of the figures that the regions noted."""


def encode_quality(maps: Maps, identity: Identity) -> Iterator[hd.sr.MeasurementsAndQualitativeEvaluations]:
    """A group of TID 1501 for the figures of the map and one for those of the regions.

    TID 1500 has no other place for a number that is of no region.  What is infinite or no number cannot be in a NUM
    item (DS, PS3.5 6.2) and stands in the sentence on quality alone.
    """
    for group, of_regions in GROUPS.items():
        measurements = [
            hd.sr.Measurement(name=code_of(name), value=float(f"{value:.6g}"), unit=unit_of(name))
            for name, value in sorted(maps.quality.items())
            if name.startswith("regions.") is of_regions and math.isfinite(value)
        ]
        if measurements:
            yield hd.sr.MeasurementsAndQualitativeEvaluations(
                tracking_identifier=hd.sr.TrackingIdentifier(uid=identity.uid(group), identifier=group),
                measurements=measurements,
            )


def code_of(name: str) -> Code:
    """ "mask.slab_mm" → (mask.slab_mm, 99QSMNODE, "Quality: mask slab mm")."""
    return Code(name, LOCAL_SCHEME, f"Quality: {name.replace('.', ' ').replace('_', ' ')}"[:LONGEST_MEANING])


def unit_of(name: str) -> Code:
    without: Code = codes.UCUM.NoUnits
    return next((unit for end, unit in UNITS.items() if name.endswith(end)), without)


LONGEST_MEANING = 64
"""LO, PS3.5 table 6.2-1."""
