"""Orthanc as the archive of a finished cohort: found by C-FIND, fetched by C-MOVE or C-GET, processed."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from pydicom import dcmread

from dicom_node.call import Destination, SendSettings
from dicom_node.commands import main
from dicom_node.config import load
from dicom_node.daemon import Daemon
from dicom_node.send import send
from dicom_node.states import State
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
"""


@pytest.mark.orthanc
@pytest.mark.parametrize("by", ["move", pytest.param("get", marks=pytest.mark.slow)])
def test_a_cohort_is_found_fetched_and_done(
    orthanc_command: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # so that a worker can import what is played here
    study = write_siemens(simple_head(1, shape=(8, 8, 4)), tmp_path / "study")
    single_echo = write(tmp_path / "other", *(mr_image(number) for number in range(6)))
    uid = dcmread(study[0]).StudyInstanceUID
    port = free_port()
    us = Destination("node", "127.0.0.1", port, "QSMNODE")
    with running_orthanc(orthanc_command, tmp_path / "orthanc", {"node": us}) as orthanc:
        list(send([*study, *single_echo], orthanc.destination, SendSettings()))
        file = tmp_path / "node.toml"
        file.write_text(CONFIG.format(state=tmp_path / "state", port=port, by=by, archive=orthanc.destination.port))
        asked = ["fetch", "--config", str(file), "--from", "orthanc", "--since", "1990-01-01"]
        if by == "get":
            asked = ["fetch", "--config", str(file), "--from", "orthanc", "--patient", "*"]
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
        assert "2 done" in told
        assert "0 found, 0 fetched" in told
        assert main(asked) == 0
        assert "0 series are to be fetched" in capsys.readouterr().out, "it is known already"
