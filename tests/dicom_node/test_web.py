"""Who we are for a DICOMweb service: tokens by client credentials, certificates of both sides, and what may be told."""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from ssl import CERT_NONE
from typing import Any
from urllib.parse import parse_qs

import pytest

from dicom_node.call import SendSettings
from dicom_node.errors import PeerFailure, Unreachable
from dicom_node.qido import ask
from dicom_node.seek import Wanted, seek
from dicom_node.stow import stow
from dicom_node.tls import Identity
from dicom_node.token import MARGIN, Token
from dicom_node.web import WebService
from tests.certificates import Authority
from tests.dicom_node.making import Clock
from tests.objects import mr_image, write
from tests.peers import free_port, rude_peer
from tests.web import Answer, Asked, serving

SETTINGS = SendSettings(connection_timeout=5, response_timeout=5)


class Issuer:
    """A token server: tokens T1, T2, … of which only the last is taken by the service beside it."""

    def __init__(self, lasts: int | None = 3600) -> None:
        self.lasts = lasts
        self.secret = "s:ecret"
        self.issued = 0

    def issue(self, asked: Asked) -> Answer:
        credentials = base64.b64encode(f"node%2F1:{self.secret.replace(':', '%3A')}".encode()).decode()
        if asked.headers["authorization"] != f"Basic {credentials}":
            return Answer(401, {"error": "invalid_client", "error_description": "of Doe"})
        assert parse_qs(asked.body.decode()) == {"grant_type": ["client_credentials"], "scope": ["dicom.write"]}
        self.issued += 1
        told: dict[str, Any] = {"access_token": f"T{self.issued}", "token_type": "Bearer"}
        return Answer(200, told | ({"expires_in": self.lasts} if self.lasts is not None else {}))

    def take(self, asked: Asked) -> Answer:
        return Answer(200 if asked.headers.get("authorization") == f"Bearer T{self.issued}" else 401, b"{}")


def a_service(url: str, token_url: str, folder: Path, secret: str) -> WebService:
    (folder / "secret").write_text(f"{secret}\n")
    return WebService("web", url, "node/1", str(folder / "secret"), token_url, "dicom.write")


def test_a_token_is_asked_for_once_and_used_until_it_ends(tmp_path: Path) -> None:
    issuer = Issuer()
    files = write(tmp_path / "files", *(mr_image(number) for number in range(3)))
    with serving(issuer.issue) as tokens, serving(issuer.take) as archive:
        service = a_service(archive.url, f"{tokens.url}/token", tmp_path, issuer.secret)
        for _ in range(2):
            assert [one.outcome for one in stow(files, service, SETTINGS)] == ["stored"] * 3
        assert issuer.issued == 1


def test_a_token_is_renewed_before_its_end(tmp_path: Path) -> None:
    issuer = Issuer(lasts=int(MARGIN) - 1)
    with serving(issuer.issue) as tokens, serving(issuer.take) as archive:
        service = a_service(archive.url, f"{tokens.url}/token", tmp_path, issuer.secret)
        ask(service, SETTINGS)
        ask(service, SETTINGS)
        assert issuer.issued == 2
        assert [one.headers["authorization"] for one in archive.asked] == ["Bearer T1", "Bearer T2"]


@pytest.mark.parametrize("lasts", [3600, None])
def test_a_token_that_is_not_taken_any_more_is_renewed_at_once_and_the_image_sent_again(
    tmp_path: Path, lasts: int | None
) -> None:
    issuer = Issuer(lasts)
    files = write(tmp_path / "files", mr_image(1))
    with serving(issuer.issue) as tokens, serving(issuer.take) as archive:
        service = a_service(archive.url, f"{tokens.url}/token", tmp_path, issuer.secret)
        ask(service, SETTINGS)
        issuer.issued += 1  # the archive has forgotten T1
        assert [one.outcome for one in stow(files, service, SETTINGS)] == ["stored"]
        posts = [one.body for one in archive.asked if one.method == "POST"]
        assert len(posts) == 2
        assert posts[0] == posts[1]
        assert files[0].read_bytes() in posts[1]


def test_a_service_that_takes_no_token_is_asked_twice_and_not_for_ever(tmp_path: Path) -> None:
    issuer = Issuer()
    with serving(issuer.issue) as tokens, serving(lambda asked: Answer(401)) as archive:
        service = a_service(archive.url, f"{tokens.url}/token", tmp_path, issuer.secret)
        with pytest.raises(Unreachable, match="HTTP 401; are the credentials right"):
            ask(service, SETTINGS)
        assert (len(archive.asked), issuer.issued) == (2, 2)


