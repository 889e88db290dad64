"""The quantities that go out as images: how a value becomes a stored integer, what unit it has, how it is shown.

The stored integer *is* the value in its unit (ppb, 1/s, ms, Hz): slope 1, intercept 0.  A viewer that ignores Rescale,
which the MR Image IOD does not know (PS3.3 A.4.3), still shows right numbers.  Susceptibility-weighted images are in
no unit: they are scaled by one power of two, the same for the images and their projection.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from dicom_node.regions import in_words
from dicom_node.settings import STAGE_OF_MAP
from reconstruction import GYROMAGNETIC_RATIO, Maps

INT16 = np.iinfo(np.int16)


@dataclass(frozen=True)
class Quantity:
    """name: of the volume in `Maps`.  title: for people.  label: ImageType's fourth value.  number: place among the
    outputs.
    unit: None where a value means nothing by itself.  per_unit: what a value of `Maps` is multiplied with to be in
    `unit`.  window: shown from black to white, in `unit`.
    """

    name: str
    title: str
    label: str
    number: int
    concept: Code
    unit: Code | None
    per_unit: float
    window: tuple[int, int]

    @property
    def description(self) -> str:
        """Of the series, for people: "QSM (ppb)"."""
        return f"{self.title} ({self.unit.meaning})" if self.unit else self.title


PPB = Code("[ppb]", "UCUM", "ppb")
MILLISECOND = Code("ms", "UCUM", "ms")

QSM = Quantity(
    name="chi",
    title="QSM",
    label="QSM",
    number=1,
    concept=codes.DCM.MagneticSusceptibility,
    unit=PPB,
    per_unit=1000.0,
    window=(-150, 200),
)
R2STAR = Quantity(
    name="r2star",
    title="R2*",
    label="R2STAR",
    number=2,
    concept=codes.DCM.R2Star,
    # 1/s in whole numbers: the noise of R2* at one voxel is larger than the rounding, so that regional means keep
    # their precision, and the exact figures stand in the report.
    unit=Code("/s", "UCUM", "1/s"),
    per_unit=1.0,
    window=(0, 50),  # at 3 T, see `_scaled`
)
SWI = Quantity(
    name="swi",
    title="SWI",
    label="SWI",
    number=6,
    concept=codes.DCM.T2StarWeightedMRSignalIntensity,
    unit=None,
    per_unit=1.0,
    window=(0, 1),
)
SWI_PROJECTION = replace(
    SWI, name="swi_projection", title="SWI minimum intensity projection", label="SWIMINIP", number=7
)
T2STAR = Quantity(
    name="t2star",
    title="T2*",
    label="T2STAR",
    number=8,
    concept=codes.DCM.T2Star,
    unit=MILLISECOND,
    per_unit=1000.0,
    window=(0, 100),  # at 3 T, see `_scaled`
)
FIELD = Quantity(
    name="field",
    title="Field",
    label="FIELD",
    number=9,
    concept=codes.DCM.FieldMapMRSignalIntensity,
    unit=Code("Hz", "UCUM", "Hz"),
    per_unit=1.0,
    window=(-100, 100),
)
# In ppb of B0: whole Hz would leave some twenty steps of it in a brain at 3 T, and half of them at 1.5 T.
LOCAL_FIELD = replace(
    FIELD,
    name="local_field",
    title="Local field",
    label="LOCALFIELD",
    number=10,
    unit=PPB,
    per_unit=1000.0,
    window=(-80, 80),
)
# Zero, which most of the brain has and all outside it, is grey, as in the map itself.
CHI_PARA = replace(
    QSM, name="chi_para", title="QSM paramagnetic, experimental", label="CHIPARA", number=11, window=(-50, 150)
)
CHI_DIA = replace(
    QSM, name="chi_dia", title="QSM diamagnetic, experimental", label="CHIDIA", number=12, window=(-100, 50)
)

ALWAYS = (QSM, R2STAR, SWI, SWI_PROJECTION)
"""Sent wherever the maps hold them."""
CHOSEN = {quantity.name: quantity for quantity in (T2STAR, FIELD, LOCAL_FIELD, CHI_PARA, CHI_DIA)}
"""Sent where the site wants them, too."""

LONGEST_T2STAR = 2.0
"""Seconds: the T2 of cerebrospinal fluid, longer than anything else's.  Echoes of some tens of milliseconds do not tell
more from less, and R2* that is fitted as 0 would be infinitely long."""

R2STAR_WHITE, R2STAR_WHITE_PER_TESLA = 20.0, 10.0
"""1/s: 35 at 1.5 T, 50 at 3 T, 90 at 7 T, where white matter has 15, 19 and 37, the putamen 18, 32 and 62 (Peters et
al. 2007, doi:10.1016/j.mri.2007.02.014): tissue lies below the middle of the window, iron above it."""
T2STAR_WHITE = 5.0
"""Divided by the same: 145 ms at 1.5 T, 100 at 3 T, 55 at 7 T."""

SWI_LEVELS = 4095
"""Of the brightest voxel at most: 12 bit, as magnitude images have."""
SWI_WHITE = 0.99
"""Quantile of the brain that is shown white; the scalp may be brighter."""


def quantities(maps: Maps, chosen: Sequence[str] = (), larmor_frequency: float = 0.0) -> tuple[Quantity, ...]:
    """Those that these maps hold, in the order in which they are sent.

    chosen: of CHOSEN.  larmor_frequency: Hz, for the field, and for the windows of relaxation, which are those of 3 T
    without it.
    """
    wanted = [*ALWAYS, *(quantity for name, quantity in CHOSEN.items() if name in chosen)]
    held = [quantity for quantity in wanted if _volume(maps, quantity) is not None]
    return tuple(_scaled(maps, quantity, larmor_frequency) for quantity in held)


def _scaled(maps: Maps, quantity: Quantity, larmor_frequency: float) -> Quantity:
    """With the factor and the window that follow from this scan."""
    if quantity.name == FIELD.name:
        return replace(quantity, per_unit=larmor_frequency * 1e-6)
    if quantity.name in (R2STAR.name, T2STAR.name) and larmor_frequency:
        white = R2STAR_WHITE + R2STAR_WHITE_PER_TESLA * larmor_frequency / GYROMAGNETIC_RATIO
        shown = white if quantity.name == R2STAR.name else T2STAR_WHITE / white * quantity.per_unit
        return replace(quantity, window=(0, round(shown / 5) * 5))
    if quantity.unit is None and maps.swi is not None:
        brightest = float(maps.swi.max())
        factor = 2.0 ** math.floor(math.log2(SWI_LEVELS / brightest)) if brightest > 0 else 1.0
        inside = maps.swi[maps.brain_mask] if maps.brain_mask.any() else maps.swi
        return replace(
            quantity, per_unit=factor, window=(0, max(1, round(float(np.quantile(inside, SWI_WHITE)) * factor)))
        )
    return quantity


def _volume(maps: Maps, quantity: Quantity) -> NDArray[np.float32] | None:
    """As `Maps` holds it; T2* in s, LONGEST_T2STAR at most."""
    if quantity.name != T2STAR.name:
        volume: NDArray[np.float32] | None = getattr(maps, quantity.name)
        return volume
    if maps.r2star is None:
        return None
    return np.reciprocal(np.maximum(maps.r2star, np.float32(1 / LONGEST_T2STAR)))


def zero(maps: Maps) -> str:
    """What 0 ppb is, in words that follow a unit."""
    if not maps.reference.mask.any():
        return "without reference"
    return f"relative to {in_words(maps.reference.name)}"


def values(maps: Maps, quantity: Quantity) -> NDArray[np.float64]:
    """(x, y, z), in the quantity's unit, 0 where it is not known.

    χ and what is made of it is known in the mask, R2* and T2* in the brain, what is measured everywhere.
    Raises ValueError for NaN or infinity where it is known.
    """
    inside = np.zeros(maps.geometry.shape, np.float64)
    volume = np.asarray(_volume(maps, quantity))
    np.multiply(volume, quantity.per_unit, out=inside, where=_known(maps, quantity), dtype=np.float64)
    _require_finite(inside, quantity)
    return inside


def _require_finite(inside: NDArray[np.float64], quantity: Quantity) -> None:
    if not np.isfinite(inside).all():
        raise ValueError(f"{quantity.name} holds NaN or infinity inside the mask; expected finite numbers")


def values_at(maps: Maps, quantity: Quantity, box: tuple[slice, ...], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The same of the voxels of a mask, which lies in a box of the volume and holds only where the value is known."""
    found: NDArray[np.float64] = np.asarray(_volume(maps, quantity))[box][mask].astype(np.float64)
    found *= quantity.per_unit
    return found


