"""Every encoding of one head is the same acquisition, and what is none is refused by its cause."""

from __future__ import annotations

import dataclasses
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node.convert import Override, convert, scanner_of
from dicom_node.errors import NotConvertible
from dicom_node.model import Completeness
from dicom_node.recipes import read_recipe
from reconstruction import Maps, reconstruct
from tests.dicom_node.convert.scans import converted, edited, groups
from tests.simulation import ge
from tests.simulation.anonymised import anonymise
from tests.simulation.bruker import write_bruker
from tests.simulation.canon import write_canon, write_canon_classic
from tests.simulation.encodings import ENCODINGS
from tests.simulation.ge import write_ge
from tests.simulation.head import SimulatedHead
from tests.simulation.hitachi import write_hitachi
from tests.simulation.impostors import IMPOSTORS, write_impostors
from tests.simulation.philips import write_philips
from tests.simulation.recoded import LOSSLESS, LOSSY, UNCOMPRESSED, recode
from tests.simulation.scenes import slices_of, small_head
from tests.simulation.siemens import write_siemens
from tests.simulation.siemens_enhanced import write_siemens_enhanced
from tests.simulation.united_imaging import write_united_imaging

PHASE_STEP = 2 * np.pi / 4095
"""Of 12 bits; what lies in the last half step before π saturates."""
SIGNAL = 0.1
"""Share of the brightest voxel above which a phase made of whole numbers is fine enough to be compared."""

EVERY_ENCODING = pytest.mark.parametrize("write", ENCODINGS.values(), ids=ENCODINGS)


@lru_cache(maxsize=1)
def head() -> SimulatedHead:
    """Five slices of an oblique slab."""
    return slices_of(small_head(), slice(20, 25))


def turn(radian: np.ndarray) -> np.ndarray:
    return np.abs(np.angle(np.exp(1j * radian)))


def assert_is_the_head(paths: list[Path], override: Override | None = None):
    (found,) = groups(paths)
    assert found.completeness is Completeness.COMPLETE
    acquisition, source = convert(found, override)
    expected = head().acquisition
    bright = expected.magnitude > SIGNAL * expected.magnitude.max()
    assert turn(acquisition.phase - expected.phase)[bright].max() < 2 * PHASE_STEP
    assert np.corrcoef(acquisition.magnitude.ravel(), expected.magnitude.ravel())[0, 1] > 0.9999
    assert acquisition.echo_times == pytest.approx(expected.echo_times, abs=1e-6)
    assert acquisition.larmor_frequency == pytest.approx(expected.larmor_frequency, abs=1)
    assert acquisition.geometry.voxel_size == pytest.approx(expected.geometry.voxel_size, abs=1e-4)
    assert acquisition.geometry.b0_direction == pytest.approx(expected.geometry.b0_direction, abs=1e-5)
    np.testing.assert_allclose(source.affine, head().affine, atol=1e-4)
    return source


@EVERY_ENCODING
def test_every_encoding_is_the_same_head(write, tmp_path: Path):
    source = assert_is_the_head(write(head(), tmp_path))
    assert source.decisions


FIELD_LIMIT, CHI_LIMIT = 0.1e-3, 0.5e-3
"""ppm RMS between two encodings over a mask that both are given: quantisation, and what inversion makes of it."""

DEFAULT_RECIPE = Path(__file__).parents[3] / "config" / "recipes" / "default.toml"


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["philips", "ge polar over 4096", "ge chopped", "united imaging", "hitachi", "canon", "bruker"]
)
def test_every_encoding_gives_the_same_susceptibility(name: str, tmp_path: Path):
    one, other = maps(ENCODINGS["siemens"], tmp_path / "siemens"), maps(ENCODINGS[name], tmp_path / "other")
    both = one.mask & other.mask
    assert np.sqrt(np.mean((one.field - other.field)[both] ** 2)) < FIELD_LIMIT
    assert np.sqrt(np.mean((one.chi - other.chi)[both] ** 2)) < CHI_LIMIT


