"""The demonstration with real files: what a newcomer runs first must work, say what arrived, and stop."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image


@pytest.mark.timeout(600)
def test_demo_with_data_ends_with_results_in_the_archive(philips_classic: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "demo", "--data", str(philips_classic), "--output", str(tmp_path / "out")]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "{'stored': 212}" in ran.stdout
    assert "QSM (ppb)" in ran.stdout
    assert "whole brain" in ran.stdout
    picture = next((tmp_path / "out").glob("map-*.png"))
    assert str(picture) in ran.stdout
    with Image.open(picture) as image:
        assert min(image.size) > 500


def test_demo_refuses_a_folder_that_is_not_there(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "demo", "--data", str(tmp_path / "absent")]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert ran.returncode == 2
    assert "absent" in ran.stderr
