"""`inspect` tells what would be done and why, in data and in words, and nothing of the patient."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread, dcmwrite

from dicom_node.commands import main
from dicom_node.inspect import inspect
from dicom_node.inspect_text import in_words
from dicom_node.settings import Scanner
from tests.simulation.encodings import ENCODINGS
from tests.simulation.scenes import small_head, thin_head


@pytest.fixture(scope="module")
def siemens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("siemens")
    ENCODINGS["siemens"](small_head(), folder)
    return folder


@pytest.fixture(scope="module")
def thin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("thin")
    ENCODINGS["siemens"](thin_head(), folder)
    return folder


def found_in(folder: Path, *scanners: Scanner) -> dict[str, Any]:
    found = inspect(folder, scanners)
    assert json.loads(json.dumps(found)) == found, "--json must be able to write it"
    assert in_words(found, 80)
    return found


def test_a_sound_scan(siemens: Path) -> None:
    found = found_in(siemens)
    [acquisition] = found["acquisitions"]
    head = small_head().acquisition
    assert (acquisition["verdict"], acquisition["reason"], acquisition["encoding"]) == ("reconstruct", "", "siemens")
    assert acquisition["plausibility"]["verdict"] == "confirmed"
    assert acquisition["echo_times_ms"] == pytest.approx([4, 11, 18])
    assert acquisition["grid"]["shape"] == list(head.geometry.shape)
    assert acquisition["grid"]["b0_direction"] == pytest.approx(list(head.geometry.b0_direction), abs=1e-3)
    assert (acquisition["grid"]["plane"], acquisition["grid"]["tilt_degrees"]) == ("axial", 15)
    assert acquisition["field"]["megahertz"] == pytest.approx(head.larmor_frequency * 1e-6, abs=1e-4)
    images = 3 * head.geometry.shape[2]
    assert acquisition["components"] == {
        "magnitude": {"images": images, "series": [5]},
        "phase": {"images": images, "series": [6]},
    }
    assert any("by the header" in sentence for sentence in acquisition["decisions"])
    assert any(sentence.startswith("sign: as stored") for sentence in acquisition["decisions"])
    assert found["left_alone"] == []
    said = in_words(found, 100)
    for words in ("[1] series 5, 6: siemens", "3: 4, 11, 18 ms", "axial, tilted by 15°", "confirmed: sign confirmed"):
        assert words in said
    assert said.endswith("would reconstruct it")


def test_lines_fit_the_terminal(siemens: Path) -> None:
    lines = in_words(found_in(siemens), 72).splitlines()[1:]
    assert max(map(len, lines)) <= 72


def test_no_patient_in_it(siemens: Path) -> None:
    header = dcmread(next(p for p in siemens.rglob("*") if p.is_file()), stop_before_pixels=True)
    said = json.dumps(found_in(siemens))
    assert str(header.PatientName) not in said
    assert f'"{header.PatientID}"' not in said


def test_a_turned_sign_would_be_stopped_unless_configured(tmp_path: Path) -> None:
    acquisition = replace(small_head().acquisition, phase=-small_head().acquisition.phase)
    paths = ENCODINGS["siemens"](replace(small_head(), acquisition=acquisition), tmp_path)
    for path in paths:
        dataset = dcmread(path)
        dataset.StationName = "MR1"
        dcmwrite(path, dataset)
    [stopped] = found_in(tmp_path)["acquisitions"]
    assert (stopped["verdict"], stopped["plausibility"]["sign"]) == ("review", "contradicted")
    assert 'phase_sign = "flip"' in stopped["reason"]
    assert stopped["scanner"]["StationName"] == "MR1"
    found = found_in(tmp_path, Scanner(station_name="MR1", phase_sign="flip"))
    [known] = found["acquisitions"]
    assert (known["verdict"], known["plausibility"]["sign"]) == ("reconstruct", "confirmed")
    assert known["configured"]["phase_sign"] == "flip"
    assert "phase_sign = flip" in in_words(found, 80)


def test_what_is_missing_is_named(thin: Path, tmp_path: Path) -> None:
    shutil.copytree(thin, tmp_path / "in")
    magnitude = [p for p in (tmp_path / "in").rglob("*") if p.is_file() and dcmread(p).ImageType[2] == "M"]
    magnitude[0].unlink()
    found = found_in(tmp_path / "in")
    [acquisition] = found["acquisitions"]
    assert acquisition["verdict"] == "incomplete"
    assert acquisition["missing"]
    assert acquisition["plausibility"] is None
    assert all(hole in in_words(found, 1000) for hole in acquisition["missing"])


def test_what_cannot_be_converted_is_refused_with_the_reason(thin: Path, tmp_path: Path) -> None:
    shutil.copytree(thin, tmp_path / "in")
    for path in (p for p in (tmp_path / "in").rglob("*") if p.is_file()):
        dataset = dcmread(path)
        if dataset.ImageType[2] == "P":
            dataset.RescaleSlope = 3
            dcmwrite(path, dataset)
    [acquisition] = found_in(tmp_path / "in")["acquisitions"]
    assert acquisition["verdict"] == "refuse"
    assert "Rescale" in acquisition["reason"]


def test_what_is_foreign_is_summarised(siemens_phase_difference: Path) -> None:
    found = found_in(siemens_phase_difference)
    assert found["acquisitions"] == []
    [entry] = found["left_alone"]
    assert (entry["objects"], entry["series"]) == (3, [8, 9])
    assert "field mapping" in in_words(found, 1000)


@pytest.mark.parametrize("encoding", ["siemens enhanced", "ge cartesian chopped"])
def test_other_encodings_say_how_they_were_read(encoding: str, tmp_path: Path) -> None:
    ENCODINGS[encoding](small_head(), tmp_path)
    [acquisition] = found_in(tmp_path)["acquisitions"]
    assert acquisition["verdict"] == "reconstruct"
    assert acquisition["plausibility"]["verdict"] == "confirmed"
    assert acquisition["decisions"]


def test_the_command(siemens: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(siemens), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["acquisitions"][0]["verdict"] == "reconstruct"
    (tmp_path / "notes.txt").write_text("nothing")
    assert main(["inspect", str(tmp_path)]) == 3
    assert "1 file, 0 DICOM objects, 0 acquisitions" in capsys.readouterr().out
    assert main(["inspect", str(tmp_path / "absent")]) == 2


def test_the_real_brain(philips_classic: Path) -> None:
    [acquisition] = found_in(philips_classic)["acquisitions"]
    assert (acquisition["encoding"], acquisition["verdict"]) == ("philips", "reconstruct")
    assert acquisition["plausibility"]["verdict"] == "confirmed"
    assert np.linalg.norm(acquisition["grid"]["b0_direction"]) == pytest.approx(1, abs=1e-6)