def _known(maps: Maps, quantity: Quantity) -> NDArray[np.bool_]:
    if quantity.name in (SWI.name, SWI_PROJECTION.name):
        return np.ones(maps.geometry.shape, np.bool_)
    if quantity.name in (R2STAR.name, T2STAR.name, FIELD.name):
        return maps.mask | maps.brain_mask
    return maps.mask


def stored(maps: Maps, quantity: Quantity) -> NDArray[np.int16]:
    """(x, y, z), the integers of the image: rounded, clipped to what int16 can hold; 0 where nothing is known.

    Raises ValueError as `values` does.
    """
    whole = np.empty(maps.geometry.shape, np.int16)
    for plane, known, out in zip(np.asarray(_volume(maps, quantity)), _known(maps, quantity), whole, strict=True):
        inside = np.where(known, plane, np.float32(0)) * np.float64(quantity.per_unit)
        _require_finite(inside, quantity)
        out[...] = np.clip(np.rint(inside, out=inside), INT16.min, INT16.max, out=inside)
    return whole


def shortcomings(maps: Maps, made: Sequence[Quantity], chosen: Sequence[str]) -> tuple[str, ...]:
    """Warnings: what was chosen and these maps do not give, and where an image does not hold what was measured.

    made: what goes out.
    """
    return (*_missing(made, chosen), *_bounded(maps, made), *clipped(maps, made))


