from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node.encode import encode
from dicom_node.encode.identity import local_time
from dicom_node.encode.quantity import QSM, R2STAR, quantities, shortcomings, stored
from dicom_node.encode.series import PLANE, encode_series, series_number
from reconstruction import GYROMAGNETIC_RATIO
from tests.dicom_node.encode.example import (
    CREATED,
    MAGNITUDE_SERIES,
    PHASE_SERIES,
    PLAIN,
    SHAPE,
    SPACE,
    STUDY,
    dciodvfy_errors,
    enhanced_source,
    header,
    maps,
    recipe,
    save,
    source,
    whole_maps,
)

WHEN = local_time(CREATED, Dataset())


def _qsm(**changes: object) -> list[Dataset]:
    return encode_series(maps(), QSM, source(), recipe(), WHEN)


def test_the_stored_value_is_the_susceptibility_in_ppb(tmp_path: Path) -> None:
    written = [dcmread(path) for path in save(_qsm(), tmp_path)]
    volume = np.stack([dataset.pixel_array for dataset in written], axis=-1).transpose(1, 0, 2)
    assert volume.dtype == np.int16
    np.testing.assert_array_equal(volume, np.rint(maps().chi.astype(float) * 1000))
    assert {(d.RescaleSlope, d.RescaleIntercept, d.RescaleType) for d in written} == {(1, 0, "ppb")}


def test_r2star_is_stored_in_whole_inverse_seconds_with_one_slope() -> None:
    datasets = encode_series(maps(), R2STAR, source(), recipe(), WHEN)
    volume = np.stack([np.frombuffer(d.PixelData, "<i2").reshape(d.Rows, d.Columns) for d in datasets], axis=-1)
    r2star = maps().r2star
    assert r2star is not None
    assert np.abs(volume.transpose(1, 0, 2) - r2star).max() <= 0.5
    assert {(d.RescaleSlope, d.RescaleIntercept, d.RescaleType) for d in datasets} == {(1, 0, "1/s")}


def test_voxels_outside_the_mask_are_zero() -> None:
    everywhere = dataclasses.replace(maps(), chi=np.ones(SHAPE, np.float32))
    datasets = encode_series(everywhere, QSM, source(), recipe(), WHEN)
    volume = np.stack([np.frombuffer(d.PixelData, "<i2").reshape(d.Rows, d.Columns) for d in datasets], axis=-1)
    np.testing.assert_array_equal(volume.transpose(1, 0, 2) != 0, everywhere.mask)


def test_geometry_is_the_source_s_to_the_letter(tmp_path: Path) -> None:
    written = [dcmread(path) for path in save(_qsm(), tmp_path)]
    originals = [dcmread(path) for path in save([_with_meta(header(i)) for i in range(SHAPE[2])], tmp_path)]
    for ours, theirs in zip(written, originals, strict=True):
        for keyword in PLANE:
            assert (keyword in ours) == (keyword in theirs)
            if keyword in ours:
                # get_item: the bytes of the file, before any conversion to numbers
                assert ours.get_item(keyword).value == theirs.get_item(keyword).value
        assert (ours.StudyInstanceUID, ours.FrameOfReferenceUID) == (STUDY, SPACE)


def test_a_value_beyond_int16_is_clipped_and_reported() -> None:
    chi = np.zeros(SHAPE, np.float32)
    chi[5, 5, 3], chi[6, 5, 3] = 40.0, -40.0
    extreme = maps(chi=chi)
    pixels = np.frombuffer(encode_series(extreme, QSM, source(), recipe(), WHEN)[3].PixelData, "<i2")
    assert (pixels.max(), pixels.min()) == (32767, -32768)
    assert shortcomings(extreme, quantities(extreme), ()) == (
        "2 voxels of QSM lie outside -32768..32767 ppb and were clipped",
    )
    assert shortcomings(maps(), quantities(maps()), ()) == ()


def test_a_field_beyond_int16_is_reported_too() -> None:
    strong = dataclasses.replace(maps(), field=np.full(SHAPE, 1e3, np.float32))
    made = quantities(strong, ("field",), 123.2e6)
    (warning,) = shortcomings(strong, made, ("field",))
    assert warning.endswith("voxels of Field lie outside -32768..32767 Hz and were clipped")


