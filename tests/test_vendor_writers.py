"""What the simulated vendors write reads back, by each vendor's published rule, as the head that was written.

The rules stand here in a few lines of their own: what they share with the readers of the node is the DICOM alone.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from tests.simulation import ge
from tests.simulation.anonymised import anonymise, write_anonymised
from tests.simulation.bruker import write_bruker
from tests.simulation.canon import write_canon, write_canon_classic
from tests.simulation.encodings import ENCODINGS, OTHER_GRIDS, UNTOLD, Writer
from tests.simulation.ge import write_ge
from tests.simulation.generic import write_generic
from tests.simulation.head import SimulatedHead
from tests.simulation.hitachi import write_hitachi
from tests.simulation.impostors import write_impostors
from tests.simulation.recoded import LOSSLESS, LOSSY, SYNTAXES, UNCOMPRESSED, recode
from tests.simulation.scenes import slices_of, small_head, thin_head
from tests.simulation.siemens import write_siemens
from tests.simulation.united_imaging import write_united_imaging

FLOAT32_PHASE = 1e-6
"""What a float32 near π may be off by, radian."""

Volumes = dict[str, np.ndarray]


def places(head: SimulatedHead, echo_time: Any, position: Any) -> tuple[int, int]:
    """Echo and slice of a plane, from what its header says of time and place."""
    echo = int(np.argmin(np.abs(1e3 * np.array(head.acquisition.echo_times) - float(echo_time))))
    x, y, z = (float(c) for c in position)
    corner = np.linalg.inv(head.affine) @ [-x, -y, z, 1]
    np.testing.assert_allclose(corner[:2], 0, atol=1e-3)
    assert corner[2] == pytest.approx(round(corner[2]), abs=1e-3)
    return echo, round(corner[2])


def volumes(head: SimulatedHead, planes: Iterator[tuple[str, Any, Any, np.ndarray]]) -> Volumes:
    """Puts planes (component, echo time, position, values by row) where they lie; every place once."""
    found: Volumes = {}
    for component, echo_time, position, values in planes:
        volume = found.setdefault(component, np.full(head.acquisition.phase.shape, np.nan))
        echo, k = places(head, echo_time, position)
        assert np.isnan(volume[echo, :, :, k]).all()
        volume[echo, :, :, k] = values.T
    assert not any(np.isnan(volume).any() for volume in found.values())
    return found


def assert_is(head: SimulatedHead, magnitude: np.ndarray, phase: np.ndarray, step: float) -> None:
    """step: what phase may be off by, radian, where it was stored as such."""
    assert turn(phase - head.acquisition.phase).max() <= step + FLOAT32_PHASE
    ratio = magnitude.sum() / head.acquisition.magnitude.sum()
    level = ratio * head.acquisition.magnitude
    unsaturated = level < 0.99 * level.max()
    assert np.abs(magnitude - level)[unsaturated].max() < 2e-3 * level.max()


def assert_is_complex(head: SimulatedHead, signal: np.ndarray) -> None:
    """Stored in steps of about a 4000th of the brightest voxel."""
    expected = head.acquisition.magnitude * np.exp(1j * head.acquisition.phase)
    scale = np.abs(signal).sum() / np.abs(expected).sum()
    np.testing.assert_allclose(signal, scale * expected, atol=1.0)


def turn(radian: np.ndarray) -> np.ndarray:
    return np.abs(np.angle(np.exp(1j * radian)))


def read(paths: list[Path]) -> list[Dataset]:
    return [pydicom.dcmread(path) for path in paths]


def dciodvfy_errors(command: Path, path: Path) -> list[str]:
    run = subprocess.run([command, path], capture_output=True, text=True, check=False)
    return [line for line in (run.stdout + run.stderr).splitlines() if line.startswith("Error")]


# --- GE ---------------------------------------------------------------------------------------------------------------


def ge_volumes(head: SimulatedHead, paths: list[Path]) -> Volumes:
    names = {number: name for name, number in ge.NUMBERS.items()}

    def planes() -> Iterator[tuple[str, Any, Any, np.ndarray]]:
        for d in read(paths):
            number = d.private_block(0x0043, "GEMS_PARM_01")[0x2F].value
            yield names[number], d.EchoTime, d.ImagePositionPatient, d.pixel_array.astype(float)

    return volumes(head, planes())


@pytest.mark.parametrize("radian", [ge.MILLIRADIAN, ge.OVER_4096])
def test_ge_phase_is_the_conjugate_in_its_scale(radian: float, tmp_path: Path) -> None:
    paths = write_ge(thin_head(), tmp_path, components=ge.POLAR, radian=radian)
    found = ge_volumes(thin_head(), paths)
    assert set(found) == set(ge.POLAR)
    assert np.abs(found["phase"]).max() == round(np.pi / radian)
    assert_is(thin_head(), found["magnitude"], -found["phase"] * radian, step=radian)


@pytest.mark.parametrize("components", [ge.CARTESIAN, ge.ALL, ("magnitude", *ge.CARTESIAN)])
def test_ge_real_and_imaginary_part_are_the_conjugate(components: tuple[str, ...], tmp_path: Path) -> None:
    found = ge_volumes(thin_head(), write_ge(thin_head(), tmp_path, components=components))
    assert set(found) == set(components)
    assert_is_complex(thin_head(), found["real"] - 1j * found["imaginary"])
    if "magnitude" in found:
        np.testing.assert_allclose(np.hypot(found["real"], found["imaginary"]), found["magnitude"], atol=1.5)


def test_ge_chopping_turns_every_second_slice(tmp_path: Path) -> None:
    head = thin_head()
    found = ge_volumes(head, write_ge(head, tmp_path, chopped=True))
    brain = head.brain_mask[..., 1:] & head.brain_mask[..., :-1]
    polar = found["magnitude"] * np.exp(-1j * found["phase"] * ge.MILLIRADIAN)
    cartesian = found["real"] - 1j * found["imaginary"]
    np.testing.assert_allclose(polar, cartesian, atol=3.0)
    assert (cartesian[..., 1:] * cartesian[..., :-1].conj()).real[:, brain].mean() < 0
    assert_is_complex(head, cartesian * np.where(np.arange(cartesian.shape[3]) % 2, -1, 1))


def test_ge_puts_everything_in_one_series_components_first(tmp_path: Path) -> None:
    found = read(write_ge(slices_of(thin_head(), slice(2)), tmp_path))
    assert len({d.SeriesInstanceUID for d in found}) == 1
    assert [d.InstanceNumber for d in found] == list(range(1, 2 * 3 * 4 + 1))
    assert [d[0x0043102F].value for d in found[:8]] == [0, 1, 2, 3] * 2
    assert [float(d.EchoTime) for d in found[:8]] == [4.0] * 4 + [11.0] * 4
    assert len({tuple(d.ImagePositionPatient) for d in found[:12]}) == 1
    assert not any("RescaleSlope" in d for d in found)


def test_ge_elements_may_stand_at_another_block(tmp_path: Path) -> None:
    """Whoever reads (0043,102F) without asking for its creator sees magnitude only."""
    head = slices_of(thin_head(), slice(1))
    paths = write_ge(head, tmp_path, crowded=True)
    assert {d[0x0043102F].value for d in read(paths)} == {0}
    found = ge_volumes(head, paths)
    assert_is_complex(head, found["real"] - 1j * found["imaginary"])


def test_ge_interpolation_keeps_the_acquired_slices(tmp_path: Path) -> None:
    head = thin_head()
    finer = ge.twice_the_slices(head)
    paths = write_ge(head, tmp_path, components=ge.CARTESIAN, interpolated=True)
    found = ge_volumes(finer, paths)
    signal = found["real"] - 1j * found["imaginary"]
    assert_is_complex(finer, signal)
    assert_is_complex(head, signal[..., ::2])
    d = read(paths[:1])[0]
    assert d.private_block(0x0021, "GEMS_RELA_01")[0x4F].value == 8
    assert d.SliceThickness == 3
    assert d.SpacingBetweenSlices == 1.5


# --- United Imaging ---------------------------------------------------------------------------------------------------


def test_united_imaging_spreads_a_turn_over_its_bits(tmp_path: Path) -> None:
    head = thin_head()
    objects = read(write_united_imaging(head, tmp_path))

    def planes() -> Iterator[tuple[str, Any, Any, np.ndarray]]:
        for d in objects:
            values = d.pixel_array.astype(float)
            if d.ComplexImageComponent == "PHASE":
                values = -(values / (2**d.BitsStored - 1) * 2 * np.pi - np.pi)
            yield d.ImageType[2], d.EchoTime, d.ImagePositionPatient, values

    found = volumes(head, planes())
    assert_is(head, found["M"], found["P"], step=np.pi / 4095)
    assert all(d.EchoNumbers is None for d in objects)
    assert {float(d.ImagingFrequency) for d in objects} == {123.25e6}
    assert len({d.SeriesInstanceUID for d in objects}) == 2


# --- Hitachi ----------------------------------------------------------------------------------------------------------


def test_hitachi_phase_is_signed_in_twelve_bits(tmp_path: Path) -> None:
    head = thin_head()
    objects = read(write_hitachi(head, tmp_path))
    assert {(d.BitsStored, d.PixelRepresentation) for d in objects} == {(12, 1)}

    def planes() -> Iterator[tuple[str, Any, Any, np.ndarray]]:
        for d in objects:
            values = d.pixel_array.astype(float)
            if "PHASE MAP" in d.ImageType:
                values = -((values + 2048) / 4095 * 2 * np.pi - np.pi)
            yield d.ImageType[2], d.EchoTime, d.ImagePositionPatient, values

    found = volumes(head, planes())
    assert_is(head, found["OTHER"], found["PHASE MAP"], step=np.pi / 4095)


# --- enhanced objects -------------------------------------------------------------------------------------------------


def frames(paths: list[Path]) -> Iterator[tuple[str, Dataset, np.ndarray]]:
    """Component, functional groups and rescaled values of every frame."""
    for d in read(paths):
        for group, stored in zip(d.PerFrameFunctionalGroupsSequence, d.pixel_array, strict=True):
            scale = group.PixelValueTransformationSequence[0]
            values = stored * float(scale.RescaleSlope) + float(scale.RescaleIntercept)
            yield group.MRImageFrameTypeSequence[0].ComplexImageComponent, group, values


def enhanced_volumes(head: SimulatedHead, paths: list[Path]) -> Volumes:
    return volumes(
        head,
        (
            (
                component,
                group.MREchoSequence[0].EffectiveEchoTime,
                group.PlanePositionSequence[0].ImagePositionPatient,
                values,
            )
            for component, group, values in frames(paths)
        ),
    )


def units(paths: list[Path]) -> dict[str, set[str]]:
    """Units of the Real World Value Mapping by component."""
    found: dict[str, set[str]] = {}
    for component, group, _ in frames(paths):
        codes = found.setdefault(component, set())
        for mapping in group.get("RealWorldValueMappingSequence", ()):
            codes.add(mapping.MeasurementUnitsCodeSequence[0].CodeValue)
    return found


@pytest.mark.parametrize("write", [write_generic, write_anonymised])
def test_generic_phase_is_in_the_radian_that_its_mapping_says(write: Writer, tmp_path: Path) -> None:
    paths = write(thin_head(), tmp_path)
    found = enhanced_volumes(thin_head(), paths)
    assert_is(thin_head(), found["MAGNITUDE"], found["PHASE"], step=2 * np.pi / 4096)
    assert units(paths) == {"MAGNITUDE": {"1"}, "PHASE": {"rad"}}


def test_generic_real_and_imaginary_part_are_the_signal(tmp_path: Path) -> None:
    found = enhanced_volumes(thin_head(), write_generic(thin_head(), tmp_path, cartesian=True))
    assert_is_complex(thin_head(), found["REAL"] + 1j * found["IMAGINARY"])


def test_canon_tells_the_component_in_the_enhanced_object_only(tmp_path: Path) -> None:
    head = thin_head()
    paths = write_canon(head, tmp_path / "enhanced")
    found = enhanced_volumes(head, paths)
    assert_is(head, found["MAGNITUDE"], found["PHASE"], step=2 * np.pi / 4096)
    assert units(paths) == {"MAGNITUDE": set(), "PHASE": {"rad"}}
    assert units(write_canon(head, tmp_path / "bare", unit=False)) == {"MAGNITUDE": set(), "PHASE": set()}
    thin = slices_of(head, slice(1))
    classic = read(write_canon_classic(thin, tmp_path / "classic"))
    assert len({(tuple(d.ImageType), d.EchoTime, d.SeriesDescription, "RescaleSlope" in d) for d in classic}) == 3


@pytest.mark.parametrize("chopped", [False, True])
def test_bruker_scales_each_part_for_itself(chopped: bool, tmp_path: Path) -> None:
    head = thin_head()
    found = enhanced_volumes(head, write_bruker(head, tmp_path, chopped=chopped))
    signal = found["REAL"] + 1j * found["IMAGINARY"]
    if chopped:
        signal *= (-1.0) ** np.indices(signal.shape[1:]).sum(0)
    expected = head.acquisition.magnitude * np.exp(1j * head.acquisition.phase)
    np.testing.assert_allclose(signal, expected, atol=2 * np.abs(expected).max() / 32767)


def test_anonymised_files_do_not_tell_their_vendor(tmp_path: Path) -> None:
    head = slices_of(thin_head(), slice(1))
    for paths in (
        write_anonymised(head, tmp_path / "generic"),
        anonymise(write_ge(head, tmp_path / "ge")),
        anonymise(write_siemens(head, tmp_path / "siemens")),
    ):
        for d in read(paths):
            assert not any(keyword in d for keyword in ("Manufacturer", "SoftwareVersions", "DeviceSerialNumber"))
            assert not any(element.tag.is_private for element in d.iterall())
            assert d.pixel_array.size


# --- transfer syntaxes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [write_ge, write_hitachi, write_generic])
@pytest.mark.parametrize("name", UNCOMPRESSED | LOSSLESS)
def test_recoding_keeps_every_pixel_and_attribute(name: str, write: Writer, tmp_path: Path) -> None:
    head = slices_of(thin_head(), slice(1))
    before = read(write(head, tmp_path / "before"))
    after = read(recode(write(head, tmp_path / "after"), name))
    assert {d.file_meta.TransferSyntaxUID for d in after} == {SYNTAXES[name]}
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a.pixel_array, b.pixel_array)
        del a.PixelData, b.PixelData
        assert a == b


@pytest.mark.parametrize("name", LOSSY)
def test_lossy_recoding_says_so(name: str, tmp_path: Path) -> None:
    head = slices_of(thin_head(), slice(1))
    before = read(write_siemens(head, tmp_path / "before"))
    after = read(recode(write_siemens(head, tmp_path / "after"), name))
    assert {(d.file_meta.TransferSyntaxUID, d.LossyImageCompression) for d in after} == {(SYNTAXES[name], "01")}
    assert any((a.pixel_array != b.pixel_array).any() for a, b in zip(before, after, strict=True))


def test_recoding_in_turn_mixes_the_syntaxes_of_a_series(tmp_path: Path) -> None:
    head = slices_of(thin_head(), slice(2))
    objects = read(recode(write_ge(head, tmp_path), *UNCOMPRESSED, *LOSSLESS))
    assert len({d.SeriesInstanceUID for d in objects}) == 1
    assert {d.file_meta.TransferSyntaxUID for d in objects} == set((UNCOMPRESSED | LOSSLESS).values())


# --- impostors --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def impostors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    return write_impostors(thin_head(), tmp_path_factory.mktemp("impostors"))


def test_impostors_are_series_of_their_own_in_the_same_study(
    impostors: dict[str, list[Path]], dciodvfy_command: Path, tmp_path: Path
) -> None:
    ours = read(write_siemens(slices_of(thin_head(), slice(1)), tmp_path))[0]
    seen: set[str] = set()
    for paths in impostors.values():
        objects = read(paths)
        assert {d.StudyInstanceUID for d in objects} == {ours.StudyInstanceUID}
        series = {d.SeriesInstanceUID for d in objects}
        assert not series & seen
        seen |= series
        assert len({d.SOPInstanceUID for d in objects}) == len(objects)
        assert dciodvfy_errors(dciodvfy_command, paths[0]) == []


def test_ge_field_map_calls_the_field_magnitude(impostors: dict[str, list[Path]]) -> None:
    objects = read(impostors["ge_field_map"])
    assert {d.private_block(0x0043, "GEMS_PARM_01")[0x2F].value for d in objects} == {0}
    assert len({d.SeriesInstanceUID for d in objects}) == 1
    field, magnitude = objects[:3], objects[3:]
    assert [tuple(d.ImagePositionPatient) for d in field] == [tuple(d.ImagePositionPatient) for d in magnitude]
    hertz = np.stack([d.pixel_array.T for d in field], -1)
    np.testing.assert_allclose(hertz, slices_of(thin_head(), slice(2, 5)).field * 123.25, atol=0.51)


def test_philips_field_maps_tell_their_unit_in_the_mapping(impostors: dict[str, list[Path]]) -> None:
    hertz = slices_of(thin_head(), slice(2, 5)).field * 123.25
    assert units(impostors["philips_field_map"]) == {"MAGNITUDE": {"1"}, "REAL": {"Hz"}}
    field = [
        (group, values.T) for component, group, values in frames(impostors["philips_field_map"]) if component == "REAL"
    ]
    assert {group.MREchoSequence[0].EffectiveEchoTime for group, _ in field} == {0}
    np.testing.assert_allclose(np.stack([values for _, values in field], -1), hertz.clip(-500, 500), atol=0.13)
    for k, d in enumerate(read(impostors["philips_b0_classic"])):
        mapping = d.RealWorldValueMappingSequence[0]
        assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "Hz"
        values = d.pixel_array.T * mapping.RealWorldValueSlope + mapping.RealWorldValueIntercept
        np.testing.assert_allclose(values, hertz[:, :, k].clip(-500, 500), atol=0.13)


@pytest.mark.parametrize(("name", "radian"), [("philips_swi_phase", 1e-3), ("siemens_swi_phase", np.pi / 4096)])
def test_filtered_phase_has_lost_its_field(name: str, radian: float, impostors: dict[str, list[Path]]) -> None:
    head = slices_of(thin_head(), slice(2, 5))
    filtered = read(impostors[name])[-2]
    assert float(filtered.EchoTime) == 18
    phase = (filtered.pixel_array.T * float(filtered.RescaleSlope) + float(filtered.RescaleIntercept)) * radian
    inside = head.brain_mask[:, :, 1]
    assert phase[inside].std() < 0.6
    assert turn(phase - head.acquisition.phase[2, :, :, 1])[inside].mean() > np.pi / 4  # unrelated: π/2


def test_echo_planar_series_repeats_every_echo(impostors: dict[str, list[Path]]) -> None:
    objects = read(impostors["siemens_fmri"])
    assert {d.ScanningSequence for d in objects} == {"EP"}
    places_seen = {(d.ImageType[2], d.AcquisitionNumber, d.EchoTime, d.ImagePositionPatient[2]) for d in objects}
    assert len(places_seen) == len(objects) == 2 * 2 * 3 * 3


def test_uncombined_coils_share_all_but_a_private_element(impostors: dict[str, list[Path]]) -> None:
    objects = [d for d in read(impostors["siemens_uncombined"]) if d.ImageType[2] == "P"]
    by_place: dict[Any, list[Dataset]] = {}
    for d in objects:
        by_place.setdefault((float(d.EchoTime), tuple(d.ImagePositionPatient)), []).append(d)
    for first, second in by_place.values():
        assert [d.private_block(0x0051, "SIEMENS MR HEADER")[0x0F].value for d in (first, second)] == ["H1", "H2"]
        offset = (second.pixel_array.astype(float) - first.pixel_array) * 2 * np.pi / 4096
        np.testing.assert_allclose(turn(offset - 2.0), 0, atol=0.004)


# --- all --------------------------------------------------------------------------------------------------------------

WRITERS = ENCODINGS | OTHER_GRIDS | UNTOLD


@pytest.mark.parametrize("name", [name for name in WRITERS if name != "anonymised"])
def test_files_are_legal(name: str, tmp_path: Path, dciodvfy_command: Path) -> None:
    """Anonymised files are not: without a manufacturer an enhanced object lacks what it must have."""
    paths = WRITERS[name](slices_of(small_head(), slice(20, 22)), tmp_path)
    for path in {paths[0], paths[-1]}:
        faults = dciodvfy_errors(dciodvfy_command, path)
        if name == "philips enhanced":  # Philips counts its private dimension from 0, in its real files too
            faults = [fault for fault in faults if "Must start from one" not in fault]
        assert faults == []


@pytest.mark.parametrize("name", WRITERS)
def test_uids_follow_the_seed(name: str, tmp_path: Path) -> None:
    head = slices_of(small_head(), slice(20, 21))

    def uids(folder: str, seed: int) -> list[str]:
        found = read(WRITERS[name](head, tmp_path / folder, seed=seed))
        return [d.SOPInstanceUID for d in found] + [d.SeriesInstanceUID for d in found]

    first = uids("a", 1)
    assert first == uids("b", 1)
    assert not set(first) & set(uids("c", 2))
    assert len(set(first[: len(first) // 2])) == len(first) // 2


def test_vendors_share_a_study_but_no_instance(tmp_path: Path) -> None:
    """So that a test may mix them."""
    head = slices_of(small_head(), slice(20, 21))
    vendors = ("siemens", "philips", "ge", "united imaging", "hitachi", "canon", "bruker", "generic")
    found = [d for name in vendors for d in read(WRITERS[name](head, tmp_path / name))]
    assert len({d.StudyInstanceUID for d in found}) == 1
    assert len({d.SOPInstanceUID for d in found}) == len(found)
