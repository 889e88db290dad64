"""Secure transport, both ways: who is let in by certificate, what is refused, and that silence harms nobody."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import structlog

from dicom_node.call import Destination, SendSettings, echo
from dicom_node.errors import PeerFailure
from dicom_node.peers import Peer, Peers, Right
from dicom_node.receive import ReceiveSettings, Secure
from dicom_node.send import send
from dicom_node.tls import Files, Identity, UnusableCertificate
from tests.certificates import Authority
from tests.objects import mr_image, write
from tests.peers import Node, free_port, listens, running_node, wait_until

SETTINGS = ReceiveSettings(port=0, drain_timeout=1.0, pdu_timeout=2.0)
SCANNER = Peer("scanner", "SCANNER", "127.0.0.1", frozenset({Right.STORE}), certificate="scanner.example")
PLAIN = Peer("plain", "PLAIN", "127.0.0.1", frozenset({Right.STORE}))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("tls") / "hospital")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("tls") / "elsewhere")


@pytest.fixture
def node(tmp_path: Path, authority: Authority) -> Iterator[Node]:
    secure = Secure(Identity(authority.sign("node.example")), 0)
    with running_node(tmp_path / "spool", SETTINGS, peers=Peers([SCANNER, PLAIN]), secure=secure) as running:
        yield running


def settings(files: Files | None, ae_title: str = "SCANNER") -> SendSettings:
    return SendSettings(ae_title, 5, 5, 5, 5, tls=Identity(files) if files else None)


def destination(node: Node, certificate: str = "node.example") -> Destination:
    return Destination("node", "127.0.0.1", node.receiver.secure_port, "QSMNODE", certificate)


def test_images_come_over_tls_both_sides_of_which_are_ours(node: Node, authority: Authority, tmp_path: Path) -> None:
    files = write(tmp_path / "scan", mr_image(1), mr_image(2, rows=300, columns=300))
    deliveries = send(files, destination(node), settings(authority.sign("scanner.example")))
    assert [delivery.outcome for delivery in deliveries] == ["stored", "stored"]
    assert len(list(node.spool.images())) == 2


def test_a_certificate_is_bound_to_its_peer(node: Node, authority: Authority) -> None:
    with pytest.raises(PeerFailure, match=r"rejected.*[Cc]alling AE title"):
        echo(destination(node), settings(authority.sign("other.example")))
    with pytest.raises(PeerFailure, match=r"rejected.*[Cc]alling AE title"):
        echo(destination(node), settings(authority.sign("scanner.example"), "PLAIN"))
    plain = Destination("node", "127.0.0.1", node.receiver.port, "QSMNODE")
    with pytest.raises(PeerFailure, match=r"rejected.*[Cc]alling AE title"):
        echo(plain, settings(None))
    echo(plain, settings(None, "PLAIN"))


def test_neither_side_believes_a_strange_authority(node: Node, authority: Authority, stranger: Authority) -> None:
    theirs, ours = stranger.sign("scanner.example"), authority.sign("scanner.example")
    with structlog.testing.capture_logs() as logged:
        with pytest.raises(PeerFailure):
            echo(destination(node), settings(replace(theirs, authorities=ours.authorities)))
        # In TLS 1.3 a caller is through with the hand-shake before its certificate is looked at.
        wait_until(lambda: any(line["event"] == "tls_failed" for line in logged), "told of")
    with pytest.raises(PeerFailure, match="took no TLS connection: self-signed certificate in certificate chain; "):
        echo(destination(node), settings(replace(ours, authorities=theirs.authorities)))


def test_a_server_with_another_name_is_not_the_one_we_call(node: Node, authority: Authority) -> None:
    with pytest.raises(PeerFailure, match=r"took no TLS connection: Hostname mismatch.*archive\.example"):
        echo(destination(node, "archive.example"), settings(authority.sign("scanner.example")))


def test_without_a_certificate_of_ours_nobody_is_called_over_tls(node: Node) -> None:
    with pytest.raises(PeerFailure, match=r"this node has no certificate; see \[tls\]"):
        echo(destination(node), settings(None))


def test_silence_and_noise_on_the_port_keep_nobody_out(node: Node, authority: Authority) -> None:
    """Stock pynetdicom shakes hands on the thread that accepts: one silent client would block the port for all."""
    port = node.receiver.secure_port
    silent = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(8)]
    noisy = socket.create_connection(("127.0.0.1", port), timeout=10)
    noisy.sendall(b"GET / HTTP/1.1\r\n\r\n")
    echo(destination(node), settings(authority.sign("scanner.example")))
    for connection in (*silent, noisy):
        # an alert may come first; after the deadline the end
        with contextlib.suppress(ConnectionResetError):
            while connection.recv(100):
                pass
        connection.close()
    echo(destination(node), settings(authority.sign("scanner.example")))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_nothing_older_than_tls_1_2_is_spoken(node: Node, authority: Authority, version: ssl.TLSVersion) -> None:
    files = authority.sign("scanner.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    context.load_cert_chain(files.certificate, files.key)
    context.load_verify_locations(files.authorities)
    with (
        socket.create_connection(("127.0.0.1", node.receiver.secure_port), timeout=5) as connection,
        pytest.raises(ssl.SSLError),
    ):
        context.wrap_socket(connection, server_hostname="node.example")


def test_a_renewed_certificate_is_used_without_a_restart(tmp_path: Path, authority: Authority) -> None:
    identity = Identity(authority.sign("renewed.example"))

    def serial(connection: ssl.SSLSocket) -> object:
        shown = connection.getpeercert()
        assert shown
        return shown["serialNumber"]

    with running_node(tmp_path / "spool", SETTINGS, peers=Peers([SCANNER]), secure=Secure(identity, 0)) as node:

        def shown() -> object:
            client = Identity(authority.sign("scanner.example")).client()
            with (
                socket.create_connection(("127.0.0.1", node.receiver.secure_port), timeout=5) as plain,
                client.wrap_socket(plain, server_hostname="renewed.example") as connection,
            ):
                return serial(connection)

        before = shown()
        assert shown() == before
        renewed = authority.sign("renewed.example")
        after = shown()
        assert after != before
        key = renewed.key.read_bytes()
        renewed.key.write_bytes(key[: len(key) // 2])
        with structlog.testing.capture_logs() as logged:
            assert shown() == after, "a half-written key ends nothing"
        assert any(line["event"] == "certificates_not_reloaded" for line in logged)
        renewed.key.write_bytes(key)
        assert shown() == after


def test_files_that_cannot_be_used_are_named(tmp_path: Path, authority: Authority) -> None:
    files = authority.sign("node.example")
    with pytest.raises(UnusableCertificate, match=r"none\.key cannot be read: No such file"):
        Identity(replace(files, key=tmp_path / "none.key"))
    with pytest.raises(UnusableCertificate, match="a key of that certificate"):
        Identity(replace(files, key=authority.sign("other.example").key))


@pytest.mark.dcmtk
def test_dcmtk_with_tls(node: Node, authority: Authority, storescu_command: Path, tmp_path: Path) -> None:
    files = authority.sign("scanner.example")

    def dcmtk(command: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        line: list[object] = [storescu_command.with_name(command), "-aet", "SCANNER", "-aec", "QSMNODE", *arguments]
        return subprocess.run(list(map(str, line)), capture_output=True, text=True, timeout=60)

    tls = ["+tls", files.key, files.certificate, "+cf", files.authorities]
    address = ["127.0.0.1", node.receiver.secure_port]
    answer = dcmtk("echoscu", *tls, *address)
    assert answer.returncode == 0, answer.stderr
    scan = write(tmp_path / "scan", *(mr_image(number) for number in range(3)))
    answer = dcmtk("storescu", *tls, *address, *scan)
    assert answer.returncode == 0, answer.stderr
    assert len(node.stored) == 3
    assert dcmtk("echoscu", "+tla", "-ic", *address).returncode != 0, "no certificate, no association"
    assert dcmtk("echoscu", *address).returncode != 0, "nothing but TLS is spoken there"


@pytest.mark.dcmtk
def test_we_send_to_dcmtk_over_tls(authority: Authority, storescu_command: Path, tmp_path: Path) -> None:
    theirs, port = authority.sign("archive.example"), free_port()
    (tmp_path / "in").mkdir()
    line: list[object] = [storescu_command.with_name("storescp"), "-od", tmp_path / "in", "+tls"]
    line += [theirs.key, theirs.certificate, "+cf", theirs.authorities, port]
    with subprocess.Popen(list(map(str, line)), stderr=subprocess.DEVNULL) as archive:
        try:
            target = Destination("archive", "127.0.0.1", port, "ARCHIVE", "archive.example")
            wait_until(lambda: listens(port), "storescp listens")
            (delivery,) = send(
                write(tmp_path / "scan", mr_image()), target, settings(authority.sign("node.example"), "QSMNODE")
            )
            assert delivery.outcome == "stored"
        finally:
            archive.terminate()
    assert len(list((tmp_path / "in").iterdir())) == 1
