"""Recipes as files: what is wrong with one is told before there is a job."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node.errors import InvalidConfiguration
from dicom_node.recipes import check_device, read_recipe
from reconstruction import DeviceUnavailable


def test_a_device_that_is_not_there_is_told_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(device: str) -> None:
        raise DeviceUnavailable(f"device {device!r} cannot be used")

    monkeypatch.setattr("reconstruction.mover", absent)
    with pytest.raises(InvalidConfiguration, match="'cuda' cannot be used"):
        check_device("cuda")


def test_a_recipe_with_faults_is_refused_by_name(tmp_path: Path) -> None:
    for content in ("name = ", 'name = "x"\n[masks]\nmethod = "y"', "\xff"):
        file = tmp_path / "recipe.toml"
        file.write_bytes(content.encode("latin-1"))
        with pytest.raises(InvalidConfiguration, match=r"recipe\.toml"):
            read_recipe(file)
