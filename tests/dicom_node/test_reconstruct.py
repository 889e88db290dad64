from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from dicom_node import reconstruct
from dicom_node.errors import NotConvertible
from dicom_node.reconstruct import reconstruct_job
from reconstruction import Maps, NotReconstructible
from tests.dicom_node.encode.example import CREATED, recipe
from tests.dicom_node.study import instant_physics, write_study


@pytest.fixture(autouse=True)
def _without_physics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconstruct, "reconstruct", instant_physics)


@pytest.fixture
def job(tmp_path: Path) -> Path:
    return _job(tmp_path / "job", write_study(tmp_path / "images"))


def _job(folder: Path, paths: list[Path], **more: object) -> Path:
    folder.mkdir()
    content = {"instances": [str(path) for path in paths], "created_at": CREATED} | more
    (folder / "job.json").write_text(json.dumps(content))
    return folder


def _content(result: Path) -> dict[str, bytes]:
    return {str(p.relative_to(result)): p.read_bytes() for p in sorted(result.rglob("*")) if p.is_file()}


def test_writes_the_result_folder(job: Path) -> None:
    result = reconstruct_job(job, recipe())
    assert result == job / "result"
    names = [path.name for path in sorted((result / "dicom").iterdir())]
    assert names == [
        *(f"01-qsm-{k:04d}.dcm" for k in range(1, 8)),
        *(f"02-r2star-{k:04d}.dcm" for k in range(1, 8)),
        "12-seg-0001.dcm",
        "13-sr-0001.dcm",
        "14-page-0001.dcm",
        "16-window-0001.dcm",
    ]
    assert {path.name for path in result.iterdir()} == {"dicom", "report.json", "map.png", "thumbnail.png"}
    assert not (job / "result.part").exists()


