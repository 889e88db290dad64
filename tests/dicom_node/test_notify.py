"""Few messages, each with everything, over real servers; and nothing told twice, or lost while nobody listens."""

from __future__ import annotations

import email
import email.policy
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

from dicom_node import notify
from dicom_node.messengers import knocks, mail, messengers, post
from dicom_node.notify import GATHER, LEFT_WAITING, MOST_NAMED, TRY_AGAIN, Finding, Message, Notifier, NotTold
from dicom_node.outbox import Outbox, Result
from dicom_node.settings import Notify
from dicom_node.states import State
from dicom_node.store import Objection, Store
from tests.dicom_node.making import Clock, a_ready_job, the_job
from tests.peers import free_port

EVERY = 900.0


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "node.db")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@dataclass
class Told:
    """Who is told; or is deaf."""

    messages: list[Message] = field(default_factory=list)
    deaf: bool = False

    def __call__(self, message: Message) -> None:
        if self.deaf:
            raise NotTold("deaf")
        self.messages.append(message)


def a_notifier(store: Store, clock: Clock, told: Told, enough: int = 0) -> Notifier:
    made = Notifier("mail", told, store, store.path.parent, "QSMNODE", clock, EVERY, 3600.0, enough)
    made()
    return made


def fail(store: Store, number: int, reason: str = "no phase") -> int:
    job = a_ready_job(store, f"g{number}")
    store.advance(job, State.READY, State.FAILED, 1.0, reason)
    return job


def test_two_thousand_failures_make_one_message(store: Store, clock: Clock) -> None:
    told = Told()
    notifier = a_notifier(store, clock, told)
    with store.transaction():
        for number in range(2000):
            fail(store, number)
    notifier()
    assert not told.messages
    for _ in range(20):
        clock.now += GATHER
        notifier()
    [message] = told.messages
    [finding] = message.findings
    assert (finding.count, finding.what, len(finding.named)) == (2000, "jobs failed", MOST_NAMED)
    assert f"and {2000 - MOST_NAMED} more" in message.text


def test_what_comes_soon_after_waits_for_the_next_message(store: Store, clock: Clock) -> None:
    told = Told()
    notifier = a_notifier(store, clock, told)
    fail(store, 1)
    notifier()
    clock.now += GATHER
    notifier()
    fail(store, 2)
    notifier()
    clock.now += EVERY - 1
    notifier()
    assert len(told.messages) == 1
    clock.now += 1
    notifier()
    assert [message.findings[0].named for message in told.messages] == [
        (("job 1", "no phase"),),
        (("job 2", "no phase"),),
    ]


def test_nothing_is_lost_or_told_twice_over_deafness_and_restarts(store: Store, clock: Clock) -> None:
    told = Told(deaf=True)
    fail(store, 0)  # before anybody was to be told
    notifier = a_notifier(store, clock, told)
    fail(store, 1)
    notifier()
    clock.now += GATHER
    notifier()
    told.deaf = False
    notifier = a_notifier(store, clock, told)  # a new process
    clock.now += GATHER
    notifier()
    [message] = told.messages
    assert message.findings[0].named == (("job 2", "no phase"),)
    notifier = a_notifier(store, clock, told)
    clock.now += EVERY + GATHER
    notifier()
    assert len(told.messages) == 1


def test_a_message_that_was_not_given_is_tried_again_after_a_pause(store: Store, clock: Clock) -> None:
    told = Told(deaf=True)
    notifier = a_notifier(store, clock, told)
    fail(store, 1)
    notifier()
    clock.now += GATHER
    notifier()
    told.deaf = False
    clock.now += TRY_AGAIN - 1
    notifier()
    assert not told.messages
    clock.now += 1
    notifier()
    assert len(told.messages) == 1


def test_a_job_that_was_mended_meanwhile_is_not_told(store: Store, clock: Clock) -> None:
    told = Told()
    notifier = a_notifier(store, clock, told)
    job = fail(store, 1)
    notifier()
    store.advance(job, State.FAILED, State.READY, 2.0)
    clock.now += GATHER
    notifier()
    assert not told.messages


def test_objects_that_were_not_taken_are_told_by_reason(store: Store, clock: Clock) -> None:
    told = Told()
    notifier = a_notifier(store, clock, told)
    for number in range(3):
        store.object_to(Objection(1.0, f"/q/{number}", "MR1", "truncated"))
    notifier()
    clock.now += GATHER
    notifier()
    assert told.messages[0].findings == (Finding("objects were not taken", 3, (("MR1", "3 × truncated"),)),)


