"""Orthanc as the archive of a finished cohort: found, fetched by DIMSE or DICOMweb, processed; also across kills."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread

from dicom_node.call import Destination, SendSettings
from dicom_node.commands import main
from dicom_node.config import load
from dicom_node.daemon import Daemon
from dicom_node.fetches import Fetches
from dicom_node.send import send
from dicom_node.states import State
from dicom_node.store import Store
from tests.dicom_node.plays import play
from tests.e2e.phantom import simple_head
from tests.objects import mr_image, write
from tests.peers import free_port, running_orthanc, wait_until
from tests.simulation.siemens import write_siemens

ROOT = Path(__file__).parents[2]

CONFIG = """
[node]
state_folder = "{state}"
tick = 0.1
[receive]
port = {port}
[group]
quiet_time = 0.5
[fetch]
by = "{by}"
studies_per_hour = 3600
[[peer]]
name = "orthanc"
ae_title = "ORTHANC"
address = "127.0.0.1"
port = {archive}
may = ["store"]
[[web_source]]
name = "web"
url = "{url}/dicom-web"
"""


@pytest.mark.orthanc
@pytest.mark.parametrize(
    ("name", "by"),
    [("orthanc", "move"), pytest.param("orthanc", "get", marks=pytest.mark.slow), ("web", "move")],
    ids=["C-MOVE", "C-GET", "DICOMweb"],
)
def test_a_cohort_is_found_fetched_and_done(
    orthanc_command: Path,
    orthanc_dicomweb: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    by: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # so that a worker can import what is played here
    study = write_siemens(simple_head(1, shape=(8, 8, 4)), tmp_path / "study")
    single_echo = write(tmp_path / "other", *(mr_image(number) for number in range(6)))
    uid = dcmread(study[0]).StudyInstanceUID
    port = free_port()
    us = Destination("node", "127.0.0.1", port, "QSMNODE")
    with running_orthanc(orthanc_command, tmp_path / "orthanc", {"node": us}, plugins=[orthanc_dicomweb]) as orthanc:
        list(send([*study, *single_echo], orthanc.destination, SendSettings()))
        file = tmp_path / "node.toml"
        ports = {"port": port, "archive": orthanc.destination.port, "url": orthanc.url}
        file.write_text(CONFIG.format(state=tmp_path / "state", by=by, **ports))
        asked = ["fetch", "--config", str(file), "--from", name, "--since", "1990-01-01"]
        if by == "get":
            asked = ["fetch", "--config", str(file), "--from", name, "--patient", "*"]
        assert main([*asked, "--dry-run"]) == 0
        told = capsys.readouterr().out
        assert f"study {uid}" in told
        daemon = Daemon(load(file), work=play)
        assert main(asked) == 0, "also while nobody serves"
        assert "2 series are to be fetched" in capsys.readouterr().out
        thread = threading.Thread(target=daemon.run)
        thread.start()
        try:
            wait_until(
                lambda: [job.state for job in daemon.store.jobs()] == [State.RECONSTRUCTED], "what came was made", 60
            )
        finally:
            daemon.stop()
            thread.join(60)
        assert not thread.is_alive()
        held = {dcmread(path).SOPInstanceUID for path in (tmp_path / "state" / "images").rglob("*.dcm")}
        assert held == {dcmread(path).SOPInstanceUID for path in study}, "the single echo was left where it was"
        assert main([*asked[:3], "--list"]) == 0
        told = capsys.readouterr().out
        assert "0 found, 0 fetched, 2 done" in told
        assert main([*asked[:3], "--list", "done", "--json"]) == 0
        assert len(json.loads(capsys.readouterr().out)) == 2
        assert main(asked) == 0
        assert "0 series are to be fetched" in capsys.readouterr().out, "it is known already"


@pytest.mark.orthanc
@pytest.mark.slow
@pytest.mark.parametrize("name", ["orthanc", "web"])
def test_a_node_that_is_killed_while_it_fetches_goes_on_with_what_is_left(
    orthanc_command: Path, orthanc_dicomweb: Path, tmp_path: Path, name: str
) -> None:
    images = []
    for seed in range(1, 6):
        head = simple_head(seed, shape=(8, 8, 4))
        images += write_siemens(replace(head, seed=seed), tmp_path / f"study{seed}")
    port = free_port()
    us = Destination("node", "127.0.0.1", port, "QSMNODE")
    with running_orthanc(orthanc_command, tmp_path / "orthanc", {"node": us}, plugins=[orthanc_dicomweb]) as orthanc:
        list(send(images, orthanc.destination, SendSettings()))
        uids = {dcmread(path).SOPInstanceUID for path in images}
        assert orthanc.count("Studies") == 5
        file = tmp_path / "node.toml"
        ports = {"port": port, "archive": orthanc.destination.port, "url": orthanc.url}
        file.write_text(CONFIG.format(state=tmp_path / "state", by="move", **ports))
        Store(_database(tmp_path, make=True)).close()
        assert main(["fetch", "--config", str(file), "--from", name, "--since", "1990-01-01"]) == 0
        kills = 0
        while counted(tmp_path, "found"):
            before = counted(tmp_path, "found")
            with serving_from(file) as process:
                wait_until(lambda left=before: counted(tmp_path, "found") < left, "one more is fetched", 60)
                process.kill()
            kills += 1
        assert kills >= 3
        store = Store(_database(tmp_path), owner=False)
        assert {fetch.state for fetch in Fetches(store).listed()} <= {"fetched", "done", "stopped"}
        held = {dcmread(path).SOPInstanceUID for path in (tmp_path / "state" / "images").rglob("*.dcm")}
        assert held == uids, "nothing is lost, and nothing came twice"
        assert not list((tmp_path / "state" / "conflicts").iterdir())


def counted(folder: Path, state: str) -> int:
    with closing(sqlite3.connect(_database(folder), timeout=30)) as connection:
        [(count,)] = connection.execute("SELECT COUNT(*) FROM fetches WHERE state = ?", [state])
    return int(count)


def _database(folder: Path, *, make: bool = False) -> Path:
    if make:
        (folder / "state").mkdir()
    return folder / "state" / "node.db"


@contextmanager
def serving_from(config: Path) -> Iterator[subprocess.Popen[bytes]]:
    with config.with_suffix(".log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dicom_node", "serve", "--config", str(config)], cwd=ROOT, stderr=log
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()
