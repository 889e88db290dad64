"""Real peers over TLS, both sides with certificates: Orthanc as archive, workstation and sender; dcmtk's findscu.

dcmtk's dcmsend, getscu and movescu know no TLS; Orthanc retrieves in their place.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread

from demo.scanner import push
from dicom_node.config import Config
from dicom_node.daemon import Daemon
from dicom_node.states import State
from tests.certificates import Authority
from tests.dicom_node.plays import play
from tests.e2e.phantom import simple_head
from tests.e2e.serving import ROOT
from tests.objects import mr_image, write
from tests.peers import Orthanc, free_port, running_orthanc, wait_until
from tests.simulation.siemens import write_siemens

pytestmark = [pytest.mark.orthanc, pytest.mark.dcmtk]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("tls") / "hospital")


@pytest.fixture
def ports() -> tuple[int, int]:
    """Of the node, plain and TLS."""
    return free_port(), free_port()


@pytest.fixture
def orthanc(orthanc_command: Path, authority: Authority, ports: tuple[int, int], tmp_path: Path) -> Iterator[Orthanc]:
    files = authority.sign("archive.example")
    node = {"AET": "QSMNODE", "Host": "127.0.0.1", "Port": ports[1], "UseDicomTls": True}
    settings = {
        "DicomTlsEnabled": True,
        "DicomTlsCertificate": str(files.certificate),
        "DicomTlsPrivateKey": str(files.key),
        "DicomTlsTrustedCertificates": str(files.authorities),
        "DicomModalities": {"node": node},
    }
    with running_orthanc(orthanc_command, tmp_path / "orthanc", settings=settings) as peer:
        yield peer


@pytest.fixture
def daemon(
    orthanc: Orthanc, authority: Authority, ports: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Daemon]:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # so that a worker can import what is played here
    ours = authority.sign("node.example")
    archive = {"host": "127.0.0.1", "port": orthanc.destination.port, "ae_title": "ORTHANC"}
    everything = ["store", "query", "retrieve", "commit"]
    peers = [
        {"name": "orthanc", "ae_title": "ORTHANC", "address": "127.0.0.1", "port": archive["port"], "may": everything},
        {"name": "dcmtk", "ae_title": "DCMTK", "address": "127.0.0.1", "may": ["query"]},
    ]
    certificates = ["archive.example", "dcmtk.example"]
    config = Config.model_validate(
        {
            "node": {"state_folder": tmp_path / "state", "tick": 0.1},
            "receive": {"port": ports[0]},
            "tls": {
                "certificate": str(ours.certificate),
                "key": str(ours.key),
                "authorities": str(ours.authorities),
                "port": ports[1],
            },
            "watch": {"host": ""},
            "group": {"quiet_time": 0.5},
            "destination": [{"name": "pacs", **archive, "certificate": "archive.example", "commitment": True}],
            "peer": [
                *(peer | {"certificate": name} for peer, name in zip(peers, certificates, strict=True)),
                {"name": "scanner", "ae_title": "SCANNER", "address": "127.0.0.1", "may": ["store"]},
            ],
        }
    )
    daemon = Daemon(config, work=play)
    thread = threading.Thread(target=daemon.run)
    thread.start()
    try:
        wait_until(lambda: daemon.receiver._listeners, "the receiver listens", 60)
        yield daemon
    finally:
        daemon.stop()
        thread.join(60)


def test_orthanc_and_findscu_over_tls(
    daemon: Daemon,
    orthanc: Orthanc,
    ports: tuple[int, int],
    authority: Authority,
    storescu_command: Path,
    tmp_path: Path,
) -> None:
    """Orthanc stores, commits, queries, retrieves and sends."""
    study = write_siemens(simple_head(1, shape=(8, 8, 4)), tmp_path / "study")
    uid = str(dcmread(study[0]).StudyInstanceUID)
    assert {d.status for d in push(study, "127.0.0.1", ports[0], "QSMNODE")} == {0}
    wait_until(lambda: [job.state for job in daemon.store.jobs()] == [State.ARCHIVED], "stored and committed", 60)
    assert orthanc.count("Instances") == 2

    orthanc.post("modalities/node/echo", {})
    asked = {"Level": "Study", "Query": {"StudyInstanceUID": uid}}
    wait_until(lambda: len(_answers(orthanc, asked)[1]) == 1, "the study is found", 30)
    query, _ = _answers(orthanc, asked)
    orthanc.post(f"queries/{query}/retrieve", {"TargetAet": "ORTHANC", "Synchronous": True})
    wait_until(lambda: orthanc.count("Instances") == 2 + len(study), "the sources were moved to it", 30)

    _findscu_finds(storescu_command, authority, ports[1], uid)

    (file,) = write(tmp_path / "other", mr_image(77))
    stored = orthanc.post_file(file)
    assert orthanc.post("modalities/node/store", [stored])["FailedInstancesCount"] == 0
    held = {str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in daemon._spool.images()}
    assert str(mr_image(77).SOPInstanceUID) in held


def _answers(orthanc: Orthanc, asked: dict[str, object]) -> tuple[str, list[str]]:
    query = orthanc.post("modalities/node/query", asked)["ID"]
    return query, orthanc.get(f"queries/{query}/answers")


def _findscu_finds(storescu_command: Path, authority: Authority, port: int, study: str) -> None:
    files = authority.sign("dcmtk.example")
    tls = ["+tls", str(files.key), str(files.certificate), "+cf", str(files.authorities)]

    def find(*security: str) -> subprocess.CompletedProcess[str]:
        line = [str(storescu_command.with_name("findscu")), "-v", "-S", *security, "-aet", "DCMTK", "-aec", "QSMNODE"]
        line += ["127.0.0.1", str(port), "-k", "0008,0052=STUDY", "-k", f"0020,000d={study}"]
        return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)

    found = find(*tls)
    assert "Find Response: 1 (Pending)" in found.stdout + found.stderr
    assert find().returncode != 0, "nothing but TLS is spoken there"
    assert find("+tla", "-ic").returncode != 0, "no certificate, no association"
