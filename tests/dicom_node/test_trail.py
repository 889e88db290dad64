"""The trail reaches a repository over TLS and UDP, waits for one that is away, and never keeps anybody waiting."""

from __future__ import annotations

import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest
from structlog.testing import capture_logs

from dicom_node import trail
from dicom_node.settings import Audit
from dicom_node.tls import Identity
from dicom_node.trail import Standing, Trail, syslog
from tests.certificates import Authority
from tests.peers import free_port, wait_until

HEADER = re.compile(rb"<85>1 \d{4}-\d\d-\d\dT\S+ \S+ qsm-node \d+ DICOM\+RFC3881 - \xef\xbb\xbf")


@contextmanager
def told(settings: Audit, *messages: bytes, context: ssl.SSLContext | None = None) -> Iterator[Trail]:
    made = Trail(settings, context=(lambda: context) if context else None)
    made.start()
    for message in messages:
        made.tell(partial(bytes, message))
    try:
        yield made
    finally:
        made.stop()


def test_the_header_is_that_of_rfc_5424() -> None:
    message = syslog(b"<AuditMessage/>", 0.25)
    assert HEADER.match(message)
    assert message.startswith(b"<85>1 1970-01-01T00:00:00.250+00:00 ")
    assert message.endswith(b"<AuditMessage/>")


def test_datagrams_arrive_one_for_each_message() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as repository:
        repository.bind(("127.0.0.1", 0))
        repository.settimeout(10)
        settings = Audit(host="127.0.0.1", port=repository.getsockname()[1], protocol="udp")
        with told(settings, b"one", b"x" * trail.LARGEST_DATAGRAM, b"two") as made:
            got = [repository.recv(2**16) for _ in range(2)]
            wait_until(lambda: made.sent == 2, "two are sent")
        assert [HEADER.sub(b"", one) for one in got] == [b"one", b"two"]
        assert made.lost == 1  # too large for a datagram


class Repository:
    """A syslog server over TLS that takes frames apart (RFC 5425 4.3).  drop: closes after so many messages."""

    def __init__(self, identity: Identity, port: int = 0, drop: int = 10**9) -> None:
        self.messages: list[bytes] = []
        self._identity = identity
        self._drop = drop
        self._server = socket.create_server(("127.0.0.1", port))
        self.port = int(self._server.getsockname()[1])
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._server.accept()
            except OSError:
                return
            plain.settimeout(10)
            try:
                with self._identity.server().wrap_socket(plain, server_side=True) as stream:
                    self._read(stream)
            except OSError:
                continue

    def _read(self, stream: ssl.SSLSocket) -> None:
        with stream.makefile("rb") as frames:
            for _ in range(self._drop):
                length = b""
                while not length.endswith(b" "):
                    if not (digit := frames.read(1)):
                        return
                    length += digit
                self.messages.append(HEADER.sub(b"", frames.read(int(length))))


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    folder = tmp_path_factory.mktemp("audit") / "certificates"
    return Identity(Authority.make(folder).sign("localhost"))


def over_tls(port: int, name: str = "localhost") -> Audit:
    return Audit(host="127.0.0.1", port=port, certificate=name)


def test_messages_arrive_whole_over_tls(identity: Identity) -> None:
    repository = Repository(identity)
    try:
        large = b"y" * 200_000
        with told(over_tls(repository.port), b"one", large, context=identity.client()) as made:
            wait_until(lambda: len(repository.messages) == 2, "both arrive")
        assert repository.messages == [b"one", large]
        assert (made.sent, made.lost) == (2, 0)
    finally:
        repository.close()


def test_a_repository_of_another_name_gets_nothing(identity: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trail, "PARTING", 0.5)
    repository = Repository(identity)
    try:
        with told(over_tls(repository.port, "elsewhere.example"), b"one", context=identity.client()) as made:
            time.sleep(0.3)
        assert repository.messages == []
        assert (made.sent, made.lost) == (0, 1)
    finally:
        repository.close()


def test_what_waits_for_a_repository_that_is_away_arrives_in_order(
    identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trail, "PAUSE", 0.05)
    port = free_port()
    with told(over_tls(port), b"one", b"two", context=identity.client()) as made:
        time.sleep(0.2)
        repository = Repository(identity, port)
        try:
            wait_until(lambda: made.sent == 2, "both are sent")
            wait_until(lambda: repository.messages == [b"one", b"two"], "both arrive")
        finally:
            repository.close()


