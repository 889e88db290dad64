"""The pages show jobs, figures, reasons and callers as they are, and no word that could be a patient's or a script."""

from __future__ import annotations

import io
import json
import re
from http import HTTPStatus
from pathlib import Path

import pytest
from PIL import Image

from dicom_node.contacts import Contact, Contacts, Event
from dicom_node.encode.thumbnail import SIDE
from dicom_node.index import Reading
from dicom_node.outbox import Outbox, Result
from dicom_node.states import State
from dicom_node.store import Objection, Store
from dicom_node.watch.health import Health
from dicom_node.watch.listener import Answer, Request
from dicom_node.watch.metrics import Metrics
from dicom_node.watch.pages import MOST_LISTED, About, Site
from dicom_node.watch.pulse import Pulse
from tests.dicom_node.making import Clock, a_ready_job, the_job
from tests.dicom_node.results import write_result

SCRIPT = "<script>alert('Doe^Jane')</script>"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "jobs").mkdir()
    return Store(tmp_path / "node.db")


@pytest.fixture
def site(store: Store) -> Site:
    clock, jobs, pulse = Clock(1000.0), store.path.parent / "jobs", Pulse()
    health = Health(pulse, lambda: "", store.path, jobs.parent, 0)
    metrics = Metrics(store, jobs, pulse, lambda: ["pacs"], list, clock)
    return Site(store, jobs, health, metrics, About("QSMNODE", lambda: 11112, 0.0, lambda: ["pacs"]), clock)


def text(answer: Answer) -> str:
    """What a page shows, without markup."""
    assert answer.status is HTTPStatus.OK
    return " ".join(re.sub(r"<[^>]*>", " ", answer.body.decode()).split())


def get(site: Site, path: str, **query: str) -> Answer:
    return site(Request(path, query))


def a_sent_job(store: Store) -> int:
    job = a_ready_job(store, "sent", now=900.0)
    store.claim(901.0, lease=1, ceiling=3)
    store.advance(job, State.RECONSTRUCTING, State.RECONSTRUCTED, 910.0)
    outbox = Outbox(store)
    outbox.register(the_job(store, job), [Result("1.1", Path("/a"))], ["pacs"], 920.0)
    [row] = outbox.of(job)
    outbox.answered(row, "stored", 930.0, status=0, comment="answered 0x0000", due_at=930.0)
    outbox.settle(930.0)
    return job


def test_an_empty_node_says_so(site: Site) -> None:
    shown = text(get(site, "/"))
    for expected in ("The node works", "No job is under way", "Nobody has called yet", "Nothing is done yet"):
        assert expected in shown


def test_everything_that_stands_somewhere_is_shown(site: Site, store: Store) -> None:
    a_sent_job(store)
    failed = a_ready_job(store, "failed", now=950.0)
    store.advance(failed, State.READY, State.FAILED, 960.0, "no phase came")
    running = a_ready_job(store, "running", now=961.0)
    store.claim(970.0, lease=100, ceiling=3)
    progress = store.path.parent / "jobs" / str(running) / "progress.jsonl"
    progress.parent.mkdir()
    progress.write_text('{"at": 990.0, "stage": "inversion"}\n')
    a_ready_job(store, "ready", now=980.0)
    store.object_to(Objection(990.0, "/q", "MR1", "truncated"))
    contacts = Contacts(store)
    contacts.take(Contact(Event.CLOSED, "mr1", "MR1", "10.1.2.3", 940.0, stored=12, refused=1))
    contacts.take(Contact(Event.REJECTED, "", "STRANGER", "10.9.9.9", 941.0, "no peer has this AE title"))
    contacts.take(Contact(Event.CLOSED, "ws", "WS", "10.1.2.4", 942.0, "it has no right to store", denied=1))
    contacts()
    shown = text(get(site, "/"))
    for expected in (
        "QSMNODE port 11112",
        "Need somebody 1",
        "failed 40 s 1 no phase came",
        "inversion for 10 s",
        "Number 1 in the queue:",
        "Job 1 sent",
        "pacs 70 s ago 0",
        "MR1 10.1.2.3 60 s ago 12 1 of its objects were refused.",
        "STRANGER 10.9.9.9 59 s ago rejected 1 time: no peer has this AE title",
        "WS 10.1.2.4 58 s ago 0 not authorised 1 request, the last 58 s ago: it has no right to store.",
        "1 × from MR1: truncated 10 s ago",
    ):
        assert expected in shown


