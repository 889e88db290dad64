"""A map in float32, as Parametric Map (PS3.3 A.75): the standard's own quantitative image, for research archives.

Few viewers show it, so it goes beside the series of integers and never in its place.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from importlib.metadata import version

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from dicom_node.encode.identity import (
    SOFTWARE,
    Identity,
    inherit_patient_and_study,
    processing_equipment,
    stamp,
)
from dicom_node.encode.quantity import Quantity, values
from dicom_node.encode.segmentation import anonymous, derive_dimension_uid
from dicom_node.encode.series import file_meta
from reconstruction import Maps, Recipe

PARAMETRIC_NUMBER = 40
"""Series numbers of parametric maps: this and the place of the map itself.  Each is a series of its own, for what reads
NIfTI out of them keeps the description of the series and forgets what an instance says of its quantity."""


def encode_parametric(
    maps: Maps,
    quantity: Quantity,
    images: Sequence[Dataset],
    header: Dataset,
    identity: Identity,
    recipe: Recipe,
    number: int,
    when: datetime.datetime,
) -> Dataset:
    """One frame for each slice of `images` (a series of MR images of the same scan), values in the quantity's unit."""
    low, high = quantity.window
    unit = quantity.unit or codes.UCUM.NoUnits
    limits = np.finfo(np.float32)
    mapping = hd.pm.RealWorldValueMapping(
        lut_label=quantity.label,
        lut_explanation=f"{quantity.concept.meaning} in {unit.meaning}",
        unit=unit,
        value_range=(float(limits.min), float(limits.max)),
        slope=1,
        intercept=0,
        quantity_definition=quantity.concept,
    )
    dataset = hd.pm.ParametricMap(
        source_images=[anonymous(image) for image in images],
        pixel_array=values(maps, quantity).astype(np.float32).transpose(2, 1, 0),
        series_instance_uid=identity.uid("parametric", quantity.name, "series"),
        series_number=number,
        sop_instance_uid=identity.uid("parametric", quantity.name, "instance"),
        instance_number=1,
        manufacturer=SOFTWARE,
        manufacturer_model_name="qsm-node",
        software_versions=version("qsm-node"),
        device_serial_number="0",
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[
            hd.VOILUTTransformation(window_center=(low + high) / 2, window_width=float(high - low))
        ],
        content_label=quantity.label,
        content_description=quantity.description,
        series_description=f"{quantity.description} float32",
    )
    derive_dimension_uid(dataset, identity, "parametric", quantity.name)
    inherit_patient_and_study(dataset, header)
    stamp(dataset, when)
    dataset.BodyPartExamined = "BRAIN"
    dataset.ContributingEquipmentSequence = [processing_equipment(recipe, when)]
    dataset.file_meta = file_meta(dataset)
    return dataset
