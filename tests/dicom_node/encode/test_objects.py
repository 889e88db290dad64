"""Every object that can be made, judged by those who did not make it."""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

import highdicom as hd
import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from dicom_node.encode import Encoded, encode
from dicom_node.encode.figures import regions
from dicom_node.encode.identity import local_time
from dicom_node.encode.quantity import INT16, QSM, SWI_LEVELS
from dicom_node.encode.record import KINDS, names
from dicom_node.encode.segmentation import encode_segmentation
from dicom_node.encode.series import encode_series
from tests.dicom_node.encode.example import (
    CREATED,
    EVERYTHING,
    NUCLEI,
    PLAIN,
    SHAPE,
    affine,
    dciodvfy_errors,
    enhanced_source,
    header,
    recipe,
    source,
    whole_maps,
)

WHEN = local_time(CREATED, Dataset())

Files = Mapping[str, list[Path]]
"""By kind: "qsm", "seg", …"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("objects")


@pytest.fixture(scope="module")
def everything() -> Encoded:
    return encode(whole_maps(), enhanced_source(), recipe(), CREATED, EVERYTHING)


@pytest.fixture(scope="module")
def files(folder: Path, everything: Encoded) -> Files:
    return _write(folder, everything)


def _write(folder: Path, encoded: Encoded) -> Files:
    found: dict[str, list[Path]] = {}
    for name, dataset in names(encoded.datasets).items():
        dcmwrite(folder / name, dataset, enforce_file_format=True)
        found.setdefault(name.split("-")[1], []).append(folder / name)
    return found


def test_everything_is_made(files: Files) -> None:
    assert files.keys() == set(KINDS)
    assert {kind: len(paths) for kind, paths in files.items() if len(paths) not in (1, SHAPE[2])} == {"enhanced": 9}


def test_dciodvfy_finds_no_error_in_any_object(files: Files, dciodvfy_command: Path) -> None:
    for paths in files.values():
        for path in paths[:2] if len(paths) == SHAPE[2] else paths:
            assert dciodvfy_errors(dciodvfy_command, path) == [], path.name


def test_dciodvfy_finds_no_error_where_a_classic_source_says_little(tmp_path: Path, dciodvfy_command: Path) -> None:
    headers = tuple(header(i) for i in range(SHAPE[2]))
    for dataset in headers:
        for keyword in ("Manufacturer", "PatientBirthDate", "StudyID", "AccessionNumber", "ReferringPhysicianName"):
            delattr(dataset, keyword)
        dataset.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
        dataset.PatientName = "Yamada^Tarou=山田^太郎=やまだ^たろう"
        dataset.BodyPartExamined = "KOPF"
    made = _write(tmp_path, encode(whole_maps(), source(headers), recipe(), CREATED, EVERYTHING))
    assert made.keys() == set(KINDS) - {"enhanced"}
    for paths in made.values():
        assert dciodvfy_errors(dciodvfy_command, paths[0]) == [], paths[0].name


def test_names_sort_in_sending_order(files: Files) -> None:
    order = [kind for kind in files for _ in files[kind]]
    assert [path.name.split("-")[1] for path in sorted(path for paths in files.values() for path in paths)] == order


def test_a_wish_changes_no_object_that_is_made_anyway_but_the_report_that_rests_on_it(everything: Encoded) -> None:
    plain = {d.SOPInstanceUID: d for d in encode(whole_maps(), enhanced_source(), recipe(), CREATED, PLAIN).datasets}
    more = {d.SOPInstanceUID: d for d in everything.datasets}
    (report,) = plain.keys() - more.keys()
    assert plain[report].Modality == "SR"
    assert all(_bytes(more[uid]) == _bytes(dataset) for uid, dataset in plain.items() if uid != report)


def _bytes(dataset: Dataset) -> bytes:
    encoded = io.BytesIO()
    dcmwrite(encoded, dataset, enforce_file_format=True)
    return encoded.getvalue()


def test_both_sides_are_segments_with_laterality_and_one_colour(files: Files) -> None:
    segments = {str(s.TrackingID): s for s in dcmread(files["seg"][0]).SegmentSequence}
    assert segments.keys() == {"whole_brain", "csf", *NUCLEI}
    for name, side in (("left_caudate", "7771000"), ("right_caudate", "24028007")):
        kind = segments[name].SegmentedPropertyTypeCodeSequence[0]
        assert (kind.CodeValue, kind.CodingSchemeDesignator) == ("11000004", "SCT")
        assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeValue == side
        assert hd.color.CIELabColor.from_dicom_value(
            segments[name].RecommendedDisplayCIELabValue
        ).to_rgb() == pytest.approx((230, 159, 0), abs=1)
    red = segments["left_red_nucleus"].SegmentedPropertyTypeCodeSequence[0]
    assert (red.CodeValue, red.CodingSchemeDesignator) == ("UBERON:0001947", "UBERON")
    assert "SegmentedPropertyTypeModifierCodeSequence" not in segments["csf"].SegmentedPropertyTypeCodeSequence[0]
    own = segments["left_a structure of the site's own"]
    assert own.SegmentLabel == "left a structure of the site's own"
    assert own.SegmentedPropertyTypeCodeSequence[0].CodeValue == codes.SCT.Tissue.value
    assert {str(s.SegmentAlgorithmType) for s in segments.values()} == {"AUTOMATIC"}


def test_float32_maps_are_not_rounded(files: Files) -> None:
    maps = whole_maps()
    values = {"QSM": maps.chi * 1000, "R2STAR": maps.r2star, "CHIDIA": maps.chi_dia * 1000}
    for path in files["parametric"]:
        found = hd.imread(path)
        if found.ContentLabel not in values:
            continue
        volume = found.get_volume(apply_real_world_transform=False)
        expected = nib.Nifti1Image(values[found.ContentLabel], affine())
        ours = nib.Nifti1Image(volume.array, np.diag([-1.0, -1, 1, 1]) @ volume.affine)
        ras = [nib.as_closest_canonical(image) for image in (ours, expected)]
        np.testing.assert_allclose(ras[0].dataobj, ras[1].dataobj, rtol=1e-6)
        np.testing.assert_allclose(ras[0].affine, ras[1].affine, atol=1e-5)


def test_a_multi_frame_object_holds_what_the_series_holds(files: Files) -> None:
    slices = [dcmread(path) for path in files["qsm"]]
    whole = dcmread(files["enhanced"][0])
    assert (whole.SeriesDescription, slices[0].SeriesDescription) == ("QSM (ppb) multi-frame", "QSM (ppb)")
    assert whole.SeriesNumber != slices[0].SeriesNumber
    np.testing.assert_array_equal(whole.pixel_array, np.stack([slice_.pixel_array for slice_ in slices]))
    for frame, slice_ in zip(whole.PerFrameFunctionalGroupsSequence, slices, strict=True):
        position = frame.PlanePositionSequence[0]
        assert position.get_item("ImagePositionPatient").value == slice_.get_item("ImagePositionPatient").value
        frames = [item.ReferencedFrameNumber for item in frame.DerivationImageSequence[0].SourceImageSequence]
        assert frames == [item.ReferencedFrameNumber for item in slice_.SourceImageSequence]


def test_weighted_images_share_one_scale(files: Files) -> None:
    maps = whole_maps()
    assert maps.swi is not None
    assert maps.swi_projection is not None
    pixels = {
        kind: np.stack([dcmread(path).pixel_array.T for path in files[kind]], axis=-1) for kind in ("swi", "swiminip")
    }
    factor = pixels["swi"].max() / maps.swi.max()
    assert SWI_LEVELS / 2 <= pixels["swi"].max() <= SWI_LEVELS < INT16.max
    assert np.abs(pixels["swi"] / factor - maps.swi).max() < 1 / factor
    assert np.abs(pixels["swiminip"] / factor - maps.swi_projection).max() < 1 / factor
    first = dcmread(files["swi"][0])
    assert "RealWorldValueMappingSequence" not in first
    assert 0 < first.WindowWidth <= SWI_LEVELS


def test_t2star_is_the_inverse_of_r2star_and_fields_are_in_hertz(files: Files) -> None:
    maps = whole_maps()
    assert maps.r2star is not None
    t2star = np.stack([dcmread(path).pixel_array.T for path in files["t2star"]], axis=-1)
    inside = maps.r2star > 0
    assert np.abs(t2star[inside] - 1000 / maps.r2star[inside]).max() <= 0.5 + 1e-3
    assert (t2star[~inside] == 0).all()
    field = np.stack([dcmread(path).pixel_array.T for path in files["field"]], axis=-1)
    assert np.abs(field - np.where(maps.mask, maps.field * 123.2, 0)).max() <= 0.5 + 1e-3


def test_the_local_field_is_in_ppb_of_the_field_strength(files: Files) -> None:
    """An eighth of a Hz at 3 T: whole Hz would leave few steps of it."""
    maps = whole_maps()
    assert maps.local_field is not None
    local = np.stack([dcmread(path).pixel_array.T for path in files["localfield"]], axis=-1)
    assert np.abs(local - maps.local_field * 1000).max() <= 0.5 + 1e-3
    first = dcmread(files["localfield"][0])
    (mapping,) = first.RealWorldValueMappingSequence
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "[ppb]"
    assert (first.SeriesDescription, first.RescaleSlope) == ("Local field (ppb)", 1)


def test_the_window_is_that_of_the_map_and_reaches_every_slice(files: Files) -> None:
    slices = {str(dcmread(path).SOPInstanceUID) for path in files["qsm"]}
    for kind in ("window", "colours"):
        state = dcmread(files[kind][0])
        referenced = {
            str(image.ReferencedSOPInstanceUID)
            for series in state.ReferencedSeriesSequence
            for image in series.ReferencedImageSequence
        }
        assert referenced == slices
        window = state.SoftcopyVOILUTSequence[0]
        assert (window.WindowCenter - window.WindowWidth / 2, window.WindowCenter + window.WindowWidth / 2) == (
            -150,
            200,
        )
    assert dcmread(files["colours"][0]).PaletteColorLookupTableUID == "1.2.840.10008.1.5.1"


def test_dcmtk_shows_page_and_map(files: Files, everything: Encoded, folder: Path, dcm2pnm_command: Path) -> None:
    shown = folder / "page.png"
    subprocess.run([dcm2pnm_command, "+on", files["page"][0], shown], check=True, capture_output=True)
    np.testing.assert_array_equal(np.asarray(Image.open(shown).convert("RGB")), np.asarray(everything.page))
    shown = folder / "map.png"
    subprocess.run([dcm2pnm_command, "+on", "+Wi", "1", files["qsm"][3], shown], check=True, capture_output=True)
    dataset = dcmread(files["qsm"][3])
    grey = np.clip((dataset.pixel_array + 150.0) / 350, 0, 1) * 255
    assert np.abs(np.asarray(Image.open(shown).convert("L")) - grey).max() < 3


def test_dcmtk_applies_the_presentation_state(files: Files, folder: Path, dcm2pnm_command: Path) -> None:
    dcmp2pgm = dcm2pnm_command.with_name("dcmp2pgm")
    shown = folder / "presented.pgm"
    found = subprocess.run(
        [dcmp2pgm, "-p", files["window"][0], files["qsm"][3], shown], check=False, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
    grey = np.clip((dcmread(files["qsm"][3]).pixel_array + 150.0) / 350, 0, 1) * 255
    presented = np.asarray(Image.open(shown).convert("L")).astype(float)
    assert np.corrcoef(presented.ravel(), grey.ravel())[0, 1] > 0.98


@pytest.mark.parametrize("kind", ["qsm", "enhanced"])
def test_dcm2niix_finds_the_map_where_it_is(kind: str, files: Files, tmp_path: Path, dcm2niix_command: Path) -> None:
    (tmp_path / "in").mkdir()
    for path in files[kind][: SHAPE[2] if kind == "qsm" else 1]:
        (tmp_path / "in" / path.name).write_bytes(path.read_bytes())
    command = [dcm2niix_command, "-b", "y", "-z", "n", "-f", "map", "-o", tmp_path, tmp_path / "in"]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    found = sorted(tmp_path.glob("map*.nii"))
    assert len(found) == 1, said.stdout + said.stderr
    ours = nib.as_closest_canonical(nib.Nifti1Image(np.rint(whole_maps().chi * 1000), affine()))
    theirs = nib.as_closest_canonical(nib.load(found[0]))
    np.testing.assert_array_equal(np.asarray(theirs.dataobj), np.asarray(ours.dataobj))
    np.testing.assert_allclose(theirs.affine, ours.affine, atol=1e-3)
    assert json.loads(found[0].with_suffix(".json").read_text())["ImageType"][0] == "DERIVED"


def test_the_document_is_a_pdf_of_one_page_that_names_no_time_but_its_job_s(files: Files) -> None:
    dataset = dcmread(files["pdf"][0])
    content = dataset.EncapsulatedDocument[: dataset.EncapsulatedDocumentLength]
    assert content.startswith(b"%PDF-")
    assert content.rstrip().endswith(b"%%EOF")
    assert content.count(b"/Type /Page\n") + content.count(b"/Type /Page ") == 1
    assert b"20231114" in content


def test_nothing_of_the_patient_is_in_pixels_or_document(files: Files) -> None:
    for kind in ("page", "pdf"):
        dataset = dcmread(files[kind][0])
        assert dataset.BurnedInAnnotation == "NO"
        content = dataset.get("PixelData") or dataset.EncapsulatedDocument
        for private in ("Müller", "0815", "A123"):
            assert private.encode() not in content
            assert private.encode("latin-1") not in content


def test_every_object_lies_in_the_source_study(files: Files) -> None:
    for paths in files.values():
        dataset = dcmread(paths[0])
        for keyword in ("StudyInstanceUID", "PatientID", "PatientName", "AccessionNumber"):
            assert dataset[keyword].value == header()[keyword].value
        assert "For research, not for diagnosis" in dataset.ContributingEquipmentSequence[0].ContributionDescription


def test_withheld_regions_make_no_segment() -> None:
    lost = encode(whole_maps(trusted=False), source(), recipe(), CREATED, PLAIN)
    assert [region.name for region in lost.regions] == ["whole_brain", "csf"]
    segmentation = next(d for d in lost.datasets if d.Modality == "SEG")
    assert len(segmentation.SegmentSequence) == 2


def test_a_long_name_in_a_site_s_atlas_makes_a_valid_segment(tmp_path: Path, dciodvfy_command: Path) -> None:
    given = whole_maps()
    assert given.regions is not None
    longer = (f"left_{'Höhle des Septum pellucidum ' * 4}", *given.regions.names[1:])
    found = regions(dataclasses.replace(given, regions=dataclasses.replace(given.regions, names=longer)))
    made_from = source()
    images = encode_series(given, QSM, made_from, recipe(), WHEN)
    segmentation = encode_segmentation(found, images, made_from, recipe(), 703, WHEN)
    labels = {str(segment.SegmentLabel) for segment in segmentation.SegmentSequence}
    assert "left Höhle des Septum pellucidum Höhle des Septum pellucidum Höh" in labels
    dcmwrite(tmp_path / "seg.dcm", segmentation, enforce_file_format=True)
    assert dciodvfy_errors(dciodvfy_command, tmp_path / "seg.dcm") == []


def test_a_segment_says_that_its_mask_was_the_site_s(tmp_path: Path, dciodvfy_command: Path) -> None:
    made_from = dataclasses.replace(source(), mask="segmentation 1.2.3")
    images = encode_series(whole_maps(), QSM, made_from, recipe(), WHEN)
    assert "mask the site's own, inversion tv" in images[0].DerivationDescription
    segmentation = encode_segmentation(regions(whole_maps()), images, made_from, recipe(), 703, WHEN)
    told = {
        str(s.TrackingID): (s.SegmentAlgorithmType, s.SegmentationAlgorithmIdentificationSequence[0])
        for s in segmentation.SegmentSequence
    }
    kind, algorithm = told["whole_brain"]
    assert (kind, algorithm.AlgorithmParameters) == ("SEMIAUTOMATIC", "mask=the site's own, segmentation 1.2.3")
    assert {kind for name, (kind, _) in told.items() if name != "whole_brain"} == {"AUTOMATIC"}
    dcmwrite(tmp_path / "seg.dcm", segmentation, enforce_file_format=True)
    assert dciodvfy_errors(dciodvfy_command, tmp_path / "seg.dcm") == []


def test_a_map_of_one_echo_has_no_t2star() -> None:
    single = dataclasses.replace(whole_maps(), r2star=None)
    made = names(encode(single, source(), recipe(), CREATED, EVERYTHING).datasets)
    assert not any("t2star" in name or "r2star" in name for name in made)
