"""`make bench` runs scenes that there are."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import __main__ as bench
from benchmarks import accuracy
from tests.simulation import scenes


def test_the_scenes_go_through_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a head that takes a second: what comes out is a line of figures and a picture for each scene."""
    monkeypatch.setattr(accuracy, "scene", lambda name: scenes.small_head())
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
    assert bench.main(arguments) == 0
    assert tuple(asked[1 : asked.index("--recipe")]) == expected
    assert set(expected) <= scenes.SCENES.keys()
