"""Invented instances for grouping: what `describe` would say of a scan, without any file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

import numpy as np
from pydicom.uid import EnhancedMRImageStorage, MRImageStorage

from dicom_node.model import Component, Frame, Instance

M, P, R, I = Component.MAGNITUDE, Component.PHASE, Component.REAL, Component.IMAGINARY  # noqa: E741 - as DICOM has them

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)

Stacks = Sequence[tuple[int, Component, Sequence[float]]]
"""(series number, component, echo times) of each series."""

CLASSIC: Stacks = ((5, M, (4.0, 8.0, 12.0)), (6, P, (4.0, 8.0, 12.0)))
PHILIPS: Stacks = ((7, M, (4.0, 8.0, 12.0)), (7, P, (4.0, 8.0, 12.0)))
FOR_EACH_ECHO: Stacks = tuple(
    (5 + 2 * echo + second, component, (4.0 * (echo + 1),))
    for echo in range(3)
    for second, component in enumerate((M, P))
)


def scan(
    stacks: Stacks = CLASSIC,
    *,
    slices: int = 4,
    at: str = "20240229101500.0",
    name: str = "a",
    received_at: float = 0.0,
    association: str = "1",
    orientation: tuple[float, float, float, float, float, float] = AXIAL,
    origin: tuple[float, float] = (-100.0, -120.0),
    study: str = "1.2.3",
    frame_of_reference: str = "1.2.4",
    repetition: str = "1/",
    processing: str = "",
    protocol: str = "35/15",
    spacing: float = 2.0,
) -> list[Instance]:
    """One classic instance for each series, echo and slice, received in turn, 0.01 s apart."""
    received = (received_at + 0.01 * n for n in count())
    return [
        Instance(
            path=Path(f"{name}/{series}/{component}-{echo_time:g}-{k}"),
            sop_instance_uid=_uid(f"{name}{series}{component}{echo_time}{k}"),
            sop_class_uid=MRImageStorage,
            study_instance_uid=study,
            series_instance_uid=f"1.2.5.{_number(name)}.{series}",
            series_number=series,
            frame_of_reference_uid=frame_of_reference,
            rows=120,
            columns=100,
            pixel_spacing=(1.0, 1.0),
            encoding="siemens",
            refusal="",
            frames=(Frame(0, component, echo_time, _position(orientation, origin, spacing * k), orientation, at),),
            received_at=next(received),
            association=association,
            digest="",
            repetition=repetition,
            processing=processing,
            protocol=protocol,
        )
        for series, component, echo_times in stacks
        for echo_time in echo_times
        for k in range(slices)
    ]


def enhanced(instances: Sequence[Instance], name: str = "e", received_at: float = 0.0) -> Instance:
    """The same images as one enhanced object."""
    first = instances[0]
    frames = tuple(
        Frame(n, f.component, f.echo_time, f.position, f.orientation, f.acquired_at)
        for n, f in enumerate(_frames(instances))
    )
    return Instance(
        **{
            **vars(first),
            "path": Path(name),
            "sop_instance_uid": _uid(name),
            "sop_class_uid": EnhancedMRImageStorage,
            "frames": frames,
            "received_at": received_at,
        }
    )


def _frames(instances: Sequence[Instance]) -> Iterator[Frame]:
    for instance in instances:
        yield from instance.frames


def _position(
    orientation: tuple[float, ...], origin: tuple[float, float], distance: float
) -> tuple[float, float, float]:
    x, y, z = (float(c) for c in distance * np.cross(orientation[:3], orientation[3:]))
    return origin[0] + x, origin[1] + y, z


def _uid(name: str) -> str:
    return f"1.2.6.{_number(name)}"


def _number(name: str) -> int:
    return int.from_bytes(name.encode(), "big")
