"""`make bench` runs scenes that there are."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import __main__ as bench
from benchmarks import accuracy, grade, intake, memory, resident, speed
from dicom_node import commands, recipes
from reconstruction import fourier
from reconstruction.grade import BOUNDS
from tests.simulation import scenes, spoilt


def test_the_scenes_go_through_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a head that takes a second: what comes out is a line of figures and a picture for each scene."""
    monkeypatch.setattr(accuracy, "scene", lambda name: scenes.small_head())
    monkeypatch.setattr(speed, "main", lambda words: 0)
    assert bench.main(["--out", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in bench.STANDARD:
        assert any(line.startswith(f"{name} ") and "%" in line for line in lines)
        assert (tmp_path / f"accuracy-{name}.png").exists()


@pytest.mark.parametrize(("arguments", "expected"), [([], bench.STANDARD), (["--all"], tuple(scenes.SCENES))])
def test_all_means_every_scene(
    arguments: list[str], expected: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(accuracy, "main", lambda words: asked.extend(words) or 0)
    monkeypatch.setattr(speed, "main", lambda words: 0)
    assert bench.main(arguments) == 0
    assert tuple(asked[1 : asked.index("--recipe")]) == expected
    assert set(expected) <= scenes.SCENES.keys()


def test_what_a_grade_is_made_of_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(grade, "scene", lambda name: scenes.small_head())
    monkeypatch.setattr(grade, "SPOILT", {"of_one_echo": spoilt.of_one_echo})
    assert grade.main(["--recipe", "fast"]) == 0
    titles, row = capsys.readouterr().out.splitlines()
    assert titles.split()[-len(BOUNDS) :] == list(BOUNDS)
    figures = dict(zip(BOUNDS, map(float, row.split()[-len(BOUNDS) :]), strict=True))
    assert row.split()[:4] == ["quick", "of_one_echo", "fast", "review"]
    assert figures["echoes"] == 1
    assert np.isnan(figures["iron.contrast"])


def test_a_head_is_interpolated_without_moving() -> None:
    """A ramp stays the same ramp in mm, whatever the grid; beyond the outer voxels' middles it stays level."""
    ramp = np.broadcast_to((np.arange(10, dtype=np.float32) + 0.5)[:, None, None], (10, 6, 4))
    fine = speed._interpolated(ramp, (30, 6, 9))
    assert fine.shape == (30, 6, 9)
    expected = np.clip((np.arange(30) + 0.5) / 3, 0.5, 9.5)
    np.testing.assert_allclose(fine, np.broadcast_to(expected[:, None, None], fine.shape), rtol=1e-5)


def test_a_meter_tells_stages_apart() -> None:
    meter, module = speed.Meter(0.0), SimpleNamespace(transform=lambda: None)
    meter.count(module, "transform")
    meter.begin("first")
    module.transform()
    module.transform()
    meter.begin("second")
    module.transform()
    meter.begin("end")
    assert [(stage.name, stage.transforms) for stage in meter.stages] == [("start-up", 0), ("first", 2), ("second", 1)]
    assert all(stage.peak > 0 for stage in meter.stages)
    assert speed.in_words(meter.stages).splitlines()[-1].split()[3] == "3"


def test_there_and_back_are_two_transforms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volume, filter_ = np.ones((4, 5, 6), np.float32), np.ones((4, 5, 4), np.float32)
    for module, name in ((fourier, "forward"), (fourier, "inverse"), (recipes, "read_recipe")):
        monkeypatch.setattr(module, name, getattr(module, name))  # which puts back what the meter replaces
    monkeypatch.setattr(commands, "main", lambda words: int(fourier.apply(filter_, volume).min() != 1))
    assert speed.inside(tmp_path / "stages.json", 0.0, []) == 0
    assert [row["transforms"] for row in json.loads((tmp_path / "stages.json").read_text())] == [2]


@pytest.mark.slow
def test_the_command_line_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert speed.main(["--shape", "64", "64", "44", "--echoes", "3", "--recipe", "fast", "--cache", str(tmp_path)]) == 0
    stages = {line.split("  ")[0]: line.split() for line in capsys.readouterr().out.splitlines()}
    assert {"start-up", "read headers", "convert", "check", "offset", "inversion", "encode", "write"} <= stages.keys()
    assert int(stages["inversion"][-2]) > 0


def test_rates_are_compared_with_orthancs() -> None:
    """The median of the rounds; the largest of the peaks."""
    seconds = {"node": (4.0, 1.0, 2.0), "orthanc": (4.0, 4.0, 4.0)}
    samples = {
        name: [intake.Sample(each, 2 * each if name == "node" else None, 10**6, each / 4) for each in found]
        for name, found in seconds.items()
    }
    lines = intake.rows("1 association", samples, 100)
    assert [line.strip("| ").split(" | ") for line in lines] == [
        ["1 association", "node", "50", "2.00", "5.00", "200", "1"],
        ["1 association", "orthanc", "25", "1.00", "10.00", "", "1"],
    ]


@pytest.mark.slow
def test_the_intake_is_measured(capsys: pytest.CaptureFixture[str], storescu_command: Path) -> None:
    assert storescu_command.exists()
    few = ["--images", "6", "--rounds", "1", "--associations", "2", "--receivers", "node"]
    assert intake.main(few) == 0
    assert "| 2 associations, without Nagle | node |" in capsys.readouterr().out
    assert intake.main(["--large", "--frames", "4", "--rounds", "1", "--receivers", "node"]) == 0
    assert "1 object of 2 MB" in capsys.readouterr().out


@pytest.mark.slow
def test_the_memory_of_the_daemon_is_measured(capsys: pytest.CaptureFixture[str], storescu_command: Path) -> None:
    assert storescu_command.exists()
    assert resident.main(["--images", "6"]) == 0
    *_, taken, found, fetched = capsys.readouterr().out.splitlines()
    assert (taken.split(" | ")[0], "found" in found, "fetched" in fetched) == ("| 6 images by C-STORE", True, True)
    now, most = map(int, fetched.strip("| ").split(" | ")[1:])
    assert 20 < now <= most, "MB of a process of Python"


def test_a_run_that_holds_more_than_was_reckoned_is_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    held = iter([0.6, 99.0])
    monkeypatch.setattr(memory, "study", lambda shape, echoes, cache: tmp_path)
    monkeypatch.setattr(
        memory, "measure", lambda *_: [speed.Stage("convert", 1, 1, 0, 0.1), speed.Stage("encode", 1, 1, 0, next(held))]
    )
    words = ["--case", "96", "96", "64", "3", "--case", "256", "256", "128", "5", "--recipe", "fast"]
    assert memory.main([*words, "--cache", str(tmp_path)]) == 0
    _, fits, exceeds = capsys.readouterr().out.splitlines()
    assert fits.split()[:5] == ["96", "×", "96", "×", "64"]
    assert fits.split()[-1] == "0.61"
    assert exceeds.endswith("too little")
