"""Real peers over TLS, both sides with certificates: Orthanc as archive, also by C-GET, workstation and sender; dcmtk's
findscu and getscu.

dcmtk's dcmsend, getscu and movescu know no TLS: getscu speaks it through a tunnel, as sites have it, and Orthanc moves.
"""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from pydicom import dcmread

from demo.scanner import push
from dicom_node import exchange
from dicom_node.config import Config
from dicom_node.contacts import Contact, Event
from dicom_node.daemon import Daemon
from dicom_node.seek import Wanted, seek
from dicom_node.states import State
from dicom_node.tls import Identity
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
        {"name": "dcmtk", "ae_title": "DCMTK", "address": "127.0.0.1", "may": ["query", "retrieve"]},
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
            "fetch": {"by": "get", "studies_per_hour": 3600},
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


def test_orthanc_findscu_and_getscu_over_tls(
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
    _getscu_gets(storescu_command, authority, ports[1], uid, study, tmp_path / "got")

    (file,) = write(tmp_path / "other", mr_image(77))
    stored = orthanc.post_file(file)
    assert orthanc.post("modalities/node/store", [stored])["FailedInstancesCount"] == 0
    held = {str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in daemon._spool.images()}
    assert str(mr_image(77).SOPInstanceUID) in held


@pytest.mark.slow
def test_a_series_is_fetched_by_c_get_over_tls(
    daemon: Daemon, orthanc: Orthanc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is asked for and what comes go over one association that the node has requested."""
    study = write_siemens(simple_head(2, shape=(8, 8, 4)), tmp_path / "study")
    for path in study:
        orthanc.post_file(path)
    brought: list[Contact] = []
    monkeypatch.setattr(daemon._witness, "contact", brought.append)
    archive = exchange.sources(daemon._config)["orthanc"]
    wanted = Wanted(study=str(dcmread(study[0]).StudyInstanceUID))
    assert daemon._fetches.add("orthanc", seek(wanted, archive, daemon._calling), daemon._clock()) == 2
    wait_until(lambda: [job.state for job in daemon.store.jobs()] == [State.ARCHIVED], "fetched, made and stored", 60)
    assert {fetch.state for fetch in daemon._fetches.listed()} == {"done"}
    assert _uids(daemon._spool.images()) == _uids(study)
    fetched = [contact for contact in brought if contact.event is Event.FETCHED]
    assert sum(contact.stored for contact in fetched) == len(study)
    assert {contact.calling_ae_title for contact in fetched} == {"ORTHANC"}


def _uids(files: Iterable[Path]) -> set[str]:
    return {str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in files}


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


def _getscu_gets(
    storescu_command: Path, authority: Authority, port: int, study: str, held: list[Path], folder: Path
) -> None:
    folder.mkdir()
    with tunnel(Identity(authority.sign("dcmtk.example")), port) as entrance:
        line = [str(storescu_command.with_name("getscu")), "-v", "-S", "-aet", "DCMTK", "-aec", "QSMNODE"]
        line += ["-od", str(folder), "127.0.0.1", str(entrance), "-k", "0008,0052=STUDY", "-k", f"0020,000d={study}"]
        got = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert got.returncode == 0, got.stderr
    assert _uids(folder.iterdir()) == _uids(held)


@contextmanager
def tunnel(identity: Identity, port: int) -> Iterator[int]:
    """A plain port whose callers are passed on over TLS, with a certificate, as stunnel does it."""

    def pass_on(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):  # the other way has ended
            while some := source.recv(2**16):
                target.sendall(some)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def serve() -> None:
        with suppress(OSError):  # it is closed
            while True:
                plain, _ = server.accept()
                inside = socket.create_connection(("127.0.0.1", port))
                secure = identity.client().wrap_socket(inside, server_hostname="node.example")
                for ends in ((plain, secure), (secure, plain)):
                    threading.Thread(target=pass_on, args=ends, daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, daemon=True).start()
        yield int(server.getsockname()[1])
        server.shutdown(socket.SHUT_RDWR)
