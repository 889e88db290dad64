"""Physics stops what its header gets wrong, says both ways out, and takes the site's word for it."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread, dcmwrite

from dicom_node import reconstruct
from dicom_node.convert import convert
from dicom_node.desk import reconstruct_folder
from dicom_node.errors import Contradicted
from dicom_node.folder import read
from dicom_node.group import group
from dicom_node.model import Completeness, Group
from dicom_node.review import Settings, as_data, check, settings_of
from dicom_node.settings import Scanner
from reconstruction import Acquisition
from tests.dicom_node.encode.example import recipe
from tests.dicom_node.study import instant_physics
from tests.simulation.ge import write_ge
from tests.simulation.scenes import small_head
from tests.simulation.siemens import write_siemens

MR1, MR2 = Scanner(station_name="MR1"), Scanner(station_name="MR2", phase_sign="flip")


def altered(change: Callable[[np.ndarray], np.ndarray]) -> Acquisition:
    acquisition = small_head().acquisition
    return replace(acquisition, phase=change(acquisition.phase).astype(np.float32))


def one_group(folder: Path) -> Group:
    found = group(read(folder), 0.0, 0.0, frozenset())
    return next(g for g in found if g.completeness is Completeness.COMPLETE)


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("right")
    write_siemens(small_head(), folder)
    return folder


@pytest.fixture(scope="module")
def turned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A head whose phase lies in the files the other way round, from a scanner that says who it is."""
    folder = tmp_path_factory.mktemp("turned")
    head = replace(small_head(), acquisition=altered(np.negative))
    for path in write_siemens(head, folder):
        dataset = dcmread(path)
        dataset.StationName, dataset.DeviceSerialNumber = "MR1", "4711"
        dcmwrite(path, dataset)
    return folder


def checked(folder: Path, *scanners: Scanner) -> tuple[tuple[str, ...], dict]:
    acquired = one_group(folder)
    settings = settings_of(acquired, scanners)
    judged = check(*convert(acquired, settings.override), settings)
    return judged.warnings, json.loads(json.dumps(as_data(judged.found)))


def test_what_is_right_goes_through_in_silence_with_its_evidence(right: Path) -> None:
    warnings, record = checked(right)
    assert warnings == ()
    assert record["verdict"] == "confirmed"
    assert {evidence["name"] for evidence in record["sign_evidence"]} >= {"air_cavities"}


def test_a_turned_sign_is_stopped_with_both_hypotheses(turned: Path) -> None:
    with pytest.raises(Contradicted, match="contradicts the sign of the phase") as stopped:
        checked(turned)
    assert 'phase_sign = "flip"' in str(stopped.value)
    assert 'phase_sign = "keep"' in str(stopped.value)
    assert str(pickle.loads(pickle.dumps(stopped.value))) == str(stopped.value), "it has to come out of a worker"


@pytest.mark.parametrize("names", [{"station_name": "MR1"}, {"serial_number": "4711"}])
def test_the_configured_sign_is_used_and_confirmed(turned: Path, names: dict[str, str]) -> None:
    warnings, record = checked(turned, MR2, Scanner(**names, phase_sign="flip"))
    assert warnings == ()
    assert record["sign"] == "confirmed"


def test_the_sites_word_goes_before_physics_which_may_still_wonder(turned: Path) -> None:
    for scanner in (Scanner(station_name="MR1", phase_sign="keep"), Scanner(station_name="MR1", check=False)):
        [warning] = checked(turned, scanner)[0]
        assert "physics contradicts the sign" in warning


def test_another_scanners_word_does_not_count(turned: Path) -> None:
    for other in (MR2, Scanner(station_name="MR1", serial_number="1", phase_sign="flip")):
        with pytest.raises(Contradicted):
            checked(turned, other)


def test_the_first_table_that_fits_counts(turned: Path) -> None:
    acquired = one_group(turned)
    assert settings_of(acquired, []) == Settings()
    assert settings_of(acquired, [MR2, MR1, Scanner(serial_number="4711", check=False)]) == Settings()


def test_ge_is_advised_the_other_way_round(tmp_path: Path) -> None:
    write_ge(replace(small_head(), acquisition=altered(np.negative)), tmp_path)
    with pytest.raises(Contradicted, match=r'the other way round than ge images do.*phase_sign = "keep" .*"flip"'):
        checked(tmp_path)


def test_a_wrong_scale_is_stopped_whatever_the_sign_is_configured_to(right: Path) -> None:
    acquired = one_group(right)
    acquisition, source = convert(acquired)
    halved = replace(acquisition, phase=acquisition.phase / 2)
    for scanners in ([], [Scanner(serial_number="0", phase_sign="keep")]):
        with pytest.raises(Contradicted, match=r"contradicts the scale.*multiplied by 0\.50.*phase_half_turn.*check"):
            check(halved, source, settings_of(acquired, scanners))
    [warning] = check(halved, source, Settings(stops=False)).warnings[1:]
    assert "contradicts the scale" in warning


def test_the_desk_ends_with_3_and_the_reason(
    turned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reconstruct, "reconstruct", instant_physics)
    assert reconstruct_folder(turned, tmp_path, recipe(), nifti=False) == 3
    assert 'phase_sign = "flip"' in capsys.readouterr().err
    known = [Scanner(station_name="MR1", phase_sign="flip")]
    assert reconstruct_folder(turned, tmp_path, recipe(), nifti=False, scanners=known) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["plausibility"]["sign"] == "confirmed"
    assert report["decisions"]
