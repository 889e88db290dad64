from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread, dcmwrite

from dicom_node import folder, reconstruct
from dicom_node.config import recipe_file
from dicom_node.convert import Override, Source
from dicom_node.desk import reconstruct_folder
from dicom_node.encode.record import KINDS
from dicom_node.errors import NotConvertible, UnreadableObject
from dicom_node.model import Group, Instance
from dicom_node.recipes import read_recipe
from reconstruction import Acquisition
from tests.dicom_node.encode.example import EVERYTHING, PLAIN, dciodvfy_errors, recipe
from tests.dicom_node.study import instant_physics, write_study


@pytest.fixture(autouse=True)
def _without_physics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconstruct, "reconstruct", instant_physics)


def test_a_study_among_other_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = tmp_path / "in"
    write_study(study / "deep" / "down")
    (study / "notes.txt").write_text("not DICOM")
    (study / "empty").touch()
    (study / "DICM").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 40)
    assert reconstruct_folder(study, tmp_path / "out", recipe(), nifti=True) == 0
    assert len(list((tmp_path / "out" / "dicom").iterdir())) == 18
    assert {p.name for p in (tmp_path / "out" / "nifti").iterdir()} == {
        f"{name}.nii.gz" for name in ("chi", "r2star", "field", "local_field", "mask", "magnitude")
    }
    assert json.loads((tmp_path / "out" / "report.json").read_text())["regions"]
    assert (tmp_path / "out" / "map.png").exists()
    said = capsys.readouterr()
    assert said.out == ""
    assert "inversion" in said.err


def test_without_being_asked_there_is_no_nifti(tmp_path: Path) -> None:
    write_study(tmp_path / "in")
    assert reconstruct_folder(tmp_path / "in", tmp_path / "out", recipe(), nifti=False) == 0
    assert not (tmp_path / "out" / "nifti").exists()


def test_no_volume_of_an_earlier_run_stays_beside_a_new_report(tmp_path: Path) -> None:
    write_study(tmp_path / "in")
    assert reconstruct_folder(tmp_path / "in", tmp_path / "out", recipe(), nifti=True) == 0
    (tmp_path / "out" / "nifti" / "notes.txt").write_text("somebody's own")
    assert reconstruct_folder(tmp_path / "in", tmp_path / "out", recipe(), nifti=False) == 0
    assert [path.name for path in (tmp_path / "out" / "nifti").iterdir()] == ["notes.txt"]


def test_a_damaged_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    victim = write_study(tmp_path / "in")[0]
    victim.write_bytes(victim.read_bytes()[:-40])
    assert reconstruct_folder(tmp_path / "in", tmp_path / "out", recipe(), nifti=False) == 3
    told = capsys.readouterr().err
    assert f"{victim}: passed over: damaged" in told
    assert "missing" in told


def two_studies(folder: Path) -> None:
    """1.2.3 and 1.2.3.9."""
    write_study(folder / "a")
    for path in write_study(folder / "b"):
        dataset = dcmread(path)
        dataset.StudyInstanceUID += ".9"
        dataset.SOPInstanceUID += ".9"
        dataset.SeriesInstanceUID += ".9"
        dataset.FrameOfReferenceUID += ".9"
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dcmwrite(path, dataset)


def test_several_acquisitions_get_a_folder_each(tmp_path: Path) -> None:
    two_studies(tmp_path / "in")
    assert reconstruct_folder(tmp_path / "in", tmp_path / "out", recipe(), nifti=False) == 0
    studies = [
        json.loads((tmp_path / "out" / place / "report.json").read_text())["source"]["study_instance_uid"]
        for place in ("1", "2")
    ]
    assert studies == ["1.2.3", "1.2.3.9"]


