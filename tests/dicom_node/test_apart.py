"""Apart: the daemon receives and waits for months, and holds no library of what it lets others do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dicom_node.apart import PATIENCE, in_process
from dicom_node.commands.serve import LEFT_OUT
from dicom_node.config import recipe_file
from dicom_node.errors import InvalidConfiguration
from dicom_node.recipes import read_recipe, usable_recipe

OF_THE_PHYSICS = {"numba", "scipy", "highdicom", "nibabel", "skimage", "numpy", "gdcm"}
OF_CODES = {"pydicom.sr.codedict"}
"""16 MB of tables."""
IDLE_MB = 100
"""79 were measured when this was written."""

LIKE_SERVE = f"""
import sys
for library in {LEFT_OUT}:
    sys.modules[library] = None
import dicom_node.daemon
print(*(name for name, module in sys.modules.items() if module is not None))
with open("/proc/self/status") as status:
    print(*(line.split()[1] for line in status if line.startswith("VmHWM")))
"""


def test_the_daemon_loads_nothing_of_the_physics() -> None:
    told = subprocess.run([sys.executable, "-c", LIKE_SERVE], capture_output=True, text=True, check=True).stdout
    loaded, resident = told.splitlines()
    assert {name.partition(".")[0] for name in loaded.split()} & OF_THE_PHYSICS == set()
    assert set(loaded.split()) & OF_CODES == set()
    assert int(resident) / 1000 < IDLE_MB


def test_nobody_waits_for_an_answer_as_long_as_the_watchdog_waits_for_a_sign_of_life() -> None:
    unit = Path(__file__).parents[2] / "systemd/qsm-node.service"
    [watchdog] = [line for line in unit.read_text().splitlines() if line.startswith("WatchdogSec=")]
    patience = float(watchdog.partition("=")[2])
    assert PATIENCE + patience / 3 < patience, "the last sign may be that old when the wait begins"


def test_what_is_called_apart_answers_as_if_it_were_here(tmp_path: Path) -> None:
    file = recipe_file("default")
    assert in_process(usable_recipe, file, "cpu") == read_recipe(file)
    with pytest.raises(InvalidConfiguration, match=r"no\.toml"):
        in_process(read_recipe, tmp_path / "no.toml")