def test_a_silent_destination_is_told_once_and_its_recovery_too(store: Store, clock: Clock) -> None:
    told = Told()
    outbox = Outbox(store)
    notifier = a_notifier(store, clock, told)
    job = a_ready_job(store)
    store.claim(clock(), lease=1, ceiling=3)
    store.advance(job, State.RECONSTRUCTING, State.RECONSTRUCTED, clock())
    outbox.register(the_job(store, job), [Result("1.2", Path("/x"))], ["pacs"], clock())
    outbox.postpone(outbox.of(job), clock(), comment="pacs took no TCP connection", due_at=clock())
    clock.now += 3600
    notifier()
    assert not told.messages
    for _ in range(3):
        clock.now += EVERY
        notifier()
    [message] = told.messages
    assert "destination pacs has taken nothing for" in message.conditions[0]
    assert "took no TCP connection" in message.text
    [row] = outbox.of(job)
    outbox.answered(row, "stored", clock(), status=0, comment="answered 0x0000", due_at=clock())
    outbox.settle(clock())
    for _ in range(3):
        clock.now += EVERY
        notifier()
    assert told.messages[1].over == ("destination pacs takes nothing",)
    assert len(told.messages) == 2


def rounds(notifier: Notifier, clock: Clock, seconds: float) -> None:
    """Some over that time, and enough for a message that is due."""
    for _ in range(3):
        clock.now += seconds / 3
        notifier()
    for _ in range(3):
        clock.now += GATHER
        notifier()


def test_a_queue_that_stands_still_is_told_once_and_when_it_moves_again(store: Store, clock: Clock) -> None:
    told = Told()
    notifier = a_notifier(store, clock, told)
    first, second = a_ready_job(store, "a", now=clock()), a_ready_job(store, "b", now=clock())
    store.explain(first, State.READY, "waits for memory")
    rounds(notifier, clock, 3500.0)
    assert not told.messages, "an hour is not over"
    rounds(notifier, clock, 300.0)
    rounds(notifier, clock, 7200.0)
    [message] = told.messages
    assert "the queue stands still: 2 jobs are ready, and none was begun for" in message.conditions[0]
    assert message.conditions[0].endswith(": waits for memory")
    assert store.claim(clock(), lease=1e6, ceiling=3)
    rounds(notifier, clock, 7200.0)
    assert [message.over for message in told.messages] == [(), ("the queue stands still",)]
    store.advance(first, State.RECONSTRUCTING, State.RECONSTRUCTED, clock())
    rounds(notifier, clock, 3400.0)
    assert len(told.messages) == 2, "one ended within the hour, however long the second has been ready"
    assert store.claim(clock(), lease=1, ceiling=3)
    store.advance(second, State.RECONSTRUCTING, State.RECONSTRUCTED, clock())
    rounds(notifier, clock, 1e6)
    assert len(told.messages) == 2, "nothing waits"


def test_what_a_destination_leaves_waiting_for_a_day_is_told_although_it_takes_others(
    store: Store, clock: Clock
) -> None:
    told = Told()
    outbox = Outbox(store, frozenset({"pacs"}))
    notifier = a_notifier(store, clock, told)
    job = a_ready_job(store, now=clock())
    store.claim(clock(), lease=1, ceiling=3)
    store.advance(job, State.RECONSTRUCTING, State.RECONSTRUCTED, clock())
    outbox.register(the_job(store, job), [Result(f"1.{n}", Path("/x")) for n in range(40)], ["pacs"], clock())
    rows = outbox.of(job)
    outbox.answered(rows.pop(), "pending", clock(), status=0xA700, comment="answered 0xA700 Doe", due_at=clock())
    for _ in range(39):  # one each 40 minutes: it is not silent
        outbox.answered(rows.pop(), "stored", clock(), status=0, comment="answered 0x0000", due_at=clock())
        rounds(notifier, clock, 2400.0)
    [message] = told.messages
    assert "destination pacs takes others, and 1 job waits, the first for " in message.conditions[0]
    assert message.conditions[0].endswith(": answered 0xA700")
    [last] = [row for row in outbox.of(job) if row.outcome == "pending"]
    outbox.answered(last, "stored", clock(), status=0, comment="answered 0x0000", due_at=clock())
    outbox.settle(clock())
    rounds(notifier, clock, LEFT_WAITING / 2)
    assert told.messages[1].over == ("destination pacs leaves jobs waiting",)
    rounds(notifier, clock, LEFT_WAITING)
    [condition] = told.messages[2].conditions
    assert "destination pacs has not committed itself to 40 results, to the first for " in condition
    store.database.execute("UPDATE deliveries SET commitment = 'given'")
    rounds(notifier, clock, 3600.0)
    assert told.messages[3].over == ("destination pacs does not commit itself",)


