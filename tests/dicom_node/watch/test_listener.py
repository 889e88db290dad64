"""The listener answers GET and HEAD to those who call it by its name, and nobody can take much of it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest
import requests

from dicom_node.watch import listener
from dicom_node.watch.listener import LONGEST_HEAD, MOST_WAITING, WORKERS, Answer, Listener, Request
from tests.peers import wait_until


class Site:
    """Remembers what it was asked; may be held up."""

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.free = threading.Event()
        self.free.set()

    def __call__(self, request: Request) -> Answer:
        self.asked.append(request)
        self.free.wait(10)
        if request.path == "/broken":
            raise ValueError("Doe^Jane")
        return Answer(b"here")


@pytest.fixture
def site() -> Site:
    return Site()


@pytest.fixture
def port(site: Site) -> Iterator[int]:
    made = Listener("127.0.0.1", 0, ["node.example"], site)
    yield made.port
    site.free.set()
    made.stop()


def raw(port: int, sent: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 10) as stream:
        stream.sendall(sent)
        answer = b""
        while more := stream.recv(4096):
            answer += more
        return answer


def test_what_is_no_address_is_a_bad_request(site: Site, port: int) -> None:
    assert raw(port, b"GET http://[ HTTP/1.0\r\nHost: localhost\r\n\r\n").startswith(b"HTTP/1.0 400 ")
    assert site.asked == []


def test_get_and_head_are_answered_with_what_keeps_a_browser_safe(site: Site, port: int) -> None:
    answer = requests.get(f"http://127.0.0.1:{port}/jobs/7?before=3", headers={"Accept": "text/x"}, timeout=5)
    assert (answer.status_code, answer.text) == (200, "here")
    assert site.asked == [Request("/jobs/7", {"before": "3"}, "text/x")]
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Server"] == "qsm-node"
    head = requests.head(f"http://127.0.0.1:{port}/", timeout=5)
    assert (head.status_code, head.content, head.headers["Content-Length"]) == (200, b"", "4")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "BREW"])
def test_nothing_can_be_changed(site: Site, port: int, method: str) -> None:
    answer = raw(port, f"{method} / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    assert b" 405 " in answer.splitlines()[0]
    assert b"Allow: GET, HEAD" in answer
    assert site.asked == []


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("192.168.7.7:8112", 200),
        ("[::1]:8112", 200),
        ("LOCALHOST:8112", 200),
        ("node.example", 200),
        ("evil.example", 421),
        ("node.example.evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("evil.example@127.0.0.1", 200),
        ("127.0.0.1@evil.example", 421),
        ("", 421),
        ("[", 421),
    ],
)
def test_another_name_that_points_here_reads_nothing(site: Site, port: int, host: str, status: int) -> None:
    answer = raw(port, f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert int(answer.split()[1]) == status
    assert len(site.asked) == (status == 200)


def test_a_request_without_a_host_or_with_two_is_not_answered(site: Site, port: int) -> None:
    for hosts in (b"", b"Host: 127.0.0.1\r\nHost: evil.example\r\n"):
        assert b" 421 " in raw(port, b"GET / HTTP/1.1\r\n" + hosts + b"\r\n").splitlines()[0]
    assert site.asked == []


def test_what_is_too_long_or_no_http_is_refused_without_being_repeated(site: Site, port: int) -> None:
    answer = raw(port, b"GET /" + b"a" * LONGEST_HEAD)
    assert b" 431 " in answer.splitlines()[0]
    for nonsense in (b"<script>\r\n\r\n", b"\x16\x03\x01\x02\x00\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"):
        answer = raw(port, nonsense)
        assert b"script" not in answer
        assert b"\x16" not in answer
    assert site.asked == []


def test_a_failure_is_told_without_its_words(site: Site, port: int) -> None:
    answer = requests.get(f"http://127.0.0.1:{port}/broken", timeout=5)
    assert answer.status_code == 500
    assert "Doe" not in answer.text
    assert requests.get(f"http://127.0.0.1:{port}/", timeout=5).status_code == 200


def test_those_who_say_nothing_are_hung_up_on(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "REQUEST_TIMEOUT", 0.2)
    with (
        socket.create_connection(("127.0.0.1", port), 10) as silent,
        socket.create_connection(("127.0.0.1", port), 10) as slow,
    ):
        for byte in b"GET / HTTP":
            slow.sendall(bytes([byte]))
            time.sleep(0.05)
            if byte == ord("T"):
                break
        assert silent.recv(1) == b""
        slow.settimeout(10)
        assert slow.recv(1) == b""


def test_the_time_of_those_who_wait_for_a_worker_goes_on_and_what_came_whole_is_answered(
    site: Site, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else half requests would keep the others out four after four, each time for as long."""
    monkeypatch.setattr(listener, "REQUEST_TIMEOUT", 0.5)
    request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    site.free.clear()
    held = [socket.create_connection(("127.0.0.1", port), 10) for _ in range(WORKERS)]
    for one in held:
        one.sendall(request)
    wait_until(lambda: len(site.asked) == WORKERS, "every worker is busy")
    whole, half = (socket.create_connection(("127.0.0.1", port), 10) for _ in range(2))
    whole.sendall(request)
    half.sendall(request[:-2])
    time.sleep(0.6)  # their time is over
    monkeypatch.setattr(listener, "REQUEST_TIMEOUT", 1e6)
    site.free.set()
    for one in (*held, whole):
        assert one.recv(4096).startswith(b"HTTP/1.0 200 ")
    assert half.recv(4096).startswith(b"HTTP/1.0 ")
    assert len(site.asked) == WORKERS + 2, "what there was of it was read, and nothing more waited for"
    for one in (*held, whole, half):
        one.close()


def test_only_so_many_are_heard_at_once(site: Site, port: int) -> None:
    site.free.clear()
    answers: list[int] = []

    def ask() -> None:
        answers.append(requests.get(f"http://127.0.0.1:{port}/", timeout=20).status_code)

    threads = [threading.Thread(target=ask) for _ in range(WORKERS + MOST_WAITING)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(site.asked) == WORKERS, "every worker is busy")
    time.sleep(0.5)  # until the others wait
    with socket.create_connection(("127.0.0.1", port), 10) as one_too_many:
        assert one_too_many.recv(1) == b""
    site.free.set()
    for thread in threads:
        thread.join()
    assert answers == [200] * (WORKERS + MOST_WAITING)
    assert requests.get(f"http://127.0.0.1:{port}/", timeout=5).status_code == 200


def test_a_port_that_is_taken_is_told_and_one_that_is_left_is_free(site: Site, port: int) -> None:
    with pytest.raises(OSError, match="in use"):
        Listener("127.0.0.1", port, [], site)
    other = Listener("127.0.0.1", 0, [], site)
    other.stop()
    Listener("127.0.0.1", other.port, [], site).stop()
