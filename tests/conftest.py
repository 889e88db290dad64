"""Peers and data that a test may need: absent ones skip the test by name with the reason; CI forbids skipping."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

REAL_DATA = Path(os.environ.get("QSM_NODE_DATA", Path(__file__).parents[2] / "shared" / "data"))


def _absent(what: str) -> None:
    if os.environ.get("QSM_NODE_NO_SKIP"):
        pytest.fail(f"{what} is absent, and nothing may be skipped here (QSM_NODE_NO_SKIP is set)")
    pytest.skip(f"{what} is absent")


def _command(name: str) -> Path:
    beside_python = Path(sys.executable).parent / name
    found = str(beside_python) if beside_python.exists() else shutil.which(name)
    if found is None:
        _absent(f"the command {name}")
    assert found is not None
    return Path(found)


@pytest.fixture(scope="session")
def orthanc_command() -> Path:
    return _command("Orthanc")


def _plugin(name: str, package: str, variable: str) -> Path:
    plugin = Path(os.environ.get(variable, f"/usr/share/orthanc/plugins/lib{name}.so"))
    if not plugin.is_file():
        _absent(f"Orthanc's plugin {name} (Debian's {package})")
    return plugin


@pytest.fixture(scope="session")
def orthanc_dicomweb() -> Path:
    return _plugin("OrthancDicomWeb", "orthanc-dicomweb", "QSM_NODE_ORTHANC_DICOMWEB")


@pytest.fixture(scope="session")
def orthanc_webviewer() -> Path:
    return _plugin("OrthancWebViewer", "orthanc-webviewer", "QSM_NODE_ORTHANC_WEBVIEWER")


@pytest.fixture(scope="session")
def storescu_command() -> Path:
    # pynetdicom installs a storescu of its own beside Python; dcmtk's is the one that lies with dcmsend.
    return _command("dcmsend").with_name("storescu")


@pytest.fixture(scope="session")
def systemd_command() -> Path:
    return _command("systemd-analyze")


@pytest.fixture(scope="session")
def private_mount() -> Sequence[str]:
    """What runs a command in a name space of its own, where it may mount a file system."""
    line = [str(_command("unshare")), "--map-root-user", "--mount"]
    if subprocess.run([*line, "true"], capture_output=True).returncode:
        _absent("the right to mount a file system of one's own (unshare --map-root-user --mount)")
    return line


@pytest.fixture(scope="session")
def dsrdump_command() -> Path:
    return _command("dsrdump")


@pytest.fixture(scope="session")
def dciodvfy_command() -> Path:
    return _command("dciodvfy")


@pytest.fixture(scope="session")
def bids_validator_command() -> Path:
    return _command("bids-validator-deno")


@pytest.fixture(scope="session")
def dcm2niix_command() -> Path:
    return _command("dcm2niix")


@pytest.fixture(scope="session")
def dcm2pnm_command() -> Path:
    return _command("dcm2pnm")


@pytest.fixture(scope="session")
def chromium_command() -> Path:
    return _command("chromium")


@pytest.fixture(scope="session")
def chromedriver_command() -> Path:
    return _command("chromedriver")


def _real_data(name: str) -> Path:
    folder = REAL_DATA / name
    if not folder.is_dir():
        _absent(f"the real data {name} (set QSM_NODE_DATA to the folder that holds it)")
    return folder


@pytest.fixture(scope="session")
def philips_classic() -> Path:
    return _real_data("philips_brain_2echo_classic")


@pytest.fixture(scope="session")
def philips_enhanced() -> Path:
    return _real_data("philips_brain_2echo_enhanced")


@pytest.fixture(scope="session")
def siemens_phase_difference() -> Path:
    return _real_data("siemens_xa30_phase_difference")


@pytest.fixture(scope="session")
def romeo_brain() -> Path:
    return _real_data("romeo_brain_3echo")