def _missing(made: Sequence[Quantity], chosen: Sequence[str]) -> Iterator[str]:
    names = {quantity.name for quantity in made}
    for name in chosen:
        if name not in names:
            yield (
                f"{CHOSEN[name].title} ({name}) was asked for and could not be made: "
                f"it takes several echoes and a recipe with [{STAGE_OF_MAP[name]}]"
            )


def _bounded(maps: Maps, made: Sequence[Quantity]) -> Iterator[str]:
    for quantity in made:
        if quantity.name == T2STAR.name and maps.r2star is not None:
            beyond = np.count_nonzero(_known(maps, quantity) & (maps.r2star * np.float32(LONGEST_T2STAR) < 1))
            if beyond:
                yield (
                    f"T2* of {beyond} voxels is longer than these echoes can tell; they have the longest value of "
                    f"{LONGEST_T2STAR * quantity.per_unit:.0f} ms"
                )


def clipped(maps: Maps, made: Sequence[Quantity]) -> Iterator[str]:
    """A warning for each measured quantity with voxels beyond int16."""
    for quantity in made:
        if quantity.unit is None:
            continue
        volume, known = np.asarray(_volume(maps, quantity)), _known(maps, quantity)
        extremes = (float(volume.min(initial=0, where=known)), float(volume.max(initial=0, where=known)))
        lowest, highest = (round(extreme * quantity.per_unit) for extreme in extremes)
        if INT16.min <= lowest and highest <= INT16.max:
            continue
        rounded = np.rint(values(maps, quantity))
        beyond = int(np.count_nonzero((rounded < INT16.min) | (rounded > INT16.max)))
        yield (
            f"{beyond} voxels of {quantity.title} lie outside {INT16.min}..{INT16.max} {quantity.unit.meaning} "
            "and were clipped"
        )
