"""The units: what systemd itself says of them, and the node under the system calls that they leave it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dicom_node.commands._common import WRONG_USAGE
from tests.confine import allowed_calls, settings_of
from tests.dicom_node.test_supervise import NODE, Manager, answers, node
from tests.e2e.phantom import simple_head
from tests.peers import free_port
from tests.simulation.siemens import write_siemens

ROOT = Path(__file__).parents[1]
UNITS = ROOT / "systemd"
SERVICE = UNITS / "qsm-node.service"
EXPOSURE = 2.0
"""Of 10 (systemd-analyze security); a service without any setting has 9.6."""


@pytest.fixture(scope="module")
def analyze(systemd_command: Path) -> Path:
    return systemd_command


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A root folder with units and what they start, as `make install` leaves them."""
    subprocess.run(
        ["make", "--silent", "install-files", f"DESTDIR={tmp_path}"], cwd=ROOT, check=True, capture_output=True
    )
    for command in ("opt/qsm-node/bin/qsm-node", "bin/kill"):
        file = tmp_path / command
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("#!/bin/sh\n")
        file.chmod(0o755)
    targets = tmp_path / "usr/lib/systemd/system"
    targets.mkdir(parents=True)
    for target in Path("/lib/systemd/system").glob("*.target"):
        shutil.copy(target, targets)
    return tmp_path


def test_the_service_is_hardly_exposed(analyze: Path) -> None:
    told = subprocess.run(
        [analyze, "security", "--offline=yes", "--no-pager", SERVICE], capture_output=True, text=True, check=True
    )
    found = re.search(r"Overall exposure level for qsm-node\.service: ([\d.]+)", told.stdout)
    assert found, told.stdout
    assert float(found[1]) <= EXPOSURE


def test_systemd_finds_no_fault_in_what_is_installed(analyze: Path, installed: Path) -> None:
    units = sorted(path.name for path in (installed / "etc/systemd/system").iterdir())
    assert units == ["qsm-node-tls.socket", "qsm-node.service", "qsm-node.socket"]
    told = subprocess.run(
        [analyze, "verify", "--man=no", f"--root={installed}", *units], capture_output=True, text=True, check=False
    )
    faults = [line for line in (told.stdout + told.stderr).splitlines() if "qsm-node" in line]
    assert faults == []


def made_user(installed: Path) -> list[str]:
    """The fields of its line (passwd(5))."""
    (installed / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/bash\n")
    (installed / "etc/group").write_text("root:x:0:\n")
    subprocess.run(["systemd-sysusers", f"--root={installed}", "qsm-node.conf"], check=True)
    return (installed / "etc/passwd").read_text().splitlines()[-1].split(":")


def test_the_user_is_made(analyze: Path, installed: Path) -> None:
    user = made_user(installed)
    assert (user[0], user[5], user[6]) == ("qsm-node", "/var/lib/qsm-node", "/usr/sbin/nologin")


@pytest.mark.skipif(os.geteuid() != 0, reason="nobody but root may give files to another user")
def test_the_folders_are_made(analyze: Path, installed: Path) -> None:
    user = made_user(installed)
    subprocess.run(["systemd-tmpfiles", "--create", f"--root={installed}", "qsm-node.conf"], check=True)
    folder = installed / "etc/qsm-node"
    assert (folder.stat().st_mode & 0o777, (folder / "node.toml").stat().st_mode & 0o777) == (0o750, 0o640)
    assert (folder / "node.toml").stat().st_gid == int(user[3])
    state = (installed / "var/lib/qsm-node").stat()
    assert (state.st_mode & 0o777, state.st_uid, state.st_gid) == (0o700, int(user[2]), int(user[3]))


def test_what_is_installed_twice_keeps_the_configuration(installed: Path) -> None:
    config = installed / "etc/qsm-node/node.toml"
    assert 'state_folder = "/var/lib/qsm-node"' in config.read_text()
    config.write_text("# mine\n")
    subprocess.run(
        ["make", "--silent", "install-files", f"DESTDIR={installed}"], cwd=ROOT, check=True, capture_output=True
    )
    assert config.read_text() == "# mine\n"
    assert 'state_folder = "/var/lib/qsm-node"' in config.with_suffix(".toml.new").read_text()


def test_unit_and_code_agree() -> None:
    settings = settings_of(SERVICE)
    assert (settings["StateDirectory"], settings["StateDirectoryMode"]) == (["qsm-node"], ["0700"]), "as in tmpfiles"
    assert settings["Type"] == ["notify"]
    assert settings["SystemCallErrorNumber"] == ["EPERM"], "what is not allowed fails; the process is not killed"
    assert settings["RestartPreventExitStatus"] == [str(WRONG_USAGE)]
    assert "MemoryDenyWriteExecute" not in settings
    for socket, name in (("qsm-node.socket", "dicom"), ("qsm-node-tls.socket", "dicom-tls")):
        assert f"FileDescriptorName={name}\n" in (UNITS / socket).read_text()


def test_the_node_serves_reloads_and_stops_under_its_system_calls(analyze: Path, tmp_path: Path) -> None:
    assert not {"chown", "setuid", "mount", "ptrace", "sched_setscheduler"} & allowed_calls(
        settings_of(SERVICE)["SystemCallFilter"]
    )
    manager, port = Manager(tmp_path), free_port()
    with node(tmp_path, manager, port=port, watchdog=3.0, under=[sys.executable, "-m", "tests.confine", SERVICE]) as it:
        manager.waits_for(READY="1")
        status = Path(f"/proc/{it.pid}/status").read_text()
        assert re.search(r"Seccomp:\s+2", status), "a filter is in force"
        answers(port)
        it.send_signal(signal.SIGHUP)
        manager.waits_for(RELOADING="1")
        manager.waits_for(WATCHDOG="1")
        it.terminate()
        assert it.wait(60) == 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_map_is_made_under_the_node_s_system_calls_kernels_compiled_anew(analyze: Path, tmp_path: Path) -> None:
    write_siemens(simple_head(1, shape=(48, 48, 32)), tmp_path / "study")
    command = [NODE, "reconstruct", tmp_path / "study", "--out", tmp_path / "out", "--recipe", "fast"]
    subprocess.run(
        [sys.executable, "-m", "tests.confine", SERVICE, *command],
        cwd=ROOT,
        env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "kernels")},
        check=True,
        capture_output=True,
    )
    assert list((tmp_path / "out").rglob("*.dcm"))
    assert list((tmp_path / "kernels").rglob("*.nbi"))