def test_a_map_that_cannot_be_shown_small_is_a_result_all_the_same(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconstruct, "thumbnail", lambda image: 1 // 0)
    result = reconstruct_job(job, recipe())
    assert {path.name for path in result.iterdir()} == {"dicom", "report.json", "map.png"}


def test_the_record_holds_recipe_figures_timings_and_sources(job: Path) -> None:
    record = json.loads((reconstruct_job(job, recipe()) / "report.json").read_text())
    assert record["recipe"]["mask"] == {"method": "magnitude", "threshold": 0.1}
    assert record["recipe"]["digest"] == recipe().digest()
    assert record["acquisition"]["echo_times_s"] == pytest.approx([0.004, 0.012])
    assert record["regions"].keys() == {"whole_brain", "csf"}
    assert record["regions"]["csf"].keys() == {"voxels", "volume", "covered", "chi", "r2star"}
    assert record["reference"]["mean_relative_to_whole_brain"] == pytest.approx(10)
    assert record["timings_s"].keys() == {"convert", "check", "mask", "inversion", "encode"}
    assert len(record["source"]["sop_instance_uids"]) == 28
    assert len(record["source"]["series_instance_uids"]) == 2
    assert {output["file"] for output in record["outputs"]} == {
        path.name for path in (job / "result" / "dicom").iterdir()
    }


def test_nothing_but_the_dicom_files_names_the_patient(job: Path) -> None:
    result = reconstruct_job(job, recipe())
    for path in (result / "report.json", result / "map.png", job / "progress.jsonl"):
        content = path.read_bytes()
        assert not [word for word in (b"ller", b"0815", b"19620323", b"A123") if word in content]


def test_progress_names_each_stage_as_it_begins(job: Path) -> None:
    reconstruct_job(job, recipe())
    lines = [json.loads(line) for line in (job / "progress.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in lines] == ["convert", "check", "mask", "inversion", "encode", "write", "done"]
    times = [line["at"] for line in lines]
    assert times == sorted(times)


def test_a_finished_job_is_not_done_again(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = _content(reconstruct_job(job, recipe()))
    monkeypatch.setattr(reconstruct, "reconstruct", _never)
    assert _content(reconstruct_job(job, recipe())) == before


def test_another_recipe_is_another_result(job: Path) -> None:
    first = json.loads((reconstruct_job(job, recipe()) / "report.json").read_text())
    second = json.loads((reconstruct_job(job, recipe(threshold=0.3)) / "report.json").read_text())
    assert first["recipe"]["digest"] != second["recipe"]["digest"]
    assert not {o["sop_instance_uid"] for o in first["outputs"]} & {o["sop_instance_uid"] for o in second["outputs"]}


def test_another_reading_of_the_phase_is_another_result(job: Path) -> None:
    """A PACS keeps what it has under a UID: a corrected map under that of the wrong one would never get in."""
    as_read = json.loads((reconstruct_job(job, recipe()) / "report.json").read_text())
    found = [as_read]
    for settings in (
        {"phase_sign": "flip"},
        {"phase_half_turn": 5000.0},
        {"phase_half_turn": 5000.0, "phase_zero": 9.0},
    ):
        _configure(job, settings)
        found.append(json.loads((reconstruct_job(job, recipe()) / "report.json").read_text()))
    uids = [{output["sop_instance_uid"] for output in record["outputs"]} for record in found]
    assert len(set.union(*uids)) == sum(map(len, uids))
    assert [record["source"]["phase_override"] for record in found] == [
        {},
        {"sign": "flip"},
        {"half_turn": 5000.0, "zero": 0.0},
        {"half_turn": 5000.0, "zero": 9.0},
    ]


def test_what_says_nothing_of_the_phase_changes_no_result(job: Path) -> None:
    before = _content(reconstruct_job(job, recipe()))
    _configure(job, {"check": False})
    assert _content(reconstruct_job(job, recipe())) == before


@pytest.mark.parametrize("killed_at", ["encode", "write", "_sync"])
def test_a_job_that_was_cut_short_leaves_no_result_and_is_done_anew(
    killed_at: str, job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _content(reconstruct_job(job, recipe()))
    (job / "result").rename(job / "expected")
    with monkeypatch.context() as patch:
        patch.setattr(reconstruct, killed_at, _never)
        with pytest.raises(KeyboardInterrupt):
            reconstruct_job(job, recipe())
    assert not (job / "result").exists()
    again = _content(reconstruct_job(job, recipe()))
    assert {k: v for k, v in again.items() if k != "report.json"} == {
        k: v for k, v in whole.items() if k != "report.json"
    }


def test_what_an_earlier_attempt_left_does_not_get_into_the_result(job: Path) -> None:
    (job / "result.part" / "dicom").mkdir(parents=True)
    (job / "result.part" / "dicom" / "stale.dcm").write_text("stale")
    assert "dicom/stale.dcm" not in _content(reconstruct_job(job, recipe()))


def test_an_unreadable_result_is_made_anew(job: Path) -> None:
    (reconstruct_job(job, recipe()) / "report.json").write_text("{")
    assert json.loads((reconstruct_job(job, recipe()) / "report.json").read_text())["outputs"]


def test_a_job_with_a_hole_fails_and_names_it(tmp_path: Path) -> None:
    job = _job(tmp_path / "job", write_study(tmp_path / "images")[:-1])
    with pytest.raises(NotConvertible, match="0 complete acquisitions; expected one"):
        reconstruct_job(job, recipe())
    assert not (job / "result").exists()


def test_the_physics_refusal_becomes_the_job_s_reason(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_brain(*_: object, **__: object) -> None:
        raise NotReconstructible("no brain was found")

    monkeypatch.setattr(reconstruct, "reconstruct", no_brain)
    with pytest.raises(NotConvertible, match="no brain was found"):
        reconstruct_job(job, recipe())


def test_the_physics_runs_where_the_job_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def on(*arguments: Any, device: str) -> Maps:
        asked.append(device)
        return instant_physics(*arguments)

    monkeypatch.setattr(reconstruct, "reconstruct", on)
    paths = write_study(tmp_path / "study")
    reconstruct_job(_job(tmp_path / "1", paths), recipe())
    reconstruct_job(_job(tmp_path / "2", paths, device="cuda"), recipe())
    assert asked == ["cpu", "cuda"]


def test_can_be_handed_to_another_process() -> None:
    assert pickle.loads(pickle.dumps(reconstruct_job)) is reconstruct_job
    assert pickle.loads(pickle.dumps(recipe())) == recipe()


def test_what_is_wanted_is_made_and_another_wish_makes_it_anew(job: Path) -> None:
    first = reconstruct_job(job, recipe())
    before = {path.name for path in (first / "dicom").iterdir()}
    content = json.loads((job / "job.json").read_text())
    wanted = {"maps": ["t2star"], "objects": ["pdf"], "reference_ranges": ""}
    (job / "job.json").write_text(json.dumps(content | {"output": wanted}))
    again = reconstruct_job(job, recipe())
    after = {path.name for path in (again / "dicom").iterdir()}
    assert {name.split("-")[1] for name in after - before} == {"t2star", "pdf"}
    assert {name.split("-")[1] for name in before - after} == {"page", "window"}
    assert json.loads((again / "report.json").read_text())["output"] == wanted


def _configure(job: Path, settings: dict[str, object]) -> None:
    """What a site sets for the scanner of the study, which `job.json` hands to the worker."""
    content = json.loads((job / "job.json").read_text())
    content["scanners"] = [{"station_name": "MR1"} | settings]
    (job / "job.json").write_text(json.dumps(content))


def _never(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_another_recipe_makes_other_objects_that_say_so(tmp_path: Path) -> None:
    images = write_study(tmp_path / "images")
    first = reconstruct_job(_job(tmp_path / "1", images), recipe())
    second = reconstruct_job(_job(tmp_path / "2", images, reprocessed=1), replace(recipe(), name="other", atlas="x"))
    one, other = ([dcmread(path) for path in sorted((made / "dicom").iterdir())] for made in (first, second))
    assert len(one) == len(other)
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription"):
        assert {str(image[keyword].value) for image in one}.isdisjoint(str(image[keyword].value) for image in other)
    assert {image.StudyInstanceUID for image in one} == {image.StudyInstanceUID for image in other}
    told = json.loads((second / "report.json").read_text())["outputs"]
    assert all(output["series_description"].endswith(", recipe other") for output in told)
