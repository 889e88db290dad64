"""What the node makes of a folder of DICOM files, without reconstructing: `qsm-node inspect`.

Every acquisition found is converted and judged as `serve` and `reconstruct` would, so what is told here is what happens
there.  Nothing of a patient is in the answer.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.uid import UID

from dicom_node.convert import convert
from dicom_node.convert.header import values
from dicom_node.convert.mask import with_mask
from dicom_node.desk import ordered
from dicom_node.errors import NotConvertible
from dicom_node.folder import read
from dicom_node.group import group
from dicom_node.model import Completeness, Group, Instance
from dicom_node.review import Settings, as_data, judge, settings_of
from dicom_node.settings import Scanner

MAKER = ("Manufacturer", "ManufacturerModelName", "SoftwareVersions", "StationName", "DeviceSerialNumber")
"""What tells a scanner, and how a site names it in `[[scanner]]`."""

PLANES = ("sagittal", "coronal", "axial")
"""By the patient axis (right, anterior, superior) that the slices are stacked along."""

Found = dict[str, Any]


def inspect(folder: Path, scanners: Sequence[Scanner]) -> Found:
    """Plain data for `--json`.  scanners: what the site has configured."""
    instances = read(folder)
    groups = ordered(group(instances, math.inf, 0.0, frozenset()))
    foreign = [found for found in groups if found.completeness is Completeness.FOREIGN]
    return {
        "folder": str(folder),
        "files": sum(1 for path in folder.rglob("*") if path.is_file()),
        "objects": len(instances),
        "acquisitions": [
            _acquisition(found, scanners) for found in groups if found.completeness is not Completeness.FOREIGN
        ],
        "left_alone": _left_alone(foreign),
    }


def _left_alone(foreign: Sequence[Group]) -> list[Found]:
    """Foreign groups by their reason, the largest first."""
    by_reason: dict[str, list[Instance]] = defaultdict(list)
    for found in foreign:
        by_reason[found.reason] += found.instances
    return [
        {"reason": reason, "objects": len(members), "series": _series(members)}
        for reason, members in sorted(by_reason.items(), key=lambda entry: -len(entry[1]))
    ]


def _acquisition(acquired: Group, scanners: Sequence[Scanner]) -> Found:
    first = acquired.instances[0]
    found: Found = {
        "key": acquired.key,
        "series": _series(acquired.instances),
        "encoding": first.encoding,
        "scanner": _maker(first),
        "objects": len(acquired.instances),
        "sop_classes": sorted({UID(i.sop_class_uid).name for i in acquired.instances}),
        "echo_times_ms": list(acquired.echo_times),
        "components": _components(acquired.instances),
        "set_aside": len(acquired.set_aside),
        "missing": list(acquired.holes),
        "grid": {"columns": first.columns, "rows": first.rows, "pixel_spacing_mm": list(first.pixel_spacing)},
        "decisions": [],
        "warnings": [],
        "plausibility": None,
    }
    if acquired.completeness is not Completeness.COMPLETE:
        return found | {"verdict": acquired.completeness.value, "reason": acquired.reason}
    try:
        settings = settings_of(acquired, scanners)
        found |= {"configured": _configured(settings)}
        return found | _converted(acquired, settings)
    except NotConvertible as error:
        return found | {"verdict": "refuse", "reason": str(error)}


def _converted(acquired: Group, settings: Settings) -> Found:
    acquisition, source = convert(acquired, settings.override)
    acquisition, source = with_mask(acquisition, source, acquired.mask_file)
    judged = judge(acquisition, source, settings)
    geometry = acquisition.geometry
    return {
        "grid": {
            "shape": list(geometry.shape),
            "voxel_size_mm": list(geometry.voxel_size),
            "b0_direction": list(geometry.b0_direction),
            **_orientation(source.affine),
        },
        "field": {"tesla": acquisition.field_strength, "megahertz": acquisition.larmor_frequency * 1e-6},
        "decisions": list(source.decisions),
        "warnings": [*source.warnings, *judged.warnings],
        "plausibility": as_data(judged.found),
        "verdict": "review" if judged.objection else "reconstruct",
        "reason": judged.objection,
    }


def _configured(settings: Settings) -> Found | None:
    """What the site has set for this scanner; None where that is nothing."""
    if settings == Settings():
        return None
    override = settings.override
    return {
        "phase_sign": override.sign,
        "phase_half_turn": override.half_turn,
        "phase_zero": override.zero,
        "check": settings.stops,
    }


def _maker(instance: Instance) -> dict[str, str]:
    header = dcmread(instance.path, stop_before_pixels=True, force=True, specific_tags=list(MAKER))
    told = {keyword: " ".join(str(value) for value in values(header, keyword)).strip() for keyword in MAKER}
    return {keyword: value for keyword, value in told.items() if value}


def _components(instances: Sequence[Instance]) -> Found:
    """For each component the number of images and the series they come from."""
    planes: dict[str, int] = defaultdict(int)
    members: dict[str, list[Instance]] = defaultdict(list)
    for instance in instances:
        for frame in instance.frames:
            planes[frame.component.value] += 1
        for component in {frame.component.value for frame in instance.frames}:
            members[component].append(instance)
    return {name: {"images": planes[name], "series": _series(members[name])} for name in sorted(planes)}


def _series(instances: Sequence[Instance]) -> list[int]:
    return sorted({instance.series_number for instance in instances})


def _orientation(affine: NDArray[np.float64]) -> Found:
    """The plane that the slices lie in, and by how many degrees they are tilted out of it."""
    normal = np.cross(affine[:3, 0], affine[:3, 1])
    normal /= np.linalg.norm(normal)
    axis = int(np.abs(normal).argmax())
    tilt = math.degrees(math.acos(min(1.0, abs(float(normal[axis])))))
    return {"plane": PLANES[axis], "tilt_degrees": round(tilt, 1)}
