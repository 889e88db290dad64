"""Two time points of one patient, region by region.

Refused where the difference would not be the patient's: other patients, or maps made in other ways.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from dicom_node.encode.anatomy import place
from dicom_node.errors import NodeError
from dicom_node.finished import Finished
from dicom_node.regions import in_words

REPEATED = (
    "What repeated scans of one person differ by is the scanner's and the protocol's: measure it there before a change "
    "is read as one."
)


class NotComparable(NodeError):
    """Two results whose difference says nothing; the message says why."""


@dataclass(frozen=True)
class Change:
    """Of one region's means: before, after, after minus before.  chi: ppb.  r2star: 1/s.  volume: mm³."""

    region: str
    chi: tuple[float, float, float]
    r2star: tuple[float, float, float] | None
    volume: tuple[float, float, float]


@dataclass(frozen=True)
class Comparison:
    """days: between the studies, None where one has no date.  notes: what a reader must know."""

    days: int | None
    changes: tuple[Change, ...]
    notes: tuple[str, ...]

    def as_data(self) -> dict[str, Any]:
        return asdict(self)


def compare(one: Finished, other: Finished) -> Comparison:
    """The earlier study is `before`, whatever the order they are named in; without dates the first is.

    Raises NotComparable.
    """
    _refuse(one, other)
    before, after = sorted((one, other), key=_when)
    regions = [name for name in before.record["regions"] if name in after.record["regions"]]
    changes = tuple(_change(name, before, after) for name in sorted(regions, key=place))
    return Comparison(_days(before, after), changes, tuple(_notes(before, after)))


def in_words_of(comparison: Comparison) -> str:
    """The table for people."""
    lines = [f"{'region':<32}{'susceptibility, ppb':^30}{'R2*, 1/s':^30}{'volume, mm3':^30}"]
    lines.append(" " * 32 + f"{'before':>9}{'after':>9}{'change':>9}   " * 3)
    for change in comparison.changes:
        cells = [_cells(change.chi, 1), _cells(change.r2star, 1), _cells(change.volume, 0)]
        lines.append(f"{in_words(change.region):<32}" + "   ".join(cells))
    interval = "an unknown time" if comparison.days is None else f"{comparison.days} days"
    lines += ["", f"Between the studies: {interval}.", *comparison.notes]
    return "\n".join(line.rstrip() for line in lines)


def _cells(values: tuple[float, float, float] | None, digits: int) -> str:
    if values is None:
        return f"{'-':>9}" * 3
    before, after, change = values
    return f"{before:>z9.{digits}f}{after:>z9.{digits}f}{change:>+z9.{digits}f}"  # z: no "-0.0"


def _refuse(one: Finished, other: Finished) -> None:
    patients = [_patient(result) for result in (one, other)]
    if not all(patient[0] for patient in patients):
        raise NotComparable("a result has no PatientID: nothing says that both are of one patient")
    if patients[0] != patients[1]:
        raise NotComparable("the results are of different patients (PatientID, its issuer or the birth date differ)")
    if one.record["recipe"]["digest"] != other.record["recipe"]["digest"]:
        names = " and ".join(f"{r.record['recipe']['name']} {r.record['recipe']['digest'][:12]}" for r in (one, other))
        raise NotComparable(
            f"the results were made in different ways ({names}): a difference could be the method's; run both jobs "
            "again with one version and recipe"
        )
    references = [result.record["reference"]["name"] for result in (one, other)]
    if references[0] != references[1]:
        raise NotComparable(
            f"the zero of one map is {references[0]}, of the other {references[1]}: their values cannot be subtracted"
        )


def _patient(result: Finished) -> tuple[str, str, str]:
    header = result.header
    return (
        str(header.get("PatientID") or "").strip(),
        str(header.get("IssuerOfPatientID") or "").strip(),
        str(header.get("PatientBirthDate") or ""),
    )


def _when(result: Finished) -> tuple[str, str]:
    return str(result.header.get("StudyDate") or ""), str(result.header.get("StudyTime") or "")


def _days(before: Finished, after: Finished) -> int | None:
    try:
        first, last = (
            datetime.datetime.strptime(str(result.header.get("StudyDate") or ""), "%Y%m%d")
            for result in (before, after)
        )
    except ValueError:
        return None
    return (last - first).days


def _change(name: str, before: Finished, after: Finished) -> Change:
    old, new = before.record["regions"][name], after.record["regions"][name]
    both = old["r2star"] is not None and new["r2star"] is not None
    return Change(
        region=name,
        chi=_difference(old["chi"]["mean"], new["chi"]["mean"]),
        r2star=_difference(old["r2star"]["mean"], new["r2star"]["mean"]) if both else None,
        volume=_difference(old["volume"], new["volume"]),
    )


def _difference(before: float, after: float) -> tuple[float, float, float]:
    return before, after, after - before


def _notes(before: Finished, after: Finished) -> list[str]:
    notes = [
        f"The {which} map is graded {result.record['grade']['grade']}: {'; '.join(result.record['grade']['grounds'])}"
        for which, result in (("earlier", before), ("later", after))
        if result.record["grade"]["grade"] != "good"
    ]
    same_images = before.record["source"]["sop_instance_uids"] == after.record["source"]["sop_instance_uids"]
    by_the_site = _by_the_site(before, after, same_images)
    if same_images:
        notes.append(
            "Both are made of the same images, and no time lies between: a change is the making's."
            if by_the_site
            else "Both are made of the same images in the same way: this is one result, and no time lies between."
        )
    notes += by_the_site
    only = set(before.record["regions"]) ^ set(after.record["regions"])
    if only:
        notes.append(f"Found in one of them only: {', '.join(in_words(name) for name in sorted(only, key=place))}.")
    devices = [_device(result) for result in (before, after)]
    if devices[0] != devices[1]:
        notes.append("The scans are of different scanners or protocols; part of a change may be theirs.")
    return [*notes, REPEATED, "For research, not for diagnosis."]


def _by_the_site(before: Finished, after: Finished, same_images: bool) -> list[str]:
    """What the site put in the place of a step, where it is not the same in both; the recipe knows nothing of it.

    Of two scans the masks are two anyway: that both are the site's own is alike.
    """
    (old_mask, old_phase), (new_mask, new_phase) = (
        (source.get("mask", ""), source.get("phase_override", {}))
        for source in (before.record["source"], after.record["source"])
    )
    told = []
    if bool(old_mask) != bool(new_mask):
        which = "earlier" if old_mask else "later"
        told.append(
            f"The brain mask of the {which} map is the site's own, that of the other the recipe's: part of a change "
            "may be theirs."
        )
    elif same_images and old_mask != new_mask:
        told.append("The brain masks are two of the site's own.")
    if old_phase != new_phase:
        told.append(
            f"The phase was read in two ways, as the site says: {_reading(old_phase)} for the earlier map, "
            f"{_reading(new_phase)} for the later one; a wrong reading turns or scales the whole map."
        )
    return told


def _reading(override: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(override.items())) or "as its header says"


def _device(result: Finished) -> tuple[object, ...]:
    acquisition = result.record["acquisition"]
    keys = ("Manufacturer", "ManufacturerModelName", "DeviceSerialNumber")
    return (
        *(str(result.header.get(key) or "") for key in keys),
        tuple(round(time, 5) for time in acquisition["echo_times_s"]),
        tuple(round(size, 3) for size in acquisition["voxel_size_mm"]),
    )