def test_an_experimental_map_is_called_so_in_its_series() -> None:
    made = {quantity.name: quantity.description for quantity in quantities(whole_maps(), ("chi_para", "chi_dia"))}
    assert made["chi_para"] == "QSM paramagnetic, experimental (ppb)"
    assert made["chi_dia"] == "QSM diamagnetic, experimental (ppb)"
    assert "experimental" not in made["chi"]


def test_what_cannot_be_made_is_told() -> None:
    single = maps(r2star=False)
    told = shortcomings(single, quantities(single, ("t2star", "chi_para")), ("t2star", "chi_para"))
    assert told == (
        "T2* (t2star) was asked for and could not be made: it takes several echoes and a recipe with [relaxation]",
        "QSM paramagnetic, experimental (chi_para) was asked for and could not be made: it takes several echoes and a "
        "recipe with [separation]",
    )


def test_t2star_is_bounded_and_where_it_is_is_told() -> None:
    """No fluid is darker than what surrounds it because its signal did not decay."""
    r2star = np.where(maps().mask, np.float32(20), np.float32(0))
    r2star[5, 5, 3], r2star[6, 5, 3], r2star[7, 5, 3] = 0, 1e-3, 0.5
    given = dataclasses.replace(maps(), r2star=r2star)
    made = quantities(given, ("t2star",), 123.2e6)
    (t2star,) = (quantity for quantity in made if quantity.name == "t2star")
    stored_values = stored(given, t2star)
    assert [int(stored_values[x, 5, 3]) for x in (4, 5, 6, 7)] == [50, 2000, 2000, 2000]
    assert (stored_values[~given.mask] == 0).all()
    assert shortcomings(given, made, ("t2star",)) == (
        "T2* of 2 voxels is longer than these echoes can tell; they have the longest value of 2000 ms",
    )


@pytest.mark.parametrize(("tesla", "r2star", "t2star"), [(1.5, 35, 145), (3.0, 50, 100), (7.0, 90, 55)])
def test_windows_of_relaxation_follow_the_field(tesla: float, r2star: int, t2star: int) -> None:
    windows = {q.name: q.window for q in quantities(maps(), ("t2star",), tesla * GYROMAGNETIC_RATIO)}
    assert (windows["r2star"], windows["t2star"]) == ((0, r2star), (0, t2star))


def test_a_map_that_is_not_finite_is_refused() -> None:
    chi = np.zeros(SHAPE, np.float32)
    chi[5, 5, 3] = np.nan
    with pytest.raises(ValueError, match="chi holds NaN or infinity"):
        encode_series(maps(chi=chi), QSM, source(), recipe(), WHEN)


def test_a_source_of_another_shape_is_refused() -> None:
    headers = tuple(header(i) for i in range(SHAPE[2]))
    headers[2].Rows = 99
    with pytest.raises(ValueError, match="expected columns 12, rows 99, 7 slices"):
        encode_series(maps(), QSM, source(headers), recipe(), WHEN)


def test_says_what_it_is() -> None:
    dataset = _qsm()[0]
    assert list(dataset.ImageType) == ["DERIVED", "PRIMARY", "OTHER", "QSM"]
    assert (dataset.WindowCenter - dataset.WindowWidth / 2, dataset.WindowCenter + dataset.WindowWidth / 2) == (
        -150,
        200,
    )
    assert (dataset.ContentQualification, dataset.BurnedInAnnotation) == ("RESEARCH", "NO")
    mapping = dataset.RealWorldValueMappingSequence[0]
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "[ppb]"
    quantity = mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0]
    assert (quantity.CodeValue, quantity.CodingSchemeDesignator) == ("126396", "DCM")
    assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1, 0)
    equipment = dataset.ContributingEquipmentSequence[0]
    assert equipment.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
    assert recipe().digest() in equipment.ContributionDescription
    assert "For research, not for diagnosis" in equipment.ContributionDescription


def test_series_are_new_and_numbered_after_their_source() -> None:
    outputs = encode(maps(), source(), recipe(), CREATED, PLAIN).datasets
    numbers = {dataset.SeriesInstanceUID: dataset.SeriesNumber for dataset in outputs}
    assert sorted(numbers.values()) == [701, 702, 703, 704]
    assert not {MAGNITUDE_SERIES, PHASE_SERIES} & set(numbers)
    assert len({dataset.SOPInstanceUID for dataset in outputs}) == len(outputs) == 2 * SHAPE[2] + 2


