"""Every way in which the simulated head can be written, by name: for tests that hold for all of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.simulation import ge
from tests.simulation.anonymised import write_anonymised
from tests.simulation.bruker import write_bruker
from tests.simulation.canon import write_canon, write_canon_classic
from tests.simulation.ge import write_ge
from tests.simulation.generic import write_generic
from tests.simulation.hitachi import write_hitachi
from tests.simulation.philips import write_philips, write_philips_enhanced
from tests.simulation.siemens import write_siemens
from tests.simulation.siemens_enhanced import write_siemens_enhanced
from tests.simulation.united_imaging import write_united_imaging

Writer = Callable[..., list[Path]]
"""(head, folder, *, seed) → the files, in the order in which the scanner sends them."""

ENCODINGS: dict[str, Writer] = {
    "siemens": write_siemens,
    "siemens without rescale": partial(write_siemens, rescale=False),
    "siemens interoperability": partial(write_siemens, interoperability=True),
    "siemens enhanced": write_siemens_enhanced,
    "philips": write_philips,
    "philips enhanced": write_philips_enhanced,
    "ge": write_ge,
    "ge polar": partial(write_ge, components=ge.POLAR),
    "ge polar over 4096": partial(write_ge, components=ge.POLAR, radian=ge.OVER_4096),
    "ge cartesian": partial(write_ge, components=ge.CARTESIAN),
    "ge chopped": partial(write_ge, chopped=True),
    "ge polar chopped": partial(write_ge, components=ge.POLAR, chopped=True),
    "ge cartesian chopped": partial(write_ge, components=ge.CARTESIAN, chopped=True),
    "ge crowded": partial(write_ge, crowded=True),
    "united imaging": write_united_imaging,
    "hitachi": write_hitachi,
    "fujifilm": partial(write_hitachi, manufacturer="FUJIFILM Healthcare Corporation"),
    "canon": write_canon,
    "bruker": write_bruker,
    "generic": write_generic,
    "generic cartesian": partial(write_generic, cartesian=True),
    "anonymised": write_anonymised,
}
"""The same acquisition each time, but for quantisation: what is made of any of them should be the same."""

OTHER_GRIDS: dict[str, Writer] = {"ge interpolated": partial(write_ge, interpolated=True)}
"""The same head with voxels that were not acquired."""

UNTOLD: dict[str, Writer] = {
    "canon classic": write_canon_classic,
    "canon without unit": partial(write_canon, unit=False),
    "bruker chopped": partial(write_bruker, chopped=True),
}
"""Where no header says what a reader has to know: the component, the unit, the sign of neighbours."""
