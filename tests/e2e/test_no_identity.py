"""A study whose every identifying value is conspicuous goes through the whole node and is looked for in all it says.

Received, reconstructed, refused by an archive that quotes the patient; failed; not taken; asked for by a query: then
log (at debug, with that of the workers), metrics, health, pages, journal and notifications are searched.  Only the
audit trail may name the patient, and does, which shows that there was something to find.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from pydicom import config as pydicom_config
from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import AE, evt

from demo.archive import Archive
from demo.scanner import push
from dicom_node import notify
from dicom_node.config import Config
from dicom_node.daemon import Daemon
from dicom_node.journal import entries
from dicom_node.log import configure
from dicom_node.recipes import Recipe
from dicom_node.reconstruct import reconstruct_job
from dicom_node.states import State
from tests.dicom_node.plays import play
from tests.e2e.phantom import simple_head
from tests.peers import wait_until
from tests.simulation.siemens import write_siemens

WHO = {
    "PatientName": "Zzyzx^Quirin",
    "PatientID": "QX471199",
    "PatientBirthDate": "19031207",
    "AccessionNumber": "ACC88231",
    "StudyID": "SID77123",
    "StudyDescription": "Kopf von Zzyzx",
    "PatientAddress": "Xylophweg 9",
    "PatientComments": "kennt Quirin",
    "OtherPatientIDs": "OPI55123",
    "ReferringPhysicianName": "Vrbnik^Ona",
    "OperatorsName": "Grzbiet^Op",
    "InstitutionName": "Klinikum Xyloph",
    "SeriesDescription": "gre Zzyzx",
    "ProtocolName": "gre QX471199",
}
TOKENS = ("zzyzx", "quirin", "qx471199", "19031207", "acc88231", "sid77123", "xyloph", "opi55123", "vrbnik", "grzbiet")
GARBLED = ("EchoTime", "InstanceNumber", "ImagePositionPatient", "PixelSpacing", "ImagingFrequency")
"""Numbers in whose place a name stands: whoever reads them complains, and must not quote."""


def play_the_first(job_folder: Path, recipe: Recipe) -> Path:
    """The first job is played, the third fails as nobody foresaw; all others are what the node would do."""
    if job_folder.name == "3":
        image = json.loads((job_folder / "job.json").read_text())["instances"][0]
        raise ValueError(f"invalid value {dcmread(image).PatientName}")
    return play(job_folder, recipe) if job_folder.name == "1" else reconstruct_job(job_folder, recipe)


def a_study(folder: Path, seed: int, **changed: str) -> list[Path]:
    """Of the conspicuous patient.  changed: values that are put in place of what the scanner wrote."""
    paths = write_siemens(simple_head(seed, shape=(8, 8, 4)), folder)
    with pydicom_config.disable_value_validation():
        for path in paths:
            dataset = dcmread(path)
            for keyword, value in WHO.items():
                setattr(dataset, keyword, value)
            for keyword, value in changed.items():
                dataset[keyword]._value = value  # as the file would have it: pydicom lets no such number be set
            dataset.save_as(path)
    return paths


class QuotingArchive(Archive):
    """Turns everything down in words that name the patient (Error Comment, PS3.7 C)."""

    def _handlers(self) -> list[Any]:
        return [(evt.EVT_C_STORE, self._refuse)]

    def _refuse(self, event: evt.Event) -> Dataset:
        answer = Dataset()
        answer.Status, answer.ErrorComment = 0xA900, "Zzyzx^Quirin QX471199 is unknown here"
        return answer


@contextmanager
def webhook() -> Iterator[tuple[str, list[bytes]]]:
    got: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", got
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def query(port: int) -> int:
    entity = AE("WORKSTATION")
    model = "1.2.840.10008.5.1.4.1.2.2.1"
    entity.add_requested_context(model)
    association = entity.associate("127.0.0.1", port, ae_title="QSMNODE")
    assert association.is_established
    identifier = Dataset()
    identifier.QueryRetrieveLevel, identifier.PatientName, identifier.StudyInstanceUID = "STUDY", "Zzyzx*", ""
    found = sum(status.Status == 0xFF00 for status, _ in association.send_c_find(identifier, model))
    association.release()
    return found


@pytest.mark.slow
def test_nobody_is_named_anywhere_but_in_the_audit_trail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(notify, "GATHER", 0.2)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    said: dict[str, str] = {}
    with (
        QuotingArchive(tmp_path / "archive") as archive,
        webhook() as (hook, told),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as repository,
    ):
        repository.bind(("127.0.0.1", 0))
        config = Config.model_validate(
            {
                "node": {"state_folder": tmp_path / "state", "tick": 0.1},
                "receive": {"port": 0},
                "watch": {"port": 0},
                "group": {"quiet_time": 0.5},
                "reconstruct": {"pause": 0.0, "attempts": 1},
                "send": {"first_pause": 0.1},
                "notify": {"webhook": hook, "every": 0.2},
                "audit": {"host": "127.0.0.1", "port": repository.getsockname()[1], "protocol": "udp"},
                "log": {"style": "json", "level": "debug"},
                "peer": [
                    {"name": "mr1", "ae_title": "SCANNER", "address": "127.0.0.1"},
                    {"name": "ws", "ae_title": "WORKSTATION", "address": "127.0.0.1", "may": ["query", "retrieve"]},
                ],
                "destination": [
                    {"name": "pacs", "host": archive.host, "port": archive.port, "ae_title": archive.ae_title}
                ],
            }
        )
        configure(config.log.style, config.log.level)
        daemon = Daemon(config, work=play_the_first)
        thread = threading.Thread(target=daemon.run)
        thread.start()
        try:
            wait_until(lambda: daemon.watcher.port, "the node is watched")
            port = daemon.receiver.port

            def ended(job: int, *states: State) -> bool:
                found = daemon.store.job(job)
                return found is not None and found.state in states

            list(push(a_study(tmp_path / "one", 1), "127.0.0.1", port, "QSMNODE"))
            wait_until(lambda: ended(1, State.REFUSED), "the archive has refused the first", 60)
            list(push(a_study(tmp_path / "two", 2), "127.0.0.1", port, "QSMNODE"))
            wait_until(lambda: ended(2, State.FAILED, State.REVIEW, State.REFUSED), "the second has ended", 120)
            list(push(a_study(tmp_path / "three", 30), "127.0.0.1", port, "QSMNODE"))
            wait_until(lambda: ended(3, State.FAILED), "the third has failed", 60)
            for place, keyword in enumerate(GARBLED):
                garbled = a_study(tmp_path / keyword, 3 + place, **{keyword: "Zzyzx^Quirin"})
                list(push(garbled, "127.0.0.1", port, "QSMNODE"))
            (broken := a_study(tmp_path / "broken", 20)[0]).write_bytes(broken.read_bytes()[:-40])
            list(push([broken], "127.0.0.1", port, "QSMNODE"))
            wait_until(lambda: not daemon.store.open_studies() and not daemon.index.pending, "all is grouped", 60)
            wait_until(lambda: query(port) > 0, "the study is found", 30)
            wait_until(lambda: any(b"refused by a destination" in message for message in told), "it is notified", 30)
            page = f"http://127.0.0.1:{daemon.watcher.port}"
            jobs = [job.id for job in daemon.store.jobs()]
            paths = ["/", "/metrics", "/health", "/list/attention", "/list/done", *(f"/jobs/{job}" for job in jobs)]
            said |= {path: requests.get(page + path, timeout=30).text for path in paths}
        finally:
            daemon.stop()
            thread.join(60)
        audit = repository.recv(2**16, socket.MSG_DONTWAIT)
        while b"Quirin" not in audit:
            audit += repository.recv(2**16, socket.MSG_DONTWAIT)
        said |= {f"journal {job}": json.dumps(entries(tmp_path / "state", job)) for job in jobs}
        said["notifications"] = b"\n".join(told).decode()
    captured = capfd.readouterr()
    ends = {job.id: (job.state, job.reason) for job in daemon.store.jobs()}
    objections = {objection.reason for objection in daemon.store.objections()}
    assert ends[1][0] is State.REFUSED
    assert ends[3][1].startswith("ValueError at ")
    assert "its words are withheld" in captured.err
    assert ends[2][0] in (State.FAILED, State.REVIEW)
    assert len(objections) > 1
    said |= {"stdout": captured.out, "log": captured.err}
    assert "answered 0xA900" in said["journal 1"]
    assert "association_opened" in said["log"]
    found = [
        f"{where}: {line[:300]}"
        for where, words in said.items()
        for line in words.splitlines()
        if any(token in line.lower() for token in TOKENS)
    ]
    assert found == []