def test_series_number_without_room_falls_back() -> None:
    odd = Dataset()
    assert series_number(odd, 1) == 1
    odd.SeriesNumber = 2**31 - 1
    assert series_number(odd, 2) == 2


def test_refers_to_every_source_image_of_its_slice() -> None:
    for index, dataset in enumerate(_qsm()):
        images = {item.ReferencedSOPInstanceUID for item in dataset.SourceImageSequence}
        assert images == {reference.sop_instance_uid for reference in source().references[index]}
        purposes = {item.PurposeOfReferenceCodeSequence[0].CodeValue for item in dataset.SourceImageSequence}
        assert purposes == {"121322"}
        by_series = {
            item.SeriesInstanceUID: {i.ReferencedSOPInstanceUID for i in item.ReferencedInstanceSequence}
            for item in dataset.ReferencedSeriesSequence
        }
        assert by_series.keys() == {MAGNITUDE_SERIES, PHASE_SERIES}
        assert set.union(*by_series.values()) == images


def test_refers_to_the_frames_of_an_enhanced_source() -> None:
    dataset = encode_series(maps(), QSM, enhanced_source(), recipe(), WHEN)[2]
    (image,) = dataset.SourceImageSequence
    assert list(image.ReferencedFrameNumber) == [9, 10, 11, 12]
    assert len(dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 1


@pytest.mark.parametrize(("lossy", "said"), [(False, "00"), (True, "01")])
def test_says_whether_the_source_was_lossy(lossy: bool, said: str) -> None:
    datasets = encode_series(maps(), QSM, source(lossy=lossy), recipe(), WHEN)
    assert {dataset.LossyImageCompression for dataset in datasets} == {said}


@pytest.mark.parametrize(
    ("character_set", "name"),
    [
        ("ISO_IR 100", "Müller^Jörg"),
        ("ISO_IR 192", "Wang^XiaoDong=王^小東"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("ISO_IR 144", "Люкceмбypг"),
        (None, "Plain^Name"),
    ],
)
def test_names_keep_their_character_set(character_set: object, name: str, tmp_path: Path) -> None:
    headers = tuple(header(i) for i in range(SHAPE[2]))
    for dataset in headers:
        del dataset.SpecificCharacterSet
        if character_set:
            dataset.SpecificCharacterSet = character_set
        dataset.PatientName = name
    for path in save(encode(maps(), source(headers), recipe(), CREATED, PLAIN).datasets, tmp_path):
        written = dcmread(path)
        assert str(written.PatientName) == name
        assert written.get("SpecificCharacterSet") == (character_set or None)


def test_odd_headers_make_sound_objects(tmp_path: Path, dciodvfy_command: Path) -> None:
    """What occurs in the field: missing type 2 attributes, a sex of "U", empty sequences, a name with a backslash."""
    headers = tuple(header(i) for i in range(SHAPE[2]))
    for dataset in headers:
        for keyword in ("PatientBirthDate", "StudyID", "AccessionNumber", "ReferringPhysicianName", "SeriesNumber"):
            delattr(dataset, keyword)
        dataset.PatientSex = "O"
        dataset.BodyPartExamined = "KOPF"
        dataset.TimezoneOffsetFromUTC = "CET"
        dataset.ReferencedStudySequence = []
        dataset.RequestAttributesSequence = [Dataset()]
    odd_recipe = dataclasses.replace(recipe(), name="my\\réçipe")
    paths = save(encode(maps(), source(headers), odd_recipe, CREATED, PLAIN).datasets, tmp_path)
    for path in (paths[0], *paths[-3:]):
        assert dciodvfy_errors(dciodvfy_command, path) == []
        written = dcmread(path)
        assert (written.PatientBirthDate, written.StudyID, written.PatientSex) == ("", "", "O")
        assert "RequestAttributesSequence" not in written


def test_a_sex_that_the_standard_does_not_know_is_kept() -> None:
    headers = tuple(header(i) for i in range(SHAPE[2]))
    for dataset in headers:
        dataset.PatientSex = "U"
    assert {d.PatientSex for d in encode(maps(), source(headers), recipe(), CREATED, PLAIN).datasets} == {"U"}


def _with_meta(dataset: Dataset) -> Dataset:
    from dicom_node.encode.series import file_meta

    dataset.file_meta = file_meta(dataset)
    return dataset
