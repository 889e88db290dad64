"""The frames of an Enhanced MR object: slices, echoes and components, and the unit of their values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from tests.simulation import enhanced, header
from tests.simulation.head import SimulatedHead

COMPLEX_IMAGE_COMPONENT, FRAME_TYPE = Tag(0x00089208), Tag(0x00189226)


@dataclass(frozen=True, eq=False)
class Component:
    """What one component of an object holds and how it is read.

    name: value of ComplexImageComponent.  stored: (echo, x, y, z).  rescale: slope and intercept.
    frame_type: values of FrameType.  unit: UCUM code and meaning for a Real World Value Mapping, None for no mapping.
    """

    name: str
    stored: NDArray[Any]
    rescale: tuple[float, float]
    frame_type: tuple[str, str, str, str]
    unit: tuple[str, str] | None
    window: tuple[int, int]


def add_frames(
    d: Dataset, study: header.Study, head: SimulatedHead, components: Sequence[Component], bits: int = 12
) -> None:
    """Dimensions, functional groups and pixels; echoes within each slice, slices within each component."""
    enhanced.add_dimensions(
        d,
        study,
        (
            enhanced.pointer(enhanced.STACK_ID, enhanced.FRAME_CONTENT, "Stack ID"),
            enhanced.pointer(enhanced.IN_STACK_POSITION, enhanced.FRAME_CONTENT, "In-Stack Position Number"),
            enhanced.pointer(COMPLEX_IMAGE_COMPONENT, FRAME_TYPE, "Complex Image Component"),
            enhanced.pointer(enhanced.EFFECTIVE_ECHO_TIME, enhanced.MR_ECHO, "Effective Echo Time"),
        ),
    )
    echoes, slices = len(head.acquisition.echo_times), head.acquisition.geometry.shape[2]
    groups, planes = [], []
    for number, component in enumerate(components, start=1):
        for k in range(slices):
            for echo in range(echoes):
                frame = enhanced.EnhancedFrame(
                    slice_index=k,
                    echo=echo,
                    component=component.name,
                    frame_type=component.frame_type,
                    index=(1, k + 1, number, echo + 1),
                    rescale=(*component.rescale, "US"),
                    window=component.window,
                )
                group = enhanced.per_frame(d, head, frame)
                if component.unit:
                    group.RealWorldValueMappingSequence = [_real_world(component, component.unit, bits)]
                groups.append(group)
                planes.append(component.stored[echo, :, :, k])
    d.PerFrameFunctionalGroupsSequence = groups
    header.add_pixels(d, np.stack(planes), bits)


def _real_world(component: Component, unit: tuple[str, str], bits: int) -> Dataset:
    """PS3.3 C.7.6.16.2.11: the unit of the values, where RescaleType only says US ("unspecified")."""
    code, mapping = Dataset(), Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = unit[0], "UCUM", unit[1]
    mapping.LUTExplanation, mapping.LUTLabel = component.name.capitalize(), component.name
    mapping.MeasurementUnitsCodeSequence = [code]
    signed = component.stored.dtype.kind == "i"
    first = -(1 << bits - 1) if signed else 0
    for element, value in ((0x9216, first), (0x9211, first + (1 << bits) - 1)):
        mapping.add(enhanced.private(0x0040, element, "SS" if signed else "US", value))
    mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept = (float(value) for value in component.rescale)
    return mapping