def test_a_secret_that_is_changed_is_read_anew(tmp_path: Path) -> None:
    issuer = Issuer()
    with serving(issuer.issue) as tokens, serving(issuer.take) as archive:
        service = a_service(archive.url, f"{tokens.url}/token", tmp_path, "wrong")
        with pytest.raises(PeerFailure, match=r"HTTP 401 \(invalid_client\); are user, secret and scope right") as told:
            ask(service, SETTINGS)
        assert "Doe" not in str(told.value)
        assert archive.asked == []
        (tmp_path / "secret").write_text(issuer.secret)
        ask(service, SETTINGS)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (Answer(200, b"<html>"), "without a token"),
        (Answer(200, [1]), "without a token"),
        (Answer(200, b"[" * 60_000), "without a token"),
        (Answer(200, {"access_token": "a b", "token_type": "bearer"}), "no bearer token"),
        (Answer(200, {"access_token": "a", "token_type": "mac"}), "no bearer token"),
        (Answer(200, {"access_token": "a", "token_type": "bearer", "expires_in": "soon"}), "without a token"),
        (Answer(302, b"{}", {"Location": "http://127.0.0.1:1/"}), "HTTP 302"),
        (Answer(500, b"{}", short=3), "cannot be reached"),
    ],
)
def test_a_token_server_that_grants_none_puts_everything_off(tmp_path: Path, answer: Answer, why: str) -> None:
    with serving(lambda asked: answer) as tokens, serving(lambda asked: Answer()) as archive:
        with pytest.raises(Unreachable, match=why):
            ask(a_service(archive.url, f"{tokens.url}/token", tmp_path, "s"), SETTINGS)
        assert archive.asked == []
    gone = a_service("http://localhost", f"http://localhost:{free_port()}/", tmp_path, "s")
    with pytest.raises(Unreachable, match="token server of web cannot be reached"):
        ask(gone, SETTINGS)


def test_a_token_server_that_never_ends_its_answer_is_not_waited_for(tmp_path: Path) -> None:
    over = threading.Event()

    def drip(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        with contextlib.suppress(OSError):
            for _ in range(100):
                connection.sendall(b" ")
                if over.wait(0.1):
                    return

    brisk = SendSettings(connection_timeout=0.5, response_timeout=0.5)
    with rude_peer(drip) as tokens, serving(lambda asked: Answer()) as archive:
        service = a_service(archive.url, f"http://{tokens.host}:{tokens.port}/", tmp_path, "s")
        with pytest.raises(Unreachable, match="takes too long"):
            ask(service, brisk)
        over.set()


def test_a_token_lives_until_shortly_before_its_end() -> None:
    clock = Clock()
    token = Token(clock)
    grants = iter([("a", 100.0), ("b", None), ("c", 100.0)])

    def grant() -> tuple[str, float | None]:
        return next(grants)

    assert token.current(grant) == "a"
    clock.now += 99 - MARGIN
    assert token.current(grant) == "a"
    clock.now += 1
    assert token.current(grant) == "b"
    clock.now += 1e9
    assert token.current(grant) == "b", "its end was not told"
    token.forget()
    assert token.current(grant) == "c"


def test_service_and_token_server_are_believed_by_their_certificates(tmp_path: Path) -> None:
    hospital, elsewhere = Authority.make(tmp_path / "hospital"), Authority.make(tmp_path / "elsewhere")
    theirs = Identity(hospital.sign("localhost"))
    ours = replace(SETTINGS, tls=Identity(hospital.sign("node.example")))
    issuer = Issuer()
    open_to_all = theirs.server()
    with serving(issuer.take, Identity(theirs.files).server()) as archive:
        open_to_all.verify_mode = CERT_NONE  # a token server asks for no certificate
        with serving(issuer.issue, open_to_all) as tokens:
            service = a_service(archive.url, f"{tokens.url}/token", tmp_path, issuer.secret)
            ask(service, ours)
            stranger = replace(SETTINGS, tls=Identity(elsewhere.sign("node.example")))
            with pytest.raises(Unreachable, match=r"token server of web .*certificate verify failed"):
                ask(replace(service, token=Token()), stranger)
        with pytest.raises(PeerFailure, match="certificate verify failed"):
            ask(WebService("web", archive.url), stranger)
        with pytest.raises(PeerFailure):
            ask(WebService("web", archive.url), SETTINGS)


@pytest.mark.parametrize("reach", [lambda: f"http://localhost:{free_port()}", lambda: "http://host.invalid"])
def test_what_was_asked_for_is_told_to_nobody(reach: Callable[[], str]) -> None:
    with pytest.raises(Unreachable) as told:
        list(seek(Wanted(patient="Doe123"), WebService("web", reach()), SETTINGS))
    assert "Doe123" not in str(told.value)