def test_a_job_has_a_page_with_figures_verdict_deliveries_and_journal(site: Site, store: Store) -> None:
    job = a_sent_job(store)
    write_result(store.path.parent / "jobs" / str(job) / "result")
    shown = text(get(site, f"/jobs/{job}"))
    record = json.loads((store.path.parent / "jobs" / str(job) / "result" / "report.json").read_bytes())
    caudate = record["regions"]["left_caudate"]["chi"]["mean"]
    assert f"{caudate:.0f}".replace("-", "−") in shown
    assert record["grade"]["grounds"][0] in shown
    assert "Müller" not in shown
    assert "0815" not in shown
    for expected in ("Caudate nucleus", "QSM (ppb)", "Deliveries", "pacs 1 0 0", "reconstructing a worker claimed it"):
        assert expected in shown


def test_how_often_a_job_was_begun_is_told_although_its_attempts_are_forgotten(site: Site, store: Store) -> None:
    job = a_ready_job(store, "g", now=900.0)
    assert "Begun" not in text(get(site, f"/jobs/{job}"))
    for expected in ("once", "2 times"):
        assert store.claim(920.0, lease=1, ceiling=3)
        assert f"Begun {expected}" in text(get(site, f"/jobs/{job}"))
        store.advance(job, State.RECONSTRUCTING, State.READY, 910.0)
        store.forget_attempts(job)


def test_pictures_come_from_the_result_and_are_small_where_there_are_many(site: Site, store: Store) -> None:
    job = a_sent_job(store)
    assert get(site, f"/jobs/{job}/thumbnail.png").status is HTTPStatus.NOT_FOUND
    result = write_result(store.path.parent / "jobs" / str(job) / "result")
    small = get(site, f"/jobs/{job}/thumbnail.png")
    assert (small.content_type, Image.open(io.BytesIO(small.body)).size) == ("image/png", (SIDE, SIDE))
    assert Image.open(io.BytesIO(small.body)).getextrema()[1] > 0
    assert get(site, f"/jobs/{job}/map.png").body == (result / "map.png").read_bytes()
    assert f"/jobs/{job}/thumbnail.png" in get(site, "/").body.decode()


def test_a_result_without_a_picture_has_figures(site: Site, store: Store) -> None:
    job = a_sent_job(store)
    result = write_result(store.path.parent / "jobs" / str(job) / "result")
    (result / "thumbnail.png").unlink()
    assert get(site, f"/jobs/{job}/thumbnail.png").status is HTTPStatus.NOT_FOUND
    assert "Caudate nucleus" in text(get(site, f"/jobs/{job}"))
    assert "no picture kept" in text(get(site, "/"))


def test_words_of_others_are_shown_as_words_and_a_peers_comment_not_at_all(site: Site, store: Store) -> None:
    job = a_ready_job(store, "g", now=900.0)
    store.claim(901.0, lease=1, ceiling=3)
    store.advance(job, State.RECONSTRUCTING, State.RECONSTRUCTED, 910.0)
    outbox = Outbox(store)
    outbox.register(the_job(store, job), [Result("1.1", Path("/a"))], ["pacs"], 920.0)
    [row] = outbox.of(job)
    outbox.answered(row, "pending", 930.0, status=0xA700, comment=f"answered 0xA700 {SCRIPT}", due_at=9e9)
    failed = a_ready_job(store, "failed", now=950.0)
    store.advance(failed, State.READY, State.FAILED, 960.0, "<b>bold</b> & more")
    contacts = Contacts(store)
    contacts.take(Contact(Event.REJECTED, "", "<i>AE</i>", "10.9.9.9", 941.0, '"quoted"'))
    contacts()
    for path in ("/", f"/jobs/{job}", f"/jobs/{failed}", "/list/active", "/list/attention"):
        page = get(site, path).body.decode()
        assert "<script" not in page
        assert "Doe" not in page
        assert "<b>" not in page
        assert "<i>" not in page
    assert "&lt;b&gt;bold&lt;/b&gt; &amp; more" in get(site, "/").body.decode()
    assert "0xA700" in text(get(site, "/"))


