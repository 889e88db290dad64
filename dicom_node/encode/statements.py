"""What a reader must know beside the numbers, in plain sentences: for the report, and in part for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version

from dicom_node.encode.quantity import QSM, zero
from dicom_node.encode.ranges import Comparison
from dicom_node.identity import RESEARCH_ONLY
from dicom_node.regions import in_words
from reconstruction import Maps, Recipe


def statements(
    maps: Maps, recipe: Recipe, warnings: Sequence[str], comparison: Comparison | None = None
) -> tuple[str, ...]:
    """Purpose, grade, unit, reference, regions, geometry, quality and warnings as sentences."""
    voxel = " x ".join(f"{size:.4g}" for size in maps.geometry.voxel_size)
    grid = " x ".join(map(str, maps.geometry.shape))
    return (
        RESEARCH_ONLY,
        f"Grade: {maps.grade}.",
        *(f"Ground of the grade: {ground}" for ground in maps.grounds),
        _zero(maps),
        *withheld(maps),
        *ageing(comparison),
        f"Geometry unchanged: {grid} voxels of {voxel} mm, as acquired; no resampling, rotation or cropping.",
        f"Software qsm-node {version('qsm-node')}, recipe {recipe.name}, SHA-256 {recipe.digest()}.",
        *(f"Warning: {warning}" for warning in warnings),
        *_listed("Quality, for engineers", _quality(maps)),
        *_listed("Match of the atlas, for engineers", _match(maps)),
    )


def withheld(maps: Maps) -> tuple[str, ...]:
    """Why there are no figures of the nuclei, where the atlas was asked for and its match is not trusted."""
    if maps.regions is None or maps.regions.trusted:
        return ()
    return (f"Figures of the nuclei are withheld: {maps.regions.reason or 'the match with the atlas is not trusted'}.",)


def ageing(comparison: Comparison | None) -> tuple[str, ...]:
    """Where the expected values are from and what they are not; why there are none.

    A difference is told only where the table knows how far people differ.
    """
    if comparison is None:
        return ()
    ranges = comparison.ranges
    if comparison.withheld:
        return (f"No comparison with {ranges.name}: {comparison.withheld}.",)
    if not comparison.expected:
        return (f"No comparison with {ranges.name}: it has none of these structures.",)
    placed = [
        f"{in_words(name)} {found.position:+.1f} SD"
        for name, found in comparison.expected.items()
        if found.low is not None
    ]
    told = []
    if placed:
        told.append(
            f"Difference of the mean susceptibility from what {ranges.name} make expected at {comparison.age:.0f} "
            f"years, no diagnosis: {', '.join(placed)}."
        )
    if len(placed) < len(comparison.expected):
        told.append(
            f"{ranges.name} ({ranges.mark}) has one value for an age and no spread between people: a measured mean "
            "that differs from it is no finding."
        )
    return (
        *told,
        " ".join(["Source of the expected values:", *map(sentence, (ranges.source, ranges.note))]).strip(),
    )


def sentence(words: str) -> str:
    """Ended, where it does not end itself."""
    words = " ".join(words.split())
    return words if not words or words.endswith((".", "!", "?")) else f"{words}."


def _listed(what: str, figures: Mapping[str, float]) -> tuple[str, ...]:
    told = "; ".join(f"{name} = {value:.6g}" for name, value in sorted(figures.items()))
    return (f"{what}: {told}.",) if told else ()


def _quality(maps: Maps) -> dict[str, float]:
    """But for those of the regions, which are the match of the atlas."""
    return {name: value for name, value in maps.quality.items() if not name.startswith("regions.")}


def _match(maps: Maps) -> dict[str, float]:
    return {} if maps.regions is None else dict(maps.regions.match)


def _zero(maps: Maps) -> str:
    reference = maps.reference
    if not reference.mask.any():
        return "Susceptibility is in ppb without reference: its zero is arbitrary."
    return (
        f"Susceptibility is in ppb {zero(maps)}; before referencing that region had a mean of "
        f"{reference.mean * QSM.per_unit:.1f} ppb and an SD of {reference.sd * QSM.per_unit:.1f} ppb relative to the "
        "mean of the whole brain's reliable voxels."
    )