def test_an_empty_folder_holds_nothing_to_reconstruct(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    assert reconstruct_folder(tmp_path / "in", tmp_path / "out", recipe(), nifti=False) == 3
    assert "no MR images" in capsys.readouterr().err


def test_the_reason_for_each_acquisition_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_study(tmp_path / "in")[-1].unlink()
    assert reconstruct_folder(tmp_path / "in", tmp_path / "out", recipe(), nifti=False) == 3
    said = capsys.readouterr().err
    assert "series 7, 8 (27 files): incomplete: " in said
    assert "phase" in said
    assert not (tmp_path / "out").exists()


def test_files_from_the_future_are_reconstructed(tmp_path: Path) -> None:
    """Of a camera of another time zone, of a copy with a wrong clock."""
    for path in write_study(tmp_path / "in"):
        os.utime(path, (4e9, 4e9))
    assert reconstruct_folder(tmp_path / "in", tmp_path / "out", recipe(), nifti=False) == 0


@pytest.mark.parametrize("failing", ["open", "stat"])
def test_a_file_that_may_not_be_read_is_named_and_stops_nothing(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_study(tmp_path / "in")
    (tmp_path / "in" / "locked").write_text("nobody's business")
    whole = getattr(Path, failing)

    def denied(path: Path, *arguments: Any, **named: Any) -> Any:
        if path.name == "locked":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return whole(path, *arguments, **named)

    monkeypatch.setattr(Path, failing, denied)
    assert reconstruct_folder(tmp_path / "in", tmp_path / "out", recipe(), nifti=False) == 0
    assert f"{tmp_path / 'in' / 'locked'}: passed over: Permission denied" in capsys.readouterr().err


def test_a_header_that_surprises_is_named_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_study(tmp_path / "in")
    (tmp_path / "in" / "hostile").write_text("")
    whole = folder.describe

    def surprised(path: Path, received_at: float, association: str) -> Instance:
        if path.name == "hostile":
            raise ZeroDivisionError("Jane^Doe")
        return whole(path, received_at, association)

    monkeypatch.setattr(folder, "describe", surprised)
    assert reconstruct_folder(tmp_path / "in", tmp_path / "out", recipe(), nifti=False) == 0
    said = capsys.readouterr().err
    assert "hostile: passed over: an error of this software (ZeroDivisionError)" in said
    assert "Jane" not in said


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UnreadableObject("the file has changed"), 0, "not reconstructible: the file has changed"),
        (NotConvertible("no brain"), 0, "not reconstructible: no brain"),
        (OSError(errno.EIO, "Input/output error"), 1, "Input/output error"),
        (ZeroDivisionError("by zero"), 1, "an error of this software"),
    ],
)
def test_what_befalls_one_acquisition_stops_no_other(
    error: Exception,
    code: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    two_studies(tmp_path / "in")
    whole = reconstruct.convert

    def fails_for_the_first(acquired: Group, override: Override) -> tuple[Acquisition, Source]:
        if acquired.study_instance_uid == "1.2.3":
            raise error
        return whole(acquired, override)

    monkeypatch.setattr(reconstruct, "convert", fails_for_the_first)
    assert reconstruct_folder(tmp_path / "in", tmp_path / "out", recipe(), nifti=False) == code
    assert said in capsys.readouterr().err
    assert (tmp_path / "out" / "2" / "report.json").exists()


def test_a_disk_that_cannot_be_written_is_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_study(tmp_path / "in")
    (tmp_path / "out").write_text("in the way")
    assert reconstruct_folder(tmp_path / "in", tmp_path / "out", recipe(), nifti=False) == 1
    assert "out" in capsys.readouterr().err


def test_a_table_that_has_become_faulty_is_told_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_study(tmp_path / "in")
    table = tmp_path / "mine.toml"
    table.write_text('name = "x"\n')
    output = PLAIN.model_copy(update={"reference_ranges": str(table)})
    assert reconstruct_folder(tmp_path / "in", tmp_path / "out", recipe(), nifti=False, output=output) == 1
    said = capsys.readouterr().err
    assert f"{table} is no table of reference ranges" in said
    assert "convert" not in said
    assert "Traceback" not in said


def test_files_that_are_not_the_node_s_are_left_alone(tmp_path: Path) -> None:
    write_study(tmp_path / "in")
    (tmp_path / "out" / "dicom").mkdir(parents=True)
    (tmp_path / "out" / "report.json").write_text('["somebody else\'s"]')
    (tmp_path / "out" / "dicom" / "other.dcm").write_text("somebody else's")
    assert reconstruct_folder(tmp_path / "in", tmp_path / "out", recipe(), nifti=False) == 0
    assert (tmp_path / "out" / "dicom" / "other.dcm").exists()
    assert json.loads((tmp_path / "out" / "report.json").read_text())["outputs"]


def test_a_second_run_replaces_the_first(tmp_path: Path) -> None:
    """Also where the first run's outputs lie below the input: they are derived, and left alone."""
    write_study(tmp_path / "in")
    out = tmp_path / "in" / "out"
    for settings in ({}, {"threshold": 0.3}):
        assert reconstruct_folder(tmp_path / "in", out, recipe(**settings), nifti=False) == 0
    digest = json.loads((out / "report.json").read_text())["recipe"]["digest"]
    assert digest == recipe(threshold=0.3).digest()
    assert len(list((out / "dicom").iterdir())) == 18


@pytest.fixture(scope="module")
def philips(
    philips_classic: Path, philips_enhanced: Path, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, Path]:
    """Results of the same scan, exported in two ways, and of both together."""
    root = tmp_path_factory.mktemp("philips")
    shutil.copytree(philips_classic, root / "in" / "classic")
    shutil.copytree(philips_enhanced, root / "in" / "enhanced")
    inputs = {"classic": philips_classic, "enhanced": philips_enhanced, "both": root / "in"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reconstruct, "reconstruct", instant_physics)
        for name, folder in inputs.items():
            output = PLAIN if name == "both" else EVERYTHING
            assert reconstruct_folder(folder, root / name, recipe(), nifti=False, output=output) == 0
    return {name: root / name / "dicom" for name in inputs}


@pytest.mark.parametrize("export", ["enhanced", "both"])
def test_classic_enhanced_and_both_give_identical_maps(export: str, philips: Mapping[str, Path]) -> None:
    ours, theirs = (sorted(philips[name].glob("0[12]-*.dcm")) for name in (export, "classic"))
    assert len(ours) == len(theirs) == 2 * 53
    for one, other in zip(map(dcmread, ours), map(dcmread, theirs), strict=True):
        np.testing.assert_array_equal(one.pixel_array, other.pixel_array)
        assert one.StudyInstanceUID == other.StudyInstanceUID
        assert one.FrameOfReferenceUID == other.FrameOfReferenceUID
        for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
            # The two exports of the vendor differ in the last digit of some positions.
            np.testing.assert_allclose(one[keyword].value, other[keyword].value, rtol=1e-12)


@pytest.mark.parametrize("export", ["classic", "enhanced"])
def test_dciodvfy_finds_no_error_on_what_is_made_of_real_files(
    export: str, philips: Mapping[str, Path], dciodvfy_command: Path
) -> None:
    files = {path.name.split("-")[1]: path for path in philips[export].iterdir()}  # one of each kind
    assert files.keys() == set(KINDS) - {"swi", "swiminip", "chipara", "chidia"} - (
        {"enhanced"} if export == "classic" else set()
    )
    for path in files.values():
        assert dciodvfy_errors(dciodvfy_command, path) == []


def test_geometry_is_the_vendor_s_to_the_letter(philips: Mapping[str, Path], philips_classic: Path) -> None:
    originals = {}
    for path in philips_classic.glob("*.dcm"):
        header = dcmread(path, stop_before_pixels=True)
        originals[header.SOPInstanceUID] = header
    for path in philips["classic"].glob("01-*.dcm"):
        ours = dcmread(path, stop_before_pixels=True)
        for item in ours.SourceImageSequence:
            theirs = originals[item.ReferencedSOPInstanceUID]
            for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
                assert ours.get_item(keyword).value == theirs.get_item(keyword).value


@pytest.mark.slow
def test_the_physics_too_makes_no_difference_between_the_exports(
    philips_classic: Path, philips_enhanced: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    default = read_recipe(recipe_file("default"))
    for name, export in (("classic", philips_classic), ("enhanced", philips_enhanced)):
        assert reconstruct_folder(export, tmp_path / name, default, nifti=True) == 0
    for path in (tmp_path / "classic" / "nifti").iterdir():
        assert path.read_bytes() == (tmp_path / "enhanced" / "nifti" / path.name).read_bytes()
