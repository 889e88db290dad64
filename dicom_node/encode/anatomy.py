"""What the regions of a report are called, coded and coloured: one table for segmentation, report, page and tables.

Codes: SNOMED CT as DICOM publishes it in PS3.16 (CID 7140, 7151, 7153).  What DICOM has no code for (red nucleus,
subthalamic nucleus, the two segments of the globus pallidus, dentate nucleus) carries that of Uberon
(doi:10.1186/gb-2012-13-1-r5), a published ontology that PS3.16 table 8-1 names among its coding schemes.  A structure
of a site's own atlas that is not in the table carries the code of CID 7140 of that name ("hippocampus"), else it is a
"Tissue" that its label names; its colour follows from the name.
"""

from __future__ import annotations

import colorsys
import hashlib
from dataclasses import dataclass

from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from dicom_node.regions import TITLES, WHOLE_BRAIN, split, title

STRUCTURE = codes.SCT.AnatomicalStructure
SUBSTANCE = codes.cid7150.BodySubstance
TISSUE = codes.cid7150.Tissue

LATERALITY = {"left": codes.SCT.Left, "right": codes.SCT.Right}

Colour = tuple[int, int, int]
"""Red, green, blue, 0 to 255."""

ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
"""The palette of Okabe and Ito (Wong 2011, doi:10.1038/nmeth.1618): told apart with every kind of colour vision."""
PALE = (204, 204, 204)
"""For an eighth nucleus: brighter than tissue on the map, darker than paper."""
MINT, CRIMSON, BROWN, VIOLET, LAVENDER, SLATE = (
    (180, 255, 165),
    (225, 0, 75),
    (90, 30, 0),
    (135, 0, 240),
    (150, 120, 255),
    (45, 45, 75),
)
"""For what lies around the nuclei: as far as can be from their colours and from one another, in CIELab, as seen with
and without each kind of colour blindness (Machado et al. 2009, doi:10.1109/TVCG.2009.113)."""
SATURATION, DARKEST, BRIGHTEST = 0.5, 0.5, 0.95
"""Of what the table does not have: paler than any colour above."""


@dataclass(frozen=True)
class Structure:
    """title: for people.  short: for a narrow column.  category, kind: PS3.16 CID 7150 and 7151.

    colour: of both sides; each structure has its own, but for the globus pallidus, which is there whole or in its
    parts.  nucleus: whether it is one of the iron-rich nuclei that the page is about.
    """

    title: str
    short: str
    category: Code
    kind: Code
    colour: Colour
    nucleus: bool = False


STRUCTURES = {
    "caudate": Structure(TITLES["caudate"], "Caudate", STRUCTURE, codes.SCT.CaudateNucleus, ORANGE, nucleus=True),
    "putamen": Structure(TITLES["putamen"], "Putamen", STRUCTURE, codes.SCT.Putamen, SKY, nucleus=True),
    "globus_pallidus": Structure(
        TITLES["globus_pallidus"], "Pallidum", STRUCTURE, codes.SCT.GlobusPallidus, GREEN, nucleus=True
    ),
    "globus_pallidus_external": Structure(
        TITLES["globus_pallidus_external"],
        "Pallidum ext.",
        STRUCTURE,
        Code("UBERON:0002476", "UBERON", "lateral globus pallidus"),
        GREEN,
        nucleus=True,
    ),
    "globus_pallidus_internal": Structure(
        TITLES["globus_pallidus_internal"],
        "Pallidum int.",
        STRUCTURE,
        Code("UBERON:0002477", "UBERON", "medial globus pallidus"),
        YELLOW,
        nucleus=True,
    ),
    "nucleus_accumbens": Structure(
        TITLES["nucleus_accumbens"], "Accumbens", STRUCTURE, codes.SCT.NucleusAccumbens, PALE, nucleus=True
    ),
    "subthalamic_nucleus": Structure(
        TITLES["subthalamic_nucleus"],
        "Subthalamic",
        STRUCTURE,
        Code("UBERON:0001906", "UBERON", "subthalamic nucleus"),
        PURPLE,
        nucleus=True,
    ),
    "red_nucleus": Structure(
        TITLES["red_nucleus"],
        "Red nucleus",
        STRUCTURE,
        Code("UBERON:0001947", "UBERON", "red nucleus"),
        VERMILION,
        nucleus=True,
    ),
    "substantia_nigra": Structure(
        TITLES["substantia_nigra"], "Subst. nigra", STRUCTURE, codes.SCT.SubstantiaNigra, BLUE, nucleus=True
    ),
    "dentate_nucleus": Structure(
        TITLES["dentate_nucleus"],
        "Dentate",
        STRUCTURE,
        Code("UBERON:0002132", "UBERON", "dentate nucleus"),
        MINT,
        nucleus=True,
    ),
    "thalamus": Structure(TITLES["thalamus"], "Thalamus", STRUCTURE, codes.SCT.Thalamus, CRIMSON),
    "white_matter": Structure(TITLES["white_matter"], "White matter", STRUCTURE, codes.SCT.CerebralWhiteMatter, BROWN),
    "lateral_ventricle": Structure(
        TITLES["lateral_ventricle"], "Lat. ventricle", STRUCTURE, codes.SCT.LateralVentricle, VIOLET
    ),
    "csf": Structure(TITLES["csf"], "CSF", SUBSTANCE, codes.SCT.CerebrospinalFluid, LAVENDER),
    WHOLE_BRAIN: Structure(TITLES[WHOLE_BRAIN], "Whole brain", STRUCTURE, codes.SCT.Brain, SLATE),
}
"""In the order in which they are listed to people."""


PUBLISHED = {
    code.meaning.casefold(): code
    for code in (getattr(codes.cid7140, keyword) for keyword in codes.cid7140.dir())
    if code.scheme_designator == codes.SCT.Brain.scheme_designator  # those of DCM are lesions and their like
}
"""Of the structures of a brain (CID 7140), by their published names."""


def structure(name: str) -> Structure:
    """Of a region, with or without its side."""
    plain, _ = split(name)
    if (known := STRUCTURES.get(plain)) is not None:
        return known
    words = plain.replace("_", " ")
    published = PUBLISHED.get(words.casefold())
    category, kind = (STRUCTURE, published) if published else (TISSUE, codes.SCT.Tissue)
    return Structure(title(name), words, category, kind, _colour_of(plain))


def _colour_of(name: str) -> Colour:
    """Follows from the name alone, so that a structure of a site's own atlas has the same one in every result."""
    hue, brightness = (part / 255 for part in hashlib.sha256(name.encode()).digest()[:2])
    red, green, blue = colorsys.hsv_to_rgb(hue, SATURATION, DARKEST + brightness * (BRIGHTEST - DARKEST))
    return round(255 * red), round(255 * green), round(255 * blue)


def laterality(name: str) -> Code | None:
    return LATERALITY.get(split(name)[1])


def place(name: str) -> tuple[int, str, str]:
    """Sorts regions as they are listed: by the table, what it does not have behind, left before right."""
    plain, side = split(name)
    order = list(STRUCTURES)
    return (order.index(plain) if plain in order else len(order), plain, side)
