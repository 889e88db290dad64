"""STOW-RS: to a server that answers as the test wants, and to Orthanc's."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from ssl import CERT_REQUIRED, TLSVersion

import pytest
from pydicom import dcmread

from dicom_node.call import SendSettings
from dicom_node.deliver import Courier
from dicom_node.errors import PeerFailure, UnreadableObject
from dicom_node.qido import ask
from dicom_node.send import MOST_SUSPECTED
from dicom_node.settings import Send
from dicom_node.states import State
from dicom_node.stow import stow
from dicom_node.tls import Identity
from dicom_node.web import WebService
from tests import web
from tests.certificates import Authority
from tests.dicom_node.test_deliver import Line
from tests.objects import mr_image, write
from tests.peers import free_port, running_orthanc
from tests.web import Answer

BREAKS_OFF = 0
"""In place of a status."""
SETTINGS = SendSettings(connection_timeout=5, response_timeout=5)


class Server:
    """Answers each POST with what `answer` says: (code, body)."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, object]] = []
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.reason: str | None = None
        self.withheld = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.got.append(({key.lower(): value for key, value in self.headers.items()}, body))
                code, told = outer.answers.pop(0) if outer.answers else (200, {})
                if code == BREAKS_OFF:
                    self.close_connection = True
                    return
                sent = told if isinstance(told, bytes) else json.dumps(told).encode()
                self.send_response(code, outer.reason)
                self.send_header("Content-Length", str(len(sent) + outer.withheld))
                self.end_headers()
                self.wfile.write(sent)
                self.close_connection = bool(outer.withheld)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def destination(self) -> WebService:
        return WebService("web", f"http://127.0.0.1:{self.http.server_port}/dicom-web/")


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    thread = threading.Thread(target=server.http.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        server.http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(Server()) as running:
        yield running


def referenced(uid: str) -> dict[str, object]:
    return {"00081199": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": [uid]}}]}}


def failed(uid: str, reason: int) -> dict[str, object]:
    item = {"00081155": {"vr": "UI", "Value": [uid]}, "00081197": {"vr": "US", "Value": [reason]}}
    return {"00081198": {"vr": "SQ", "Value": [item]}}


def test_the_bytes_of_a_file_arrive_in_one_part(server: Server, tmp_path: Path) -> None:
    files = write(tmp_path, mr_image(1), mr_image(2, rows=300, columns=300))
    assert [delivery.outcome for delivery in stow(files, server.destination, SETTINGS)] == ["stored", "stored"]
    for file, (headers, body) in zip(files, server.got, strict=True):
        kind, _, boundary = headers["content-type"].rpartition("; boundary=")
        assert kind == 'multipart/related; type="application/dicom"'
        head, content = body.split(b"\r\n\r\n", 1)
        assert head == f"--{boundary}\r\nContent-Type: application/dicom".encode()
        assert content == file.read_bytes() + f"\r\n--{boundary}--\r\n".encode()


UID = mr_image(1).SOPInstanceUID


@pytest.mark.parametrize(
    ("code", "body", "outcome", "status"),
    [
        (200, {}, "stored", 0x0000),
        (200, referenced(UID), "stored", 0x0000),
        (202, {**referenced(UID), **failed("1.2.3", 0xA700)}, "stored", 0x0000),
        (202, failed(UID, 0xA700), "retry", 0xA700),
        (409, failed(UID, 0x0122), "refused", 0x0122),
        (409, failed(UID, 0x0110), "retry", 0x0110),
        (202, {}, "retry", 0x0110),
        (409, b"<html>", "retry", 0x0110),
        (409, b"[]", "retry", 0x0110),
        (200, b"[" * 100_000, "retry", 0x0110),
        (400, b"", "refused", 0xC000),
        (415, b"", "refused", 0x0122),
        (500, b"", "retry", 0x0110),
        (BREAKS_OFF, b"", "retry", None),
    ],
)
def test_what_an_answer_means(
    server: Server, tmp_path: Path, code: int, body: object, outcome: str, status: int | None
) -> None:
    server.answers = [(code, body)]
    [delivery] = stow(write(tmp_path, mr_image(1)), server.destination, SETTINGS)
    assert (delivery.outcome, delivery.status) == (outcome, status)


def test_an_answer_that_comes_compressed_is_read(tmp_path: Path) -> None:
    answer = Answer(409, gzip.compress(json.dumps(failed(UID, 0x0122)).encode()), {"Content-Encoding": "gzip"})
    with web.serving(lambda asked: answer) as served:
        [delivery] = stow(write(tmp_path, mr_image(1)), WebService("web", served.url), SETTINGS)
    assert (delivery.outcome, delivery.status) == ("refused", 0x0122)


@pytest.mark.parametrize(
    ("code", "why"),
    [(401, "credentials"), (403, "may we"), (404, "url right"), (307, "again later"), (503, "again later")],
)
def test_what_stops_all_is_the_peer_s_failure_and_the_answered_stay_answered(
    server: Server, tmp_path: Path, code: int, why: str
) -> None:
    server.answers = [(200, {}), (code, b"")]
    deliveries = stow(write(tmp_path, mr_image(1), mr_image(2)), server.destination, SETTINGS)
    assert next(deliveries).outcome == "stored"
    with pytest.raises(PeerFailure, match=why):
        next(deliveries)


@pytest.mark.parametrize("code", [500, BREAKS_OFF])
def test_an_instance_that_the_peer_stumbles_over_keeps_no_other(server: Server, tmp_path: Path, code: int) -> None:
    server.answers = [(code, b""), (200, {}), (code, b""), (200, {})]
    files = write(tmp_path, *(mr_image(number) for number in range(4)))
    outcomes = [delivery.outcome for delivery in stow(files, server.destination, SETTINGS)]
    assert outcomes == ["retry", "stored", "retry", "stored"]


def test_who_breaks_off_at_one_after_the_other_is_left_alone_and_none_of_them_is_blamed(
    server: Server, tmp_path: Path
) -> None:
    server.answers = [(200, {}), *[(BREAKS_OFF, b"")] * 6]
    deliveries = stow(write(tmp_path, *(mr_image(n) for n in range(7))), server.destination, SETTINGS)
    assert next(deliveries).outcome == "stored"
    with pytest.raises(PeerFailure, match="broke off"):
        next(deliveries)
    assert len(server.got) == 2 + MOST_SUSPECTED


def test_who_breaks_off_at_a_few_and_answers_then_has_trouble_with_those(server: Server, tmp_path: Path) -> None:
    server.answers = [(200, {}), *[(BREAKS_OFF, b"")] * MOST_SUSPECTED]
    files = write(tmp_path, *(mr_image(n) for n in range(1 + MOST_SUSPECTED)))
    deliveries = list(stow(files, server.destination, SETTINGS))
    assert [delivery.path for delivery in deliveries] == files
    assert [delivery.broke_off for delivery in deliveries] == [False, *[True] * MOST_SUSPECTED]


def test_half_an_answer_is_none(server: Server, tmp_path: Path) -> None:
    server.answers, server.withheld = [(200, b"")], 10
    [delivery] = stow(write(tmp_path, mr_image(1)), server.destination, SETTINGS)
    assert (delivery.outcome, delivery.status, delivery.broke_off) == ("retry", None, True)


def test_words_of_the_peer_are_kept_from_the_log(server: Server, tmp_path: Path) -> None:
    server.answers, server.reason = [(503, b"")], "no room for Doe"
    with pytest.raises(PeerFailure, match=r"HTTP 503; it is asked again later$"):
        list(stow(write(tmp_path, mr_image(1)), server.destination, SETTINGS))


def test_nobody_there_and_no_file(tmp_path: Path) -> None:
    gone = WebService("web", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(PeerFailure, match="cannot be reached"):
        list(stow(write(tmp_path, mr_image(1)), gone, SETTINGS))
    (tmp_path / "none.dcm").write_bytes(b"no DICOM")
    with pytest.raises(UnreadableObject, match=r"none\.dcm"):
        list(stow([tmp_path / "none.dcm"], gone, SETTINGS))


def test_credentials_come_from_a_file_that_may_change(server: Server, tmp_path: Path) -> None:
    files, secret = write(tmp_path, mr_image(1)), tmp_path / "secret"
    token = WebService("web", server.destination.url, secret_file=str(secret))
    user = WebService("web", server.destination.url, user="node", secret_file=str(secret))
    with pytest.raises(PeerFailure, match="secret of web cannot be read"):
        list(stow(files, token, SETTINGS))
    for content in ("", "two words", "tökén"):
        secret.write_text(content, encoding="utf-8")
        with pytest.raises(PeerFailure, match="holds no bearer token"):
            list(stow(files, token, SETTINGS))
    for content, destination in (("one\n", token), ("two\n", token), ("Pässword", user)):
        secret.write_text(content, encoding="utf-8")
        list(stow(files, destination, SETTINGS))
    assert [headers["authorization"] for headers, _ in server.got] == [
        "Bearer one",
        "Bearer two",
        "Basic bm9kZTpQw6Rzc3dvcmQ=",
    ]


def test_both_sides_show_a_certificate(tmp_path: Path) -> None:
    authority = Authority.make(tmp_path / "hospital")
    theirs = Identity(authority.sign("localhost")).server()
    assert theirs.verify_mode is CERT_REQUIRED
    server = Server()
    server.http.socket = theirs.wrap_socket(server.http.socket, server_side=True)
    destination = WebService("web", f"https://localhost:{server.http.server_port}")
    files = write(tmp_path, mr_image(1))
    with serving(server):
        ours = SendSettings(tls=Identity(authority.sign("node.example")))
        assert [delivery.outcome for delivery in stow(files, destination, ours)] == ["stored"]
        stranger = SendSettings(tls=Identity(Authority.make(tmp_path / "elsewhere").sign("node.example")))
        with pytest.raises(PeerFailure, match="certificate verify failed"):
            list(stow(files, destination, stranger))


def test_no_suite_that_bcp_195_advises_against_is_spoken(tmp_path: Path) -> None:
    authority = Authority.make(tmp_path / "hospital")
    theirs = Identity(authority.sign("localhost")).server()
    ours = SendSettings(tls=Identity(authority.sign("node.example")))
    theirs.set_ciphers("ECDHE-RSA-AES256-SHA384:ECDHE-ECDSA-AES256-SHA384")
    theirs.maximum_version = TLSVersion.TLSv1_2
    server = Server()
    server.http.socket = theirs.wrap_socket(server.http.socket, server_side=True)
    destination = WebService("web", f"https://localhost:{server.http.server_port}")
    with serving(server), pytest.raises(PeerFailure, match=r"(?i)handshake"):
        list(stow(write(tmp_path, mr_image(1)), destination, ours))


def test_a_courier_brings_what_is_due_and_what_stopped_it_later(server: Server, tmp_path: Path) -> None:
    line = Line(tmp_path, ["web"])

    def round_() -> None:
        web, pauses = server.destination, Send(first_pause=5)
        Courier(line.store, line.outbox, web, pauses, SETTINGS, stow, line.jobs, line.clock, lambda: False)()

    server.answers = [(200, {}), (503, b"")]
    round_()
    assert line.outcomes() == ["stored", "pending", "pending"]
    line.clock.now += 5
    round_()
    assert line.state is State.SENT
    assert len(server.got) == 4, "what was stored is not sent again"


@pytest.mark.orthanc
def test_orthanc_stores_what_it_is_sent(orthanc_command: Path, orthanc_dicomweb: Path, tmp_path: Path) -> None:
    images = [mr_image(number) for number in (1, 2)]
    files = write(tmp_path / "out", *images)
    with running_orthanc(orthanc_command, tmp_path / "orthanc", plugins=[orthanc_dicomweb]) as orthanc:
        destination = WebService("orthanc", f"{orthanc.url}/dicom-web")
        ask(destination, SETTINGS)
        with pytest.raises(PeerFailure, match="HTTP 404"):
            ask(WebService("orthanc", f"{orthanc.url}/elsewhere"), SETTINGS)
        for _ in range(2):
            deliveries = list(stow(files, destination, SETTINGS))
            assert [delivery.outcome for delivery in deliveries] == ["stored", "stored"]
            assert orthanc.count("Instances") == 2
        (tmp_path / "held.dcm").write_bytes(orthanc.file(images[0].SOPInstanceUID))
        assert dcmread(tmp_path / "held.dcm").PixelData == images[0].PixelData
