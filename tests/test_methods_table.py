"""The table of methods is made of what the methods make."""

from __future__ import annotations

import pytest

from benchmarks.methods import in_the_chain, measured, on_perfect_field
from reconstruction import Maps, Reference
from tests.simulation.scenes import small_head


@pytest.fixture(scope="module")
def usual() -> Maps:
    """What the inversion is supplied with beside the field."""
    head = small_head()
    return Maps(
        geometry=head.acquisition.geometry,
        chi=head.chi,
        r2star=head.r2star,
        field=head.field,
        local_field=head.local_field(),
        magnitude=head.acquisition.magnitude[0],
        brain_mask=head.brain_mask,
        mask=head.brain_mask,
        reference=Reference("none", head.brain_mask & False, 0.0, 0.0),
    )


def test_total_variation_beats_division_on_a_perfect_field(usual: Maps) -> None:
    head = small_head()
    error = {}
    for method in ("tkd", "fansi"):
        maps, seconds = on_perfect_field(head, usual, method)
        cells = measured(head, maps, seconds)
        assert seconds > 0
        error[method] = float(cells[0])
    assert error["fansi"] < 0.7 * error["tkd"]


@pytest.mark.slow
def test_the_chain_holds_the_method_asked_for() -> None:
    head = small_head()
    maps, _ = in_the_chain(head, "inversion", "tgv")
    assert (maps.local_field == maps.field)[maps.mask].all()
