"""What `inspect` found, laid out for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

NAME = 12
"""Characters of the column of names."""

WILL = {
    "reconstruct": "would reconstruct it",
    "review": "would stop it for review",
    "refuse": "would refuse it",
    "waiting": "would wait for more images",
    "incomplete": "would wait for the missing images",
}
"""By verdict, what the node would do."""

Found = dict[str, Any]


def in_words(found: Found, width: int) -> str:
    """width: characters of a line."""
    acquisitions, left_alone = found["acquisitions"], found["left_alone"]
    lines = [
        f"{found['folder']}: {_count(found['files'], 'file')}, {_count(found['objects'], 'DICOM object')}, "
        f"{_count(len(acquisitions), 'acquisition')}"
    ]
    for place, acquisition in enumerate(acquisitions, 1):
        lines += ["", *_acquisition(place, acquisition, width)]
    if left_alone:
        lines += ["", f"left alone: {_count(sum(entry['objects'] for entry in left_alone), 'object')}"]
        for entry in left_alone:
            lines += _entry("", f"{entry['objects']} of series {_list(entry['series'])}: {entry['reason']}", width)
    return "\n".join(lines)


def _acquisition(place: int, found: Found, width: int) -> Iterator[str]:
    yield f"[{place}] series {_list(found['series'])}: {found['encoding']}, {_count(found['objects'], 'object')}"
    for name, sentence in _entries(found):
        yield from _entry(name, sentence, width)


def _entries(found: Found) -> Iterator[tuple[str, str]]:
    """Name and sentence; an empty name goes on under the one before."""
    maker = found["scanner"]
    names = [maker[key] for key in ("Manufacturer", "ManufacturerModelName", "SoftwareVersions") if key in maker]
    yield "scanner", ", ".join(names) or "not told"
    identity = {"station_name": "StationName", "serial_number": "DeviceSerialNumber"}
    if known := [f'{setting} = "{maker[key]}"' for setting, key in identity.items() if key in maker]:
        yield "", ", ".join(known)
    times = found["echo_times_ms"]
    yield "echoes", f"{len(times)}: {_list(f'{time:g}' for time in times)} ms"
    for name, component in found["components"].items():
        yield name, f"{component['images']} images of series {_list(component['series'])}"
    if found["set_aside"]:
        yield "set aside", f"{found['set_aside']} objects: another export of the same scan"
    yield "grid", _grid(found["grid"])
    if "field" in found:
        along = _list(f"{part:+.3f}" for part in found["grid"]["b0_direction"])
        yield (
            "field",
            f"{found['field']['tesla']:.3f} T ({found['field']['megahertz']:.3f} MHz), B0 along {along} of "
            "columns, rows and slices",
        )
    yield from _under("phase", found["decisions"])
    if found.get("configured"):
        settings = (f"{key} = {value}" for key, value in found["configured"].items() if value is not None)
        yield "configured", _list(settings)
    if found["plausibility"]:
        yield from _physics(found["plausibility"])
    yield from _under("missing", found["missing"])
    yield from _under("warning", found["warnings"])
    yield "the node", WILL[found["verdict"]] + (f": {found['reason']}" if found["reason"] else "")


def _grid(grid: Found) -> str:
    if "shape" not in grid:
        spacing = " × ".join(f"{length:g}" for length in reversed(grid["pixel_spacing_mm"]))
        return f"{grid['columns']} × {grid['rows']} pixels of {spacing} mm"
    shape = " × ".join(str(size) for size in grid["shape"])
    voxel = " × ".join(f"{length:.3g}" for length in grid["voxel_size_mm"])
    tilt = f", tilted by {grid['tilt_degrees']:g}°" if grid["tilt_degrees"] else ""
    return f"{shape} voxels of {voxel} mm, {grid['plane']}{tilt}"


def _physics(found: Found) -> Iterator[tuple[str, str]]:
    """The verdict, then each finding with what it weighs."""
    yield "physics", f"{found['verdict']}: sign {found['sign']}, scale {found['scale']}"
    for evidence in (*found["sign_evidence"], *found["scale_evidence"]):
        weight = f"{evidence['score']:+.1f}" if evidence["score"] else "   ·"
        yield "", f"{weight:>4}  {evidence['sentence']}"


def _under(name: str, sentences: Sequence[str]) -> Iterator[tuple[str, str]]:
    for place, sentence in enumerate(sentences):
        yield ("" if place else name), sentence


def _entry(name: str, sentence: str, width: int) -> list[str]:
    indent = " " * (NAME + 4)
    return textwrap.wrap(
        sentence,
        max(width, 2 * NAME + 20),
        initial_indent=f"    {name:<{NAME}}",
        subsequent_indent=indent,
        break_on_hyphens=False,
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _list(parts: Any) -> str:
    return ", ".join(str(part) for part in parts)