def test_a_repository_that_hangs_up_loses_nothing_that_comes_later(
    identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trail, "PAUSE", 0.05)
    repository = Repository(identity, drop=1)
    try:
        with told(over_tls(repository.port), context=identity.client()) as made:
            for number in range(3):
                made.tell(partial(str(number).encode))
                arrived = partial(lambda count: len(repository.messages) > count, number)
                wait_until(arrived, "it arrives")
                time.sleep(0.1)  # so that the end of the connection has arrived too
        assert repository.messages == [b"0", b"1", b"2"]
    finally:
        repository.close()


def fails() -> bytes:
    raise ValueError("no header")


def test_too_many_are_counted_and_told_once_and_keep_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trail, "MOST_QUEUED", 5)
    monkeypatch.setattr(trail, "PARTING", 0.1)
    monkeypatch.setattr(trail, "PAUSE", 0.05)
    with capture_logs() as logs, told(over_tls(free_port())) as made:
        made.tell(fails)
        wait_until(lambda: made.lost == 1, "one was lost before, for another reason")
        for _ in range(20):
            made.tell(lambda: b"x")
        overflown = [line["why"] for line in logs if line["event"] == "audit_lost"]
    assert (made.sent, made.lost) == (0, 21)
    assert overflown == ["5 messages wait already: those that come now are only counted"]


def test_one_that_cannot_be_made_silences_no_other() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as repository:
        repository.bind(("127.0.0.1", 0))
        repository.settimeout(10)
        with told(Audit(host="127.0.0.1", port=repository.getsockname()[1], protocol="udp")) as made:
            made.tell(fails)
            made.tell(lambda: b"next")
            assert repository.recv(2**16).endswith(b"next")
            wait_until(lambda: made.sent == 1, "it is sent")
        assert made.lost == 1


def test_without_a_host_nothing_is_kept_or_sent() -> None:
    with told(Audit(), b"one") as made:
        pass
    assert (made.sent, made.lost, made.standing) == (0, 0, None)


def test_a_repository_that_cannot_even_be_asked_for_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def no_name(*arguments: object, **more: object) -> list[object]:
        asked.append(arguments)
        raise UnicodeError("label too long")

    monkeypatch.setattr(trail, "PAUSE", 0.01)
    monkeypatch.setattr(socket, "getaddrinfo", no_name)
    with told(Audit(host="a" * 70, protocol="udp"), b"one") as made:
        wait_until(lambda: len(asked) > 2, "it tries again")
    assert (made.sent, made.lost) == (0, 1)


def test_a_repository_that_is_away_for_long_is_told_until_it_is_back(
    identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trail, "PAUSE", 0.02)
    monkeypatch.setattr(trail, "MOST_QUEUED", 2)
    port = free_port()
    with capture_logs() as logs, told(over_tls(port), context=identity.client()) as made:
        assert standing(made) == Standing(0, 0, 0, 0.0, "")
        made.tell(lambda: b"one")
        wait_until(lambda: standing(made).silent_for > 0, "it was tried")
        assert standing(made).trouble == "", "to be started anew takes a repository minutes"
        monkeypatch.setattr(trail, "SILENT_AFTER", 0.0)
        assert re.fullmatch(
            r"the audit repository has taken nothing since \d{4}-\d\d-\d\d \d\d:\d\d UTC; the log says why",
            standing(made).trouble,
        )
        wait_until(lambda: len([line for line in logs if line["event"] == "audit_repository_away"]) > 1, "told again")
        made.tell(lambda: b"two")
        assert standing(made).trouble.endswith("; messages are being lost")
        repository = Repository(identity, port)
        try:
            wait_until(lambda: made.sent == 2, "both are sent")
            wait_until(lambda: standing(made) == Standing(2, 0, 0, 0.0, ""), "all is well")
        finally:
            repository.close()


def test_a_thread_that_ends_is_told_and_what_waits_is_counted_as_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    def ends(self: Trail, error: Exception) -> None:
        raise MemoryError("Quirin^Test")

    monkeypatch.setattr(Trail, "_tell_away", ends)
    with capture_logs() as logs, told(over_tls(free_port()), b"one", b"two") as made:
        wait_until(lambda: bool(standing(made).trouble), "it has ended")
        assert standing(made).trouble == (
            "the thread that sends audit messages has ended (MemoryError): restart the node, and tell of it"
        )
    assert [line["event"] for line in logs] == ["audit_ended", "audit_lost"]
    assert made.lost == 2


def standing(made: Trail) -> Standing:
    found = made.standing
    assert found is not None
    return found
