from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from dicom_node.atlas import read_atlas
from dicom_node.encode.anatomy import (
    BLUE,
    GREEN,
    ORANGE,
    PALE,
    PURPLE,
    SKY,
    STRUCTURE,
    STRUCTURES,
    TISSUE,
    VERMILION,
    YELLOW,
    structure,
)
from dicom_node.regions import WHOLE_BRAIN, split

VISION = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
"""Linear RGB as it is seen (Machado et al. 2009, doi:10.1109/TVCG.2009.113, severity 1)."""
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.119192, 0.9503041]]
)
"""Of sRGB, IEC 61966-2-1."""
TOLD_APART = 15.0
"""In CIELab; a trained eye sees a difference of 2 side by side."""


def test_every_segment_of_the_atlas_has_a_colour_that_all_can_tell_apart() -> None:
    atlas = read_atlas("icbm152")
    names = {split(name)[0] for name in (*atlas.mixtures, *atlas.label_names.values())} | {"csf", WHOLE_BRAIN}
    assert len(names) == 12
    for one, other in combinations(sorted(names), 2):
        for vision in VISION:
            seen = [_lab(structure(name).colour, vision) for name in (one, other)]
            assert np.linalg.norm(seen[0] - seen[1]) > TOLD_APART, (one, other, vision)


def test_no_colour_of_the_table_stands_for_two_structures() -> None:
    colours = {name: what.colour for name, what in STRUCTURES.items() if name != "globus_pallidus"}
    assert len(set(colours.values())) == len(colours)


def test_the_nuclei_keep_the_colours_they_have() -> None:
    """A reader knows them by heart, and studies lie beside earlier ones."""
    assert [structure(f"left_{name}").colour for name in STRUCTURES if STRUCTURES[name].nucleus][:9] == [
        ORANGE,
        SKY,
        GREEN,
        GREEN,
        YELLOW,
        PALE,
        PURPLE,
        VERMILION,
        BLUE,
    ]


def test_structures_of_a_site_have_colours_of_their_own_and_keep_them() -> None:
    names = [f"region_{number}" for number in range(60)]
    assert len({structure(name).colour for name in names}) == len(names)
    assert structure("left_hippocampus").colour == structure("right_hippocampus").colour == (75, 141, 70)


def test_a_structure_of_a_site_carries_the_code_that_dicom_publishes_for_its_name() -> None:
    for name, code in (("left_hippocampus", "5366008"), ("Amygdala", "4958002"), ("brain_stem", "119238007")):
        found = structure(name)
        assert (found.kind.value, found.kind.scheme_designator) == (code, "SCT")
        assert found.category == STRUCTURE
    assert structure("left_claustrum").category == TISSUE
    assert structure("white matter t2 hyperintensity").category == TISSUE, "a lesion is no structure"


def _lab(colour: tuple[int, int, int], vision: str) -> NDArray[np.float64]:
    scaled = np.array(colour) / 255
    linear = np.where(scaled <= 0.04045, scaled / 12.92, ((scaled + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.asarray(VISION[vision]) @ linear, 0, 1)
    x, y, z = (
        np.cbrt(value) if value > (6 / 29) ** 3 else value * (29 / 6) ** 2 / 3 + 4 / 29
        for value in TO_XYZ @ seen / TO_XYZ.sum(axis=1)
    )
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])