def test_a_disk_that_fills_is_told_before_senders_are_turned_away(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dicom_node.survey import Disk

    free = [3 * 2**30]
    monkeypatch.setattr(notify.survey, "disk", lambda folder: Disk(free[0], 2**40))
    told = Told()
    notifier = a_notifier(store, clock, told, enough=2**30)
    free[0] = 2**30 + 1
    notifier()
    clock.now += GATHER
    notifier()
    assert told.messages[0].conditions == (
        "the disk is nearly full: 1.0 GiB are free, and below 1.0 GiB senders are turned away",
    )


# real servers

MESSAGE = Message("QSMNODE", 0.0, (Finding("jobs failed", 2, (("job 7", "χ is missing"), ("job 6", "no phase"))),))


@dataclass
class Mailbox:
    letters: list[EmailMessage] = field(default_factory=list)
    users: list[str] = field(default_factory=list)
    refuses: bool = False
    strangers: bool = False
    """To whom it takes no mail."""

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:  # noqa: N802 - aiosmtpd's name
        envelope.rcpt_tos.append(address)
        return "550 5.7.1 Doe^Jane is not here" if self.strangers else "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        if self.refuses:
            return "554 5.7.1 Doe^Jane is not welcome"
        self.letters.append(email.message_from_bytes(envelope.content, policy=email.policy.default))  # type: ignore[arg-type]  # its policy makes an EmailMessage
        return "250 OK"

    def authenticate(self, server: Any, session: Any, envelope: Any, mechanism: str, data: LoginPassword) -> AuthResult:
        self.users.append(data.login.decode())
        return AuthResult(success=data.password == b"secret", handled=False)


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


@pytest.fixture
def mail_port(mailbox: Mailbox) -> Iterator[int]:
    server = Controller(mailbox, "127.0.0.1", free_port(), authenticator=mailbox.authenticate, auth_require_tls=False)
    server.start()
    yield server.port
    server.stop()


def by_mail(port: int, **more: Any) -> Notify:
    return Notify(
        mail_to=("a@hospital.example", "b@hospital.example"),
        mail_from="qsm-node@hospital.example",
        mail_host="127.0.0.1",
        mail_port=port,
        mail_security="none",
        **more,
    )


def test_a_mail_arrives_with_subject_text_and_the_marks_of_a_machine(mailbox: Mailbox, mail_port: int) -> None:
    mail(MESSAGE, by_mail(mail_port))
    [letter] = mailbox.letters
    assert letter["Subject"] == "QSMNODE: 2 jobs failed"
    assert letter["To"] == "a@hospital.example, b@hospital.example"
    assert letter["Auto-Submitted"] == "auto-generated"
    assert "job 7: χ is missing" in letter.get_content()


def test_a_mail_server_that_wants_a_password_gets_it(mailbox: Mailbox, mail_port: int, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret\n")
    mail(MESSAGE, by_mail(mail_port, mail_user="node", mail_secret_file=str(secret)))
    assert (mailbox.users, len(mailbox.letters)) == (["node"], 1)
    secret.write_text("wrong")
    with pytest.raises(NotTold, match="answered 535"):
        mail(MESSAGE, by_mail(mail_port, mail_user="node", mail_secret_file=str(secret)))


def test_what_a_mail_server_says_is_not_repeated(mailbox: Mailbox, mail_port: int) -> None:
    mailbox.refuses = True
    with pytest.raises(NotTold, match="answered 554") as told:
        mail(MESSAGE, by_mail(mail_port))
    assert "Doe" not in str(told.value)


def test_whether_a_mail_would_be_taken_is_asked_without_one(mailbox: Mailbox, mail_port: int, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret\n")
    [(way, knock)] = knocks(by_mail(mail_port, mail_user="node", mail_secret_file=str(secret)))
    assert (way, knock()) == ("mail", f"127.0.0.1:{mail_port} takes mail of ours")
    assert (mailbox.users, mailbox.letters) == (["node"], [])
    secret.write_text("wrong")
    with pytest.raises(NotTold, match=r"answered 535.*is mail_user right"):
        knock()
    mailbox.strangers = True
    [(_, knock)] = knocks(by_mail(mail_port))
    with pytest.raises(NotTold, match="answered 550 to our addresses"):
        knock()


def test_without_encryption_on_offer_starttls_sends_nothing(mailbox: Mailbox, mail_port: int) -> None:
    settings = by_mail(mail_port).model_copy(update={"mail_security": "starttls"})
    with pytest.raises(NotTold, match="took no mail"):
        mail(MESSAGE, settings)
    with pytest.raises(NotTold, match="took no mail"):
        mail(MESSAGE, by_mail(free_port()))
    assert not mailbox.letters


@dataclass
class Hook:
    url: str
    got: list[tuple[str, dict[str, Any]]]
    answers: list[int]


@pytest.fixture
def hook() -> Iterator[Hook]:
    got: list[tuple[str, dict[str, Any]]] = []
    answers = [200]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            got.append((self.headers.get("Authorization", ""), body))
            self.send_response(answers[0])
            self.send_header("Location", self.path)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield Hook(f"http://127.0.0.1:{server.server_port}/hook?token=x", got, answers)
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_webhook_gets_json_and_the_token(hook: Hook, tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("abc\n")
    post(MESSAGE, Notify(webhook=hook.url, webhook_secret_file=str(secret)))
    [(authorization, body)] = hook.got
    assert authorization == "Bearer abc"
    assert body["findings"] == [
        {
            "what": "jobs failed",
            "count": 2,
            "named": [{"who": "job 7", "reason": "χ is missing"}, {"who": "job 6", "reason": "no phase"}],
        }
    ]
    assert body["text"].startswith("QSMNODE: 2 jobs failed")


@pytest.mark.parametrize("status", [301, 404, 500])
def test_a_webhook_that_does_not_take_it_was_not_told(hook: Hook, status: int) -> None:
    hook.answers[0] = status
    with pytest.raises(NotTold, match=f"HTTP {status}"):
        post(MESSAGE, Notify(webhook=hook.url))
    assert len(hook.got) == 1


def test_a_webhook_that_is_away_is_told_of_without_its_address() -> None:
    with pytest.raises(NotTold) as told:
        post(MESSAGE, Notify(webhook=f"http://127.0.0.1:{free_port()}/token-in-path"))
    assert "token-in-path" not in str(told.value)


def test_a_webhook_is_asked_whether_it_is_there_and_told_nothing(hook: Hook) -> None:
    [(way, knock)] = knocks(Notify(webhook=hook.url))
    assert (way, knock(), hook.got) == ("webhook", "its server answers", [])
    [(_, knock)] = knocks(Notify(webhook=f"http://127.0.0.1:{free_port()}/token-in-path"))
    with pytest.raises(NotTold, match="cannot be reached") as told:
        knock()
    assert "token-in-path" not in str(told.value)


def test_only_configured_ways_are_taken(hook: Hook) -> None:
    assert messengers(Notify()) == []
    assert [way for way, _ in messengers(Notify(webhook=hook.url))] == ["webhook"]
    assert [way for way, _ in messengers(by_mail(25))] == ["mail"]


def test_a_receiver_cannot_begin_another_header() -> None:
    with pytest.raises(ValueError, match="pattern"):
        Notify(mail_to=("a@b\nBcc: c@d",), mail_from="a@b")


def test_a_reason_of_two_lines_makes_a_subject_of_one() -> None:
    message = Message("QSMNODE", 0.0, (), ("destination pacs takes nothing: refused\nand more",))
    assert message.subject == "QSMNODE: destination pacs takes nothing: refused and more"


def test_a_message_that_cannot_be_made_is_tried_again_and_ends_nothing(store: Store, clock: Clock) -> None:
    told = Told()
    notifier = a_notifier(store, clock, told)

    def broken(message: Message) -> None:
        raise ValueError("Header values may not contain linefeed")

    notifier.tell = broken
    fail(store, 1)
    clock.now += GATHER
    notifier()
    clock.now += GATHER
    notifier()
    notifier.tell = told
    clock.now += TRY_AGAIN
    notifier()
    assert len(told.messages) == 1


def test_what_waits_is_not_counted_in_each_round(store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = []
    monkeypatch.setattr(notify.survey, "targets", lambda *arguments: counted.append(1) or [])
    notifier = a_notifier(store, clock, Told())
    for _ in range(60):
        clock.now += 1.0
        notifier()
    assert len(counted) == 3


def test_an_objection_whose_number_was_given_before_is_told(store: Store, clock: Clock) -> None:
    told = Told()
    store.object_to(Objection(1.0, None, "MR1", "old"))
    notifier = a_notifier(store, clock, told)
    store.database.execute("DELETE FROM objections")
    notifier()
    store.object_to(Objection(2.0, None, "MR1", "new"))
    notifier()
    clock.now += GATHER
    notifier()
    assert len(told.messages) == 1
