"""Orthanc as the archive that commits itself: sent is archived when it says so, on an association of its own."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import requests

from demo.scanner import push
from dicom_node.call import Destination
from dicom_node.config import Config
from dicom_node.daemon import Daemon
from dicom_node.states import State
from tests.dicom_node.plays import play
from tests.e2e.phantom import simple_head
from tests.peers import free_port, running_orthanc, wait_until
from tests.simulation.siemens import write_siemens

ROOT = Path(__file__).parents[2]


@pytest.mark.orthanc
def test_orthanc_commits_itself_and_is_sent_again_what_it_lost(
    orthanc_command: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # so that a worker can import what is played here
    files = write_siemens(simple_head(1, shape=(8, 8, 4)), tmp_path / "study")
    port = free_port()
    us = Destination("node", "127.0.0.1", port, "QSMNODE")
    with running_orthanc(orthanc_command, tmp_path / "orthanc", {"node": us}) as orthanc:
        config = Config.model_validate(
            {
                "node": {"state_folder": tmp_path / "state", "tick": 0.1},
                "receive": {"port": port},
                "group": {"quiet_time": 0.5},
                "send": {"first_pause": 1.0},
                "destination": [
                    {
                        "name": "pacs",
                        "host": orthanc.destination.host,
                        "port": orthanc.destination.port,
                        "ae_title": orthanc.destination.ae_title,
                        "commitment": True,
                    }
                ],
            }
        )
        daemon = Daemon(config, work=play)
        lost: list[str] = []

        def lose_one_before_it_is_asked(*_: object) -> bool:
            if not lost:
                [first, *_rest] = orthanc.get("instances")
                requests.delete(f"{orthanc.url}/instances/{first}", timeout=10).raise_for_status()
                lost.append(first)
            return True

        begin = daemon._commitments.begin
        monkeypatch.setattr(daemon._commitments, "begin", lambda rows: lose_one_before_it_is_asked() and begin(rows))
        thread = threading.Thread(target=daemon.run)
        thread.start()
        try:
            wait_until(lambda: daemon.receiver._listeners, "the receiver listens")
            assert {answer.status for answer in push(files, "127.0.0.1", port, "QSMNODE")} == {0}
            wait_until(lambda: [job.state for job in daemon.store.jobs()] == [State.ARCHIVED], "archived", 60)
        finally:
            daemon.stop()
            thread.join(60)
        assert lost, "Orthanc lost nothing: the test proved nothing"
        assert orthanc.count("Instances") == 2
        states = [move.target for move in daemon.store.journal()]
        assert states[states.index(State.SENT) :] == [State.SENT, State.SENDING, State.SENT, State.ARCHIVED]
