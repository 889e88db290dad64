"""Finished results on disk, made by hand: what is exported and compared."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dicom_node.encode import encode
from dicom_node.encode.aside import set_aside
from dicom_node.encode.record import names, record
from dicom_node.finished import Finished
from dicom_node.reconstruct import Outcome, write
from dicom_node.settings import Output
from reconstruction import Acquisition, Maps, Recipe
from tests.dicom_node.encode.example import CREATED, PLAIN, SHAPE, header, recipe, source, whole_maps


def write_result(
    folder: Path,
    maps: Maps | None = None,
    made_with: Recipe | None = None,
    output: Output = PLAIN,
    place: int = 0,
    **attributes: str,
) -> Path:
    """attributes: of patient and study, in place of the example's.  place: see `encode.aside`, 0 for a first result."""
    headers = tuple(header(i) for i in range(SHAPE[2]))
    for dataset in headers:
        for keyword, value in attributes.items():
            setattr(dataset, keyword, value)
    maps, made_with, made_from = maps or whole_maps(), made_with or recipe(), source(headers)
    encoded = encode(maps, made_from, made_with, CREATED, output)
    if place:
        set_aside(encoded.datasets, made_with, place)
    outputs = names(encoded.datasets)
    report = record(_acquisition(maps), maps, made_from, made_with, encoded, outputs, {})
    write(Outcome(maps, made_from, outputs, json.loads(json.dumps(report)), encoded.page), folder)
    return folder


def _acquisition(maps: Maps) -> Acquisition:
    echoes = maps.magnitude[None].repeat(2, axis=0)
    return Acquisition(echoes, echoes, (0.004, 0.012), 123.2e6, maps.geometry)


def altered(result: Finished, changed: Mapping[str, Any] | None = None, **attributes: str) -> Finished:
    """The same files, read as if parts of their record and attributes of their header were others."""
    other = Finished(result.folder, copy.deepcopy(result.record) | dict(changed or {}))
    header = copy.deepcopy(result.header)
    for keyword, value in attributes.items():
        setattr(header, keyword, value)
    other.__dict__["header"] = header  # where cached_property keeps it
    return other
