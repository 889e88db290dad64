"""Peers on free loopback ports: a node's receiver, Orthanc, dcmtk's storescp, and sockets that misbehave."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import requests
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.presentation import build_context

from dicom_node.call import Destination
from dicom_node.checkpoint import install_checkpoint
from dicom_node.contacts import OnContact
from dicom_node.identity import VERIFICATION
from dicom_node.peers import Peers
from dicom_node.receive import Receiver, ReceiveSettings, Refused, Secure, Service, Stored
from dicom_node.spool import Spool
from tests.objects import part_10


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], Any], what: str, seconds: float = 20.0) -> None:
    """Poll until `condition` is true; fail the test, saying what did not come, after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds} s still not: {what}")
        time.sleep(0.02)


@dataclass
class Node:
    """A running receiver and what it told."""

    receiver: Receiver
    spool: Spool
    stored: list[Stored] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    released: list[str] = field(default_factory=list)

    @property
    def destination(self) -> Destination:
        return Destination("node", "127.0.0.1", self.receiver.port, "QSMNODE")


@contextlib.contextmanager
def associated(port: int, *, sop_class: str = MRImageStorage, calling: str = "SCANNER") -> Iterator[Association]:
    """A sender of ours; raw bytes of files go out as they are."""
    entity = AE(calling)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 20
    contexts = [build_context(sop_class, ExplicitVRLittleEndian), build_context(VERIFICATION)]
    association = entity.associate(
        "127.0.0.1", port, contexts=contexts, ae_title="QSMNODE", evt_handlers=[(evt.EVT_CONN_OPEN, install_checkpoint)]
    )
    assert association.is_established
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def send_bytes(association: Association, folder: Path, image: Dataset, data_set: bytes) -> Dataset:
    """Sends that data set as if it were the image's; the answer."""
    file = folder / "raw.dcm"
    file.write_bytes(part_10(image, data_set))
    return association.send_c_store(file)


@contextlib.contextmanager
def running_node(
    root: Path,
    settings: ReceiveSettings | None = None,
    *,
    peers: Peers | None = None,
    secure: Secure | None = None,
    services: Sequence[Service] = (),
    on_contact: OnContact = lambda contact: None,
    **spool_settings: int,
) -> Iterator[Node]:
    """A receiver on a free port over a spool in `root`."""
    spool = Spool(root, **spool_settings)
    stored: list[Stored] = []
    refused: list[Refused] = []
    released: list[str] = []
    receiver = Receiver(
        settings or ReceiveSettings(port=0, drain_timeout=1.0),
        spool,
        stored.append,
        refused.append,
        on_released=released.append,
        peers=peers,
        secure=secure,
        services=services,
        on_contact=on_contact,
    )
    receiver.start()
    try:
        yield Node(receiver, spool, stored, refused, released)
    finally:
        receiver.stop()


@dataclass(frozen=True)
class Orthanc:
    """A running Orthanc with an empty store."""

    destination: Destination
    url: str

    def count(self, what: str) -> int:
        """Patients, Studies, Series or Instances that it holds."""
        return int(self.get("statistics")[f"Count{what}"])

    def get(self, path: str) -> Any:
        answer = requests.get(f"{self.url}/{path}", timeout=10)
        answer.raise_for_status()
        return answer.json()

    def post(self, path: str, body: Any) -> Any:
        answer = requests.post(f"{self.url}/{path}", json=body, timeout=60)
        answer.raise_for_status()
        return answer.json()

    def post_file(self, file: Path) -> str:
        """Hands Orthanc a DICOM file; how it calls the instance."""
        answer = requests.post(f"{self.url}/instances", data=file.read_bytes(), timeout=10)
        answer.raise_for_status()
        return str(answer.json()["ID"])

    def file(self, sop_instance_uid: str) -> bytes:
        """The DICOM file of one instance."""
        lookup = requests.post(f"{self.url}/tools/lookup", data=sop_instance_uid, timeout=10)
        lookup.raise_for_status()
        (found,) = lookup.json()
        answer = requests.get(f"{self.url}/instances/{found['ID']}/file", timeout=10)
        answer.raise_for_status()
        return answer.content


@contextlib.contextmanager
def running_orthanc(
    command: Path,
    folder: Path,
    modalities: dict[str, Destination] | None = None,
    *,
    plugins: Sequence[Path] = (),
    settings: Mapping[str, Any] = MappingProxyType({}),
) -> Iterator[Orthanc]:
    """Orthanc on free ports, reachable from this machine only, its store in `folder`.  settings: Orthanc's, besides."""
    folder.mkdir(parents=True, exist_ok=True)
    dicom_port, http_port = free_port(), free_port()
    configuration = {
        "Name": "test",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "index"),
        "Plugins": [str(plugin) for plugin in plugins],
        "DicomAet": "ORTHANC",
        "DicomPort": dicom_port,
        "HttpPort": http_port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomModalities": {name: [peer.ae_title, peer.host, peer.port] for name, peer in (modalities or {}).items()},
        **settings,
    }
    file = folder / "orthanc.json"
    file.write_text(json.dumps(configuration))
    with (folder / "orthanc.log").open("wb") as log, _process([str(command), str(file)], log):
        peer = Orthanc(Destination("orthanc", "127.0.0.1", dicom_port, "ORTHANC"), f"http://127.0.0.1:{http_port}")

        def answers() -> bool:
            with contextlib.suppress(requests.ConnectionError):
                return requests.get(f"{peer.url}/system", timeout=5).ok
            return False

        wait_until(answers, "Orthanc answers", 30)
        yield peer


@contextlib.contextmanager
def running_storescp(command: Path, folder: Path, *options: str, port: int = 0) -> Iterator[Destination]:
    """dcmtk's storescp, writing into `folder`.  port: 0 takes a free one."""
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    line = [str(command), "-od", str(folder), *options, str(port)]
    with (folder.parent / f"{folder.name}.log").open("wb") as log, _process(line, log):
        wait_until(lambda: listens(port), "storescp listens")
        yield Destination("storescp", "127.0.0.1", port, "STORESCP")


@contextlib.contextmanager
def rude_peer(behave: Callable[[socket.socket], None]) -> Iterator[Destination]:
    """A TCP server that does to each connection what `behave` says, and is no DICOM peer."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        over = threading.Event()
        connections: list[socket.socket] = []

        def serve() -> None:
            while not over.is_set():
                with contextlib.suppress(TimeoutError):
                    connection, _ = server.accept()
                    connections.append(connection)
                    behave(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield Destination("rude", "127.0.0.1", int(server.getsockname()[1]), "RUDE")
        finally:
            over.set()
            thread.join()
            for connection in connections:
                connection.close()


@contextlib.contextmanager
def _process(command: list[str], log: Any) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def listens(port: int) -> bool:
    """Whether somebody listens on a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
