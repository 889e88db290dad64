from __future__ import annotations

import dataclasses
import math
import subprocess
import warnings
from pathlib import Path

import highdicom as hd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.charset import python_encoding
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.sr.codedict import codes

from dicom_node.convert.override import Override
from dicom_node.encode import encode
from dicom_node.encode.figures import asymmetries, regions
from dicom_node.encode.identity import written
from dicom_node.encode.quality import GROUPS
from tests.dicom_node.encode.example import (
    CREATED,
    PLAIN,
    SHAPE,
    dciodvfy_errors,
    header,
    maps,
    recipe,
    save,
    source,
    whole_maps,
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return save(encode(maps(), source(), recipe(), CREATED, PLAIN).datasets, tmp_path_factory.mktemp("outputs"))


@pytest.fixture(scope="module")
def report(files: list[Path]) -> hd.sr.Comprehensive3DSR:
    document = hd.sr.srread(files[-1])
    assert isinstance(document, hd.sr.Comprehensive3DSR)
    return document


def _groups(report: hd.sr.Comprehensive3DSR) -> dict[str, hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations]:
    content = report.content
    assert isinstance(content, hd.sr.MeasurementReport)
    return {str(g.tracking_identifier): g for g in content.get_volumetric_roi_measurement_groups()}


def test_highdicom_reads_the_groups_of_tid_1500(report: hd.sr.Comprehensive3DSR) -> None:
    assert _groups(report).keys() == {"whole_brain", "csf"}


def test_every_figure_stands_in_its_group(report: hd.sr.Comprehensive3DSR) -> None:
    derivations = {
        codes.SCT.Mean: "mean",
        codes.SCT.StandardDeviation: "sd",
        codes.SCT.Median: "median",
        codes.SCT.FifthPercentile: "p5",
        codes.SCT.NinetyFifthPercentile: "p95",
        codes.SCT.Minimum: "minimum",
        codes.SCT.Maximum: "maximum",
    }
    for region in regions(maps()):
        group = _groups(report)[region.name]
        (volume,) = group.get_measurements(name=codes.SCT.Volume)
        assert float(volume.value) == pytest.approx(region.volume, rel=1e-5, abs=1e-4)
        for concept, unit, summary in (
            (codes.DCM.MagneticSusceptibility, "[ppb]", region.chi),
            (codes.DCM.R2Star, "/s", region.r2star),
        ):
            found = group.get_measurements(name=concept)
            assert {m.unit.value for m in found} == {unit}
            assert {derivations[m.derivation]: float(m.value) for m in found} == pytest.approx(
                {name: getattr(summary, name) for name in derivations.values()}, rel=1e-5, abs=1e-4
            )


def test_the_reference_region_is_given_relative_to_the_whole_brain(report: hd.sr.Comprehensive3DSR) -> None:
    relative = [m for m in _groups(report)["csf"].get_measurements() if m.name.scheme_designator == "99QSMNODE"]
    assert [(float(m.value), m.unit.value, m.derivation) for m in relative] == [
        (12.5, "[ppb]", codes.SCT.Mean),
        (25.0, "[ppb]", codes.SCT.StandardDeviation),
    ]
    (scheme,) = report.CodingSchemeIdentificationSequence
    assert scheme.CodingSchemeDesignator == "99QSMNODE"


def test_each_group_points_at_its_segment(files: list[Path], report: hd.sr.Comprehensive3DSR) -> None:
    segmentation = hd.seg.segread(files[-2])
    for region in regions(maps()):
        segment = _groups(report)[region.name].referenced_segment
        assert segment.referenced_sop_instance_uid == segmentation.SOPInstanceUID
        number = segment[0].referenced_segment_numbers[0]
        volume = segmentation.get_volume(segment_numbers=[number], combine_segments=True)
        assert int((volume.array > 0).sum()) == region.voxels


def test_the_segmentation_lies_where_its_masks_are(files: list[Path]) -> None:
    segmentation = hd.seg.segread(files[-2])
    images = [dcmread(path) for path in files[:7]]
    for number, region in enumerate(regions(maps()), 1):
        planes = segmentation.get_pixels_by_source_instance(
            [image.SOPInstanceUID for image in images],
            segment_numbers=[number],
            combine_segments=True,
            assert_missing_frames_are_empty=True,
        )
        found = planes.transpose(2, 1, 0).astype(bool)
        assert (found[region.box] == region.mask).all()
        assert found.sum() == region.mask.sum()


def test_the_algorithm_is_named_with_every_parameter(report: hd.sr.Comprehensive3DSR) -> None:
    texts = _texts(report)
    assert f"recipe SHA-256: {recipe().digest()}" in texts
    assert "mask: magnitude, threshold=0.1" in texts
    assert "inversion: tv" in texts


def test_says_what_the_consensus_asks_for(report: hd.sr.Comprehensive3DSR) -> None:
    texts = "\n".join(_texts(report))
    assert "For research, not for diagnosis." in texts
    assert "in ppb relative to CSF" in texts
    assert "Geometry unchanged: 12 x 16 x 7 voxels of 0.5 x 0.75 x 2.5 mm" in texts
    assert "Quality, for engineers: snr = 42." in texts
    assert "Warning: the source is small" in texts
    assert "Warning: a map made by hand" in texts


def test_lists_every_image_it_rests_on(files: list[Path], report: hd.sr.Comprehensive3DSR) -> None:
    evidence = {
        instance.ReferencedSOPInstanceUID
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    }
    sources = {r.sop_instance_uid for slice_ in source().references for r in slice_}
    assert evidence == sources | {dcmread(path, specific_tags=["SOPInstanceUID"]).SOPInstanceUID for path in files[:-1]}


def test_dcmtk_reads_it(files: list[Path], dsrdump_command: Path) -> None:
    said = subprocess.run([dsrdump_command, "+Pc", files[-1]], capture_output=True, check=True)
    assert said.stderr == b""
    assert b"Comprehensive 3D SR Document" in said.stdout
    assert b'(126396,DCM,"Magnetic Susceptibility")' in said.stdout


def _texts(document: Dataset) -> list[str]:
    """Every TEXT item of the content tree."""
    found = [document.TextValue] if document.get("ValueType") == "TEXT" else []
    for item in document.get("ContentSequence", ()):
        found += _texts(item)
    return found


def test_left_minus_right_of_every_pair(whole: hd.sr.Comprehensive3DSR) -> None:
    content = whole.content
    assert isinstance(content, hd.sr.MeasurementReport)
    expected = {f"{pair.structure} asymmetry": pair for pair in asymmetries(regions(whole_maps()))}
    groups = {str(g.tracking_identifier): g for g in content.get_image_measurement_groups()}
    for of_quality in GROUPS:
        groups.pop(of_quality)
    assert groups.keys() == expected.keys()
    for name, group in groups.items():
        found = {(m.name.value, m.unit.value): float(m.value) for m in group.get_measurements()}
        assert found == pytest.approx(
            {
                (codes.DCM.MagneticSusceptibility.value, "[ppb]"): expected[name].chi,
                (codes.DCM.R2Star.value, "/s"): expected[name].r2star,
                ("1003", "%"): expected[name].volume,
            },
            rel=1e-4,
        )


def test_sites_of_paired_structures_have_their_side(whole: hd.sr.Comprehensive3DSR) -> None:
    group = _groups(whole)["right_red_nucleus"]
    (site,) = group.finding_sites
    assert (site.value.value, site.laterality.value) == ("UBERON:0001947", codes.SCT.Right.value)


def test_the_grade_is_coded_and_its_grounds_are_said(whole: hd.sr.Comprehensive3DSR) -> None:
    container = _container(whole, "C0034375")
    grades = [i for i in container if i.ValueType == "CODE"]
    assert [g.ConceptCodeSequence[0].CodeValue for g in grades] == ["2002"]
    texts = "\n".join(_texts(whole))
    assert "Grade: review." in texts
    assert "Ground of the grade: the field of the sinuses is weak" in texts
    assert "Match of the atlas, for engineers: correlation = 0.93." in texts
    assert texts.count("correlation = ") == 1


def test_every_figure_of_quality_is_a_coded_number(
    whole_file: Path, dciodvfy_command: Path, dsrdump_command: Path
) -> None:
    assert dciodvfy_errors(dciodvfy_command, whole_file) == []
    said = subprocess.run([dsrdump_command, "+Pc", whole_file], capture_output=True, check=True)
    assert said.stderr == b""
    assert b'(background.coarse_residual,99QSMNODE,"Quality: background coarse residual")' in said.stdout
    content = hd.sr.srread(whole_file).content
    assert isinstance(content, hd.sr.MeasurementReport)
    groups = {str(g.tracking_identifier): g.get_measurements() for g in content.get_image_measurement_groups()}
    found = {m.name.value: (float(m.value), m.unit.value) for group in GROUPS for m in groups[group]}
    assert found == {name: figure for name, figure in FIGURES.items() if not math.isnan(figure[0])}
    assert {m.name.value for m in groups["match of the atlas"]} == {n for n in FIGURES if n.startswith("regions.")}


def test_the_parameters_name_what_the_site_put_in_a_step_s_place(tmp_path: Path) -> None:
    made_from = dataclasses.replace(source(), mask="segmentation 1.2.3", override=Override(sign="flip"))
    texts = _texts(hd.sr.srread(save(encode(maps(), made_from, recipe(), CREATED, PLAIN).datasets, tmp_path)[-1]))
    assert {"mask: the site's own, segmentation 1.2.3", "phase: as the site says, sign=flip"} <= set(texts)
    assert "mask: magnitude, threshold=0.1" not in texts


def test_a_table_without_spread_makes_no_one_look_deficient(whole: hd.sr.Comprehensive3DSR) -> None:
    texts = "\n".join(_texts(whole))
    assert "Difference" not in texts
    assert texts.count("Hallgren and Sourander 1958 (iron alone) has one value for an age and no spread") == 1
    derivations = [m.derivation for m in _groups(whole)["left_caudate"].get_measurements() if m.derivation]
    assert {d.value for d in derivations if d.scheme_designator == "99QSMNODE"} == {"1006"}


def test_a_lost_atlas_is_reported_and_its_figures_are_withheld(tmp_path: Path) -> None:
    files = save(encode(whole_maps(trusted=False), source(), recipe(), CREATED, PLAIN).datasets, tmp_path)
    document = hd.sr.srread(files[-1])
    assert _groups(document).keys() == {"whole_brain", "csf"}
    assert "Figures of the nuclei are withheld: the correlation is 0.31, below 0.6." in _texts(document)


def test_a_range_stands_with_the_mean_it_is_of(tmp_path: Path, dciodvfy_command: Path) -> None:
    table = tmp_path / "mine.toml"
    table.write_text(
        'name = "Köln"\nsource = "東京"\nnote = "ours"\nreference_regions = ["csf"]\nages = [0, 120]\n'
        '[[curve]]\nstructures = ["caudate"]\noffset = 40\nsd_ppb = 10\n',
        encoding="utf-8",
    )
    headers = tuple(header(i) for i in range(SHAPE[2]))
    for dataset in headers:
        dataset.SpecificCharacterSet = "ISO_IR 192"
    output = PLAIN.model_copy(update={"reference_ranges": str(table)})
    files = save(encode(whole_maps(), source(headers), recipe(), CREATED, output).datasets, tmp_path)
    document = hd.sr.srread(files[-1])
    assert dciodvfy_errors(dciodvfy_command, files[-1]) == []
    texts = _texts(document)
    assert {"東京", "Köln, at the age of 64 years", "Source of the expected values: 東京. ours."} <= set(texts)
    group = _groups(document)["left_caudate"]
    means = [m for m in group.get_measurements(name=codes.DCM.MagneticSusceptibility) if m.derivation == codes.SCT.Mean]
    numbers = {
        item.ConceptNameCodeSequence[0].CodeMeaning: float(item.MeasuredValueSequence[0].NumericValue)
        for item in means[0][0].ContentSequence
        if item.ValueType == "NUM"
    }
    assert numbers == pytest.approx({"Normal Range Lower Limit": 20.4, "Normal Range Upper Limit": 59.6})
    expected = [m for m in group.get_measurements() if m.derivation and m.derivation.value == "1004"]
    assert [float(m.value) for m in expected] == [40.0]


@pytest.mark.parametrize(
    ("characters", "expected"),
    [
        ("ISO_IR 192", "Universitätsklinik Köln, χ±/R2′ (東京)"),
        ("ISO_IR 100", "Universitätsklinik Köln, chi±/R2' (??)"),
        ("", "Universitatsklinik Koln, chi+/-/R2' (??)"),
        (["", "ISO 2022 IR 87"], "Universitatsklinik Koln, χ±/R2′ (東京)"),
        (["ISO_IR 100", "ISO 2022 IR 87"], "Universitätsklinik Köln, χ±/R2′ (東京)"),
        (["", "ISO 2022 IR 149"], "Universitatsklinik Koln, χ±/R2′ (東京)"),
        (["", "ISO 2022 IR 58"], "Universitatsklinik Koln, chi+/-/R2' (??)"),
        ("GB18030", "Universitätsklinik Köln, χ±/R2′ (東京)"),
    ],
)
def test_words_of_a_site_stay_as_far_as_the_character_set_has_them(characters: str | list[str], expected: str) -> None:
    dataset = header()
    dataset.SpecificCharacterSet = characters
    assert written("Universitätsklinik Köln, χ±\\R2′ (東京)", dataset) == expected


def test_a_letter_that_is_lacked_is_one_question_mark() -> None:
    assert written("병원 ﬁ Ä", header()) == "?? fi Ä"


@given(
    characters=st.lists(st.sampled_from(["", *python_encoding, "ISO_IR 999"]), min_size=1, max_size=3),
    text=st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("ä東병ｱ¥~Ωж뷁"), max_size=12),
)
@settings(max_examples=60)
def test_what_is_written_is_read_again(characters: list[str], text: str) -> None:
    """In every character set, whatever it is declared with."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = characters
    dataset.SegmentDescription = sent = written(text, dataset)
    stream = DicomBytesIO()
    stream.is_little_endian, stream.is_implicit_VR = True, False
    with warnings.catch_warnings(action="ignore"):  # pydicom's, of what is declared
        write_dataset(stream, dataset)
        stream.seek(0)
        assert read_dataset(stream, is_implicit_VR=False, is_little_endian=True).SegmentDescription == sent.rstrip()


FIGURES = {
    "background.coarse_residual": (0.0056, "1"),
    "mask.brain_ml": (1753.1, "mL"),
    "mask.slab_mm": (128.0, "mm"),
    "combine.noise_ppb": (0.74, "[ppb]"),
    "readout.slope_mrad_per_mm": (1.5, "mrad/mm"),
    "readout.alternation_rad": (0.25, "rad"),
    "separation.r2": (13.0, "/s"),
    "separation.relaxivity": (137.0, "/s/[ppm]"),
    "iron.contrast": (-0.00448, "1"),
    "streaks": (math.nan, "1"),
    "regions.turn": (0.81, "deg"),
    "regions.bend": (3.0, "mm"),
    "regions.overlap": (0.985, "1"),
}


@pytest.fixture(scope="module")
def whole_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a result with nuclei."""
    made = dataclasses.replace(whole_maps(), quality={name: value for name, (value, _) in FIGURES.items()})
    output = PLAIN.model_copy(update={"reference_ranges": "hallgren_sourander_1958"})
    return save(encode(made, source(), recipe(), CREATED, output).datasets, tmp_path_factory.mktemp("whole"))[-1]


@pytest.fixture(scope="module")
def whole(whole_file: Path) -> hd.sr.Comprehensive3DSR:
    document = hd.sr.srread(whole_file)
    assert isinstance(document, hd.sr.Comprehensive3DSR)
    return document


def _container(report: Dataset, concept: str) -> list[Dataset]:
    (found,) = (i for i in report.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == concept)
    return list(found.ContentSequence)