def test_long_lists_go_on_on_further_pages(site: Site, store: Store) -> None:
    for number in range(MOST_LISTED + 5):
        failed = a_ready_job(store, f"g{number}")
        store.advance(failed, State.READY, State.FAILED, 2.0, "no phase")
    overview = get(site, "/").body.decode()
    assert "5 older ones" in overview
    [link] = re.findall(r'href="/list/attention\?before=(\d+)"', overview)
    assert get(site, "/list/attention", before=link).body.decode().count('href="/jobs/') == 5
    first = get(site, "/list/attention").body.decode()
    assert first.count('href="/jobs/') == MOST_LISTED
    assert f'href="?before={link}"' in first
    assert get(site, "/list/attention", before="x" * 50).status is HTTPStatus.OK


def test_pages_that_show_something_moving_load_themselves_anew(site: Site, store: Store) -> None:
    job = a_ready_job(store)
    refresh = b'http-equiv="refresh"'
    assert refresh in get(site, "/").body
    assert refresh in get(site, f"/jobs/{job}").body
    assert refresh not in get(site, "/", still="1").body
    store.advance(job, State.READY, State.FAILED, 2.0)
    assert refresh not in get(site, f"/jobs/{job}").body


@pytest.mark.parametrize(
    "path",
    [
        *("/nowhere", "/jobs/99", "/jobs/x", "/jobs/-1", "/jobs/1/../../node.db", "/jobs/99/map.png", "/list/none"),
        *("/jobs/" + "9" * 30, "/jobs/%31", "/jobs/²", "/templates/base.html", "//style.css/x"),
    ],
)
def test_what_is_not_there_is_said_to_be_missing(site: Site, path: str) -> None:
    assert get(site, path).status is HTTPStatus.NOT_FOUND


def test_health_and_metrics_are_for_machines(site: Site) -> None:
    answer = get(site, "/health")
    assert (answer.status, answer.content_type) == (HTTPStatus.OK, "application/json")
    assert json.loads(answer.body)["checks"]["database"] == {"ok": True, "found": "can be written to"}
    assert b"qsm_node_jobs" in get(site, "/metrics").body
    assert set(json.loads(get(site, "/health/live").body)["checks"]) == {"line", "rounds"}


def test_a_node_that_needs_help_says_so_to_both(store: Store) -> None:
    clock, jobs, pulse = Clock(), store.path.parent / "jobs", Pulse()
    health = Health(pulse, lambda: "callers were last looked for 200 s ago", store.path, jobs.parent, 0)
    metrics = Metrics(store, jobs, pulse, list, list, clock)
    site = Site(store, jobs, health, metrics, About("QSMNODE", lambda: 11112, 0.0, lambda: []), clock)
    assert get(site, "/health").status is HTTPStatus.SERVICE_UNAVAILABLE
    assert json.loads(get(site, "/health").body)["status"] == "failing"
    assert "The node needs help line : callers were last looked for 200 s ago" in text(get(site, "/"))


def test_a_start_that_still_reads_the_spool_is_told_on_the_page(store: Store) -> None:
    clock, jobs, pulse = Clock(), store.path.parent / "jobs", Pulse()
    health = Health(pulse, lambda: "", store.path, jobs.parent, 0, reading=lambda: Reading(7))
    metrics = Metrics(store, jobs, pulse, list, list, clock, reading=lambda: Reading(7))
    site = Site(store, jobs, health, metrics, About("QSMNODE", lambda: 11112, 0.0, lambda: []), clock)
    assert b"qsm_node_spool_unread_files 7.0" in get(site, "/metrics").body
    assert "The node works It takes images" in text(get(site, "/"))
    assert "7 files are still to be read, and jobs wait for them." in text(get(site, "/"))


def test_style_and_icon_come_from_the_node(site: Site) -> None:
    assert get(site, "/style.css").content_type.startswith("text/css")
    assert get(site, "/icon.svg").content_type == "image/svg+xml"
    assert b"http:" not in get(site, "/style.css").body.replace(b"http-", b"")