def maps(write, folder: Path) -> Maps:
    acquisition, _ = converted(write(small_head(), folder))
    return reconstruct(dataclasses.replace(acquisition, mask=small_head().brain_mask), read_recipe(DEFAULT_RECIPE))


# What GE leaves open


def test_ge_prefers_real_and_imaginary_parts(tmp_path: Path):
    (found,) = groups(write_ge(head(), tmp_path))
    assert {frame.component for i in found.instances for frame in i.frames} == {"real", "imaginary"}
    assert len(found.set_aside) == len(found.instances)


@pytest.mark.parametrize("radian", [ge.MILLIRADIAN, ge.OVER_4096])
def test_ge_phase_scale_is_inferred_and_said(radian: float, tmp_path: Path):
    source = assert_is_the_head(write_ge(head(), tmp_path, components=ge.POLAR, radian=radian))
    assert any("inferred from the stored values" in warning for warning in source.warnings)


def test_ge_phase_that_reaches_neither_scale_is_refused_unless_configured(tmp_path: Path):
    paths = write_ge(head(), tmp_path, components=ge.POLAR)

    def shrink(d: Dataset) -> None:
        if d.private_block(0x0043, "GEMS_PARM_01")[0x2F].value == 1:
            d.PixelData = (np.frombuffer(d.PixelData, "<i2") // 2).astype("<i2").tobytes()

    (found,) = groups(edited(paths, shrink))
    with pytest.raises(NotConvertible, match=r"expected one of -3141.59…3141.59, -4096…4096"):
        convert(found)
    source = assert_is_the_head(paths, Override(half_turn=np.pi * 500))
    assert any("as configured" in decision for decision in source.decisions)


@pytest.mark.parametrize("components", [ge.POLAR, ge.CARTESIAN])
def test_ge_chopping_is_detected_in_order_of_position(components, tmp_path: Path):
    source = assert_is_the_head(write_ge(head(), tmp_path, components=components, chopped=True)[::-1])
    assert any("slices alternated" in decision for decision in source.decisions)
    plain = assert_is_the_head(write_ge(head(), tmp_path / "plain", components=components))
    assert not any("alternated" in decision for decision in plain.decisions)


def test_ge_slice_interpolation_is_warned_of(tmp_path: Path):
    acquisition, source = converted(write_ge(head(), tmp_path, interpolated=True, chopped=True))
    assert acquisition.geometry.shape[2] == 10
    assert any("from 5 to 10 (ZIP)" in warning for warning in source.warnings)


def test_bruker_planes_that_alternate_along_all_axes(tmp_path: Path):
    source = assert_is_the_head(write_bruker(head(), tmp_path, chopped=True))
    assert sum("alternated" in decision for decision in source.decisions) == 3
    assert any("sign of Bruker's phase is not verified" in warning for warning in source.warnings)


def test_canon_says_what_is_not_verified(tmp_path: Path):
    for unit in (True, False):
        source = assert_is_the_head(write_canon(head(), tmp_path / str(unit), unit=unit))
        assert any("not verified" in warning for warning in source.warnings)
        assert any("inferred" in warning for warning in source.warnings) is not unit
    found = groups(write_canon_classic(head(), tmp_path / "classic"))
    assert {g.completeness for g in found} == {Completeness.FOREIGN}
    assert all("tells neither magnitude, phase" in g.reason for g in found)


def test_an_open_magnet_is_refused(tmp_path: Path):
    paths = edited(write_hitachi(head(), tmp_path), lambda d: setattr(d, "ManufacturerModelName", "OASIS"))
    (found,) = groups(paths)
    assert found.completeness is Completeness.FOREIGN
    assert "vertical field" in found.reason


# Without a vendor


@pytest.mark.parametrize(
    "write",
    [write_siemens, partial(write_siemens, rescale=False), write_siemens_enhanced, write_philips],
    ids=["siemens", "siemens without rescale", "siemens enhanced", "philips"],
)
def test_anonymised_headers_are_read_by_the_standard(write, tmp_path: Path):
    source = assert_is_the_head(anonymise(write(head(), tmp_path)))
    assert source.encoding == "generic"
    assert any("names no vendor" in warning for warning in source.warnings)


def test_anonymised_ge_is_refused_but_told_by_its_private_creator(tmp_path: Path):
    paths = write_ge(head(), tmp_path)
    source = assert_is_the_head(edited(paths, lambda d: setattr(d, "Manufacturer", None)))
    assert source.encoding == "ge"
    (found,) = groups(anonymise(paths))
    assert found.completeness is Completeness.FOREIGN
    assert "removed by an anonymiser" in found.reason


# What a site configures


def test_the_sign_can_be_configured(tmp_path: Path):
    (found,) = groups(write_united_imaging(head(), tmp_path))
    by_rule, _ = convert(found)
    kept, source = convert(found, Override(sign="keep"))
    flipped, _ = convert(found, Override(sign="flip"))
    assert np.array_equal(kept.phase, -flipped.phase)
    assert np.array_equal(by_rule.phase, flipped.phase)
    assert any("as configured" in decision for decision in source.decisions)


@pytest.mark.parametrize("wrong", [{"sign": "turn"}, {"half_turn": 0}, {"half_turn": float("nan")}, {"zero": np.inf}])
def test_an_override_that_means_nothing_is_refused(wrong):
    with pytest.raises(ValueError, match="expected"):
        Override(**wrong)


def test_the_scanner_of_a_group(tmp_path: Path):
    paths = edited(write_siemens(head(), tmp_path), lambda d: setattr(d, "StationName", "MRC12345"))
    (found,) = groups(paths)
    assert (scanner_of(found).station_name, scanner_of(found).serial_number) == ("MRC12345", "0")


# Transfer syntaxes


@pytest.mark.parametrize("names", [*UNCOMPRESSED, *LOSSLESS, "mixed"])
def test_lossless_transfer_syntaxes(names: str, tmp_path: Path):
    paths = recode(write_siemens(head(), tmp_path), *((*UNCOMPRESSED, *LOSSLESS) if names == "mixed" else (names,)))
    source = assert_is_the_head(paths)
    assert not source.lossy


@pytest.mark.parametrize("name", ["big endian", "rle"])
def test_transfer_syntaxes_of_many_frames(name: str, tmp_path: Path):
    assert_is_the_head(recode(write_siemens_enhanced(head(), tmp_path), name))


@pytest.mark.parametrize("name", LOSSY)
def test_lossy_phase_is_refused(name: str, tmp_path: Path):
    found = groups(recode(write_siemens(head(), tmp_path), name))
    assert any("phase was compressed with loss" in g.reason for g in found)
    assert all(g.completeness is not Completeness.COMPLETE for g in found)


# Impostors


CAUSES = {
    "ge_field_map": "GE field map (sequence 3db0map): a field in Hz",
    "philips_field_map": "field map in Hz",
    "philips_b0_classic": "field map in Hz",
    "philips_swi_phase": "filtered susceptibility-weighted phase",
    "siemens_swi_phase": "filtered susceptibility-weighted",
    "siemens_fmri": "echo-planar image",
    "siemens_uncombined": "uncombined images of single coil elements",
}


@pytest.fixture(scope="module")
def impostors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    return write_impostors(head(), tmp_path_factory.mktemp("impostors"))


@pytest.mark.parametrize("name", IMPOSTORS)
def test_impostors_are_refused_by_their_cause(name: str, impostors):
    found = groups(impostors[name])
    assert {g.completeness for g in found} == {Completeness.FOREIGN}
    assert all(CAUSES[name] in g.reason for g in found)


def test_a_field_map_in_hertz_is_suspected_even_without_the_name_of_its_sequence(impostors, tmp_path: Path):
    paths = [tmp_path / path.name for path in impostors["ge_field_map"]]
    for path, copy in zip(impostors["ge_field_map"], paths, strict=True):
        d = dcmread(path)
        del d[0x00190010]
        d.MRAcquisitionType = "3D"
        d.save_as(copy)
    (found,) = groups(paths)
    assert found.completeness is Completeness.FOREIGN
    assert "as where a field map in Hz and its magnitude share one series" in found.reason
