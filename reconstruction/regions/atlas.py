"""The nuclei by an atlas: the brain is laid over the atlas' template, and the template's regions come back.

An affine map first, then a diffeomorphic warp, both over magnitude, χ, R2* and the brain's outline at once, against a
template that is given this brain's own contrasts (Avants et al. 2008, doi:10.1016/j.media.2007.06.004, for the warp and
its measure; Roche 1998, doi:10.1007/BFb0056301, for contrasts that follow the other image).  Then it is asked whether
brain and template are alike; figures of regions that were put in the wrong place are worse than none.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from reconstruction import quality
from reconstruction.acquisition import BoolArray, FloatArray, Geometry
from reconstruction.atlas import Atlas
from reconstruction.errors import InvalidAtlas
from reconstruction.maps import Regions
from reconstruction.regions import _judge as doubts
from reconstruction.regions._images import images_of
from reconstruction.regions._outline import depths, drawn, whole
from reconstruction.regions._place import placed
from reconstruction.regions._refine import refined
from reconstruction.regions._register import register
from reconstruction.regions._template import template_of


def atlas(
    atlas: Atlas,
    magnitude: FloatArray,
    chi: FloatArray,
    r2star: FloatArray | None,
    mask: BoolArray,
    geometry: Geometry,
    *,
    name: str = "icbm152",
    refine_mm: float = 0.75,
    chi_weight: float = 1.0,
) -> Regions:
    """The atlas' regions in this brain.

    atlas: the one that `name` calls.  magnitude: root sum of squares.  chi: ppm, 0 where it is not known.  r2star: 1/s
    (None for a single echo).  mask: bool, the brain.  All (x, y, z).  geometry: with its affine.
    refine_mm: how far the outline of a nucleus may move from the atlas' to where the map shows it; 0 leaves it, and a
    nucleus that plainly lies beside its place too.
    chi_weight: of the map in the registration, against 1 for magnitude and R2* each.
    Raises InvalidAtlas when the atlas is another one than the recipe names.
    """
    if atlas.name != name:
        raise InvalidAtlas(f"the recipe asks for atlas {name!r}, but {atlas.name!r} was given")
    unlike = doubts.of_geometry(geometry, mask)
    if unlike:
        return _withheld(mask, {}, unlike)
    images = images_of(magnitude, chi, r2star, mask, geometry)
    template = template_of(atlas)
    found = register(images, template, chi_weight)
    for figure, value in found.match.items():
        quality.figure(f"regions.{figure}", value)
    unlike = doubts.of_match(found.match)
    if unlike:
        return _withheld(mask, found.match, unlike)
    outlines = depths(atlas, found.places, images.grid, mask, geometry)
    if refine_mm > 0:
        nuclei = tuple(atlas.mixtures)
        outlines = placed(outlines, nuclei, chi, mask, geometry)
        outlines = refined(outlines, nuclei, chi, mask, geometry, refine_mm)
    names = whole(atlas.names, outlines, mask)
    if not names:
        return _withheld(mask, found.match, "no region of the atlas lies wholly inside the brain that was acquired")
    cut = tuple(name for name in atlas.names if name not in names)
    return Regions(names, drawn(names, outlines, mask), found.match, True, cut=cut)


def _withheld(mask: BoolArray, match: Mapping[str, float], reason: str) -> Regions:
    quality.warn(f"regions: withheld, since {reason}")
    return Regions((), np.zeros(mask.shape, np.uint8), match, False, reason)
