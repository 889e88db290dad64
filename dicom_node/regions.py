"""What the regions of a report are called.  Their codes and colours are in `encode.anatomy`."""

from __future__ import annotations

WHOLE_BRAIN = "whole_brain"

SIDES = ("left", "right")

TITLES = {
    "caudate": "Caudate nucleus",
    "putamen": "Putamen",
    "globus_pallidus": "Globus pallidus",
    "globus_pallidus_external": "Globus pallidus, external",
    "globus_pallidus_internal": "Globus pallidus, internal",
    "nucleus_accumbens": "Nucleus accumbens",
    "subthalamic_nucleus": "Subthalamic nucleus",
    "red_nucleus": "Red nucleus",
    "substantia_nigra": "Substantia nigra",
    "dentate_nucleus": "Dentate nucleus",
    "thalamus": "Thalamus",
    "white_matter": "White matter",
    "lateral_ventricle": "Lateral ventricle",
    "csf": "CSF",
    WHOLE_BRAIN: "Whole brain",
}
"""In the order in which they are listed to people."""


def split(name: str) -> tuple[str, str]:
    """ "left_caudate" is ("caudate", "left"); what has no side has "" for it."""
    side, _, structure = name.partition("_")
    return (structure, side) if side in SIDES and structure else (name, "")


def title(name: str) -> str:
    """Of a region, with or without its side; what a site's own atlas calls it, where the table does not have it."""
    plain, _ = split(name)
    words = plain.replace("_", " ")
    return TITLES.get(plain) or words[:1].upper() + words[1:]


def in_words(name: str) -> str:
    """A region's name within a sentence: "left caudate nucleus", "whole brain", "CSF"; a site's own as written."""
    plain, side = split(name)
    found = TITLES.get(plain, plain.replace("_", " "))
    words = found if plain not in TITLES or found.isupper() else found[:1].lower() + found[1:]
    return f"{side} {words}".strip()
