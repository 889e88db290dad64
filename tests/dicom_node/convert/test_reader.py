from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from dicom_node.convert.header import private
from dicom_node.convert.reader import Scale, by_unit, half_turns, representable, the_one_that_fits
from dicom_node.errors import NotConvertible

GE = half_turns(Dataset(), 1e3 * math.pi, 4096)


def plane(**attributes: object) -> Dataset:
    found = Dataset()
    for keyword, value in attributes.items():
        setattr(found, keyword, value)
    return found


@given(reach=st.floats(0.96, 1.0), candidate=st.sampled_from(range(2)))
def test_the_range_decides_between_the_laws_but_never_makes_one(reach: float, candidate: int):
    ends = [round(reach * math.pi / GE[candidate].slope) * sign for sign in (-1, 1)]
    assert the_one_that_fits(GE, *ends) is GE[candidate]


@pytest.mark.parametrize("ends", [(-2000, 2000), (0, 3141), (-3142, 100), (-3600, 3600), (-8000, 8000), (0, 0)])
def test_a_range_that_fits_no_law_is_refused(ends: tuple[float, float]):
    with pytest.raises(NotConvertible, match="Configure it for this scanner"):
        the_one_that_fits(GE, *ends)


@pytest.mark.parametrize(("signed", "ends"), [(0, (0, 4095)), (1, (-2048, 2047))])
def test_the_representable_range_is_a_turn(signed: int, ends: tuple[int, int]):
    (scale,) = representable(plane(BitsStored=12, PixelRepresentation=signed))
    for stored, expected in zip(ends, (-math.pi, math.pi), strict=True):
        assert scale.slope * stored + scale.intercept == pytest.approx(expected)
    assert representable(plane(BitsStored=32)) == representable(plane()) == ()


def test_units_of_rescale_and_of_the_real_world_mapping():
    def mapping(unit: str) -> Sequence:
        return Sequence(
            [
                plane(
                    RealWorldValueSlope=0.5,
                    RealWorldValueIntercept=-7.0,
                    MeasurementUnitsCodeSequence=Sequence([plane(CodeValue=unit)]),
                )
            ]
        )

    assert by_unit(plane(RealWorldValueMappingSequence=mapping("rad"))) == (Scale(0.5, -7),)
    assert by_unit(plane(RealWorldValueMappingSequence=mapping("mrad"))) == (Scale(0.5e-3, -7e-3),)
    assert by_unit(plane(RealWorldValueMappingSequence=mapping("Hz"))) == ()
    rescaled = plane(RescaleSlope=2, RescaleIntercept=-180, RescaleType="deg")
    assert by_unit(rescaled) == (Scale(2 * math.pi / 180, pytest.approx(-math.pi)),)
    assert by_unit(plane(RescaleSlope=2, RescaleIntercept=-180, RescaleType="US")) == ()


@pytest.mark.parametrize(
    ("vr", "value", "expected"), [("SS", [2, 7], "2"), ("UN", b"\x03\x00", "3"), ("LO", "B0map ", "B0map")]
)
@pytest.mark.parametrize("blocks_before", [0, 3])
def test_private_elements_stand_at_any_block(vr: str, value: object, expected: str, blocks_before: int):
    header = Dataset()
    for number in range(blocks_before):
        header.private_block(0x0043, f"OTHER {number}", create=True).add_new(0x2F, "SS", 9)
    assert private(header, 0x0043, "GEMS_PARM_01", 0x2F) == ""
    header.private_block(0x0043, "GEMS_PARM_01", create=True).add_new(0x2F, vr, value)
    assert private(header, 0x0043, "GEMS_PARM_01", 0x2F) == expected
