"""How a map is to be shown: its window as a presentation state, in grey (PS3.3 A.33.1) or in colour (A.33.3).

The colours are the standard's own Hot Iron (PS3.6 B.1): from black through red and yellow to white, always brighter, so
that it reads the same without colour vision.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import highdicom as hd
import numpy as np
from pydicom import dcmread
from pydicom.data import get_palette_files
from pydicom.dataset import Dataset

from dicom_node.encode.identity import (
    SOFTWARE,
    Identity,
    inherit_patient_and_study,
    processing_equipment,
    stamp,
)
from dicom_node.encode.quantity import Quantity
from dicom_node.encode.segmentation import anonymous
from dicom_node.encode.series import file_meta
from reconstruction import Recipe

GREY_NUMBER, COLOUR_NUMBER = 14, 15
"""Their places among the outputs' series numbers."""

HOT_IRON = "hotiron.dcm"
TO_16_BIT = 0x101
"""255 becomes 65535."""

DISPLAYED = (  # highdicom takes the window from here
    "ImageType",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "WindowCenter",
    "WindowWidth",
)


def encode_presentation(
    quantity: Quantity,
    images: Sequence[Dataset],
    header: Dataset,
    identity: Identity,
    recipe: Recipe,
    number: int,
    when: datetime.datetime,
    *,
    colour: bool = False,
) -> Dataset:
    """The window of a quantity over the images of its series."""
    low, high = quantity.window
    shown = [anonymous(image, *DISPLAYED) for image in images]
    kind = "colour" if colour else "grey"
    settings: dict[str, Any] = {
        "referenced_images": shown,
        "series_instance_uid": identity.uid("presentation", kind, "series"),
        "series_number": number,
        "sop_instance_uid": identity.uid("presentation", kind, quantity.name),
        "instance_number": 1,
        "manufacturer": SOFTWARE,
        "manufacturer_model_name": "qsm-node",
        "software_versions": version("qsm-node"),
        "device_serial_number": "0",
        "content_label": f"{quantity.label}_{'HOTIRON' if colour else 'WINDOW'}",
        "content_description": f"{quantity.description} from {low} to {high}",
        "series_description": f"{quantity.title} {'colours' if colour else 'window'}",
    }
    state: Dataset
    if colour:
        state = hd.pr.PseudoColorSoftcopyPresentationState(palette_color_lut_transformation=_hot_iron(), **settings)
    else:
        state = hd.pr.GrayscaleSoftcopyPresentationState(**settings)
    inherit_patient_and_study(state, header)
    stamp(state, when)
    state.BodyPartExamined = "BRAIN"
    state.PresentationCreationDate, state.PresentationCreationTime = state.ContentDate, state.ContentTime
    state.ContributingEquipmentSequence = [processing_equipment(recipe, when)]
    state.file_meta = file_meta(state)
    return state


def _hot_iron() -> hd.PaletteColorLUTTransformation:
    """As pydicom carries it from PS3.6 B.1.1, 256 entries for each colour, here in 16 bit."""
    palette = dcmread(get_palette_files(HOT_IRON)[0])
    tables = {
        name: np.frombuffer(palette[f"{name.title()}PaletteColorLookupTableData"].value, np.uint8).astype(np.uint16)
        * TO_16_BIT
        for name in ("red", "green", "blue")
    }
    red, green, blue = (hd.PaletteColorLUT(0, table, color=name) for name, table in tables.items())
    return hd.PaletteColorLUTTransformation(red, green, blue, palette_color_lut_uid=palette.PaletteColorLookupTableUID)
