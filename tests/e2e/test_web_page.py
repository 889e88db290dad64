"""The page in a real browser: it is clicked through, fits wide and narrow screens, and reads in light and dark."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dicom_node.contacts import Contact, Contacts, Event
from dicom_node.outbox import Outbox, Result
from dicom_node.settings import Watch
from dicom_node.states import State
from dicom_node.store import Objection, Store
from dicom_node.watch.watcher import Watcher
from tests.browser import Browser, running_browser
from tests.dicom_node.making import the_job
from tests.dicom_node.results import write_result

SCREENS = [(width, dark) for width in (1024, 390) for dark in (False, True)]
READABLE = 4.5
"""The contrast that WCAG 2.1 (1.4.3) asks of text."""
LONG = "phase of echo 3 is missing for slices " + ", ".join(map(str, range(12, 60))) + " of series 1.2.826." + "7" * 50


@dataclass(frozen=True)
class Shown:
    url: str
    result: int
    """A job with a result."""
    failed: int


@pytest.fixture(scope="module")
def browser(
    chromedriver_command: Path, chromium_command: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Browser]:
    with running_browser(chromedriver_command, chromium_command, tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("empty")
    watcher = watching(folder, Store(folder / "node.db"))
    yield f"http://127.0.0.1:{watcher.port}"
    watcher.stop()


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    folder = tmp_path_factory.mktemp("busy")
    store = Store(folder / "node.db")
    result, failed = a_busy_department(store, folder / "jobs")
    watcher = watching(folder, store)
    yield Shown(f"http://127.0.0.1:{watcher.port}", result, failed)
    watcher.stop()


def watching(folder: Path, store: Store) -> Watcher:
    (folder / "jobs").mkdir(exist_ok=True)
    watcher = Watcher(
        *(Watch(port=0), store, folder / "jobs"),
        ae_title="QSMNODE",
        destinations=lambda: ["pacs", "research"],
        peers=lambda: ["mr1"],
        port=lambda: 11112,
        trouble=lambda: "",
        enough=0,
    )
    watcher()
    return watcher


def a_busy_department(store: Store, jobs: Path) -> tuple[int, int]:
    """Two months of jobs, some of which wait for a person, are under way, or are stuck; long reasons, and strangers."""
    rng, now, outbox = random.Random(1), time.time(), Outbox(store)
    begun = (State.READY, State.RECONSTRUCTING)
    sending = (*begun, State.RECONSTRUCTED, State.SENDING)
    ways = [(*sending, State.SENT, State.ARCHIVED)] * 60
    ways += [(*begun, State.FAILED)] * 3 + [(*begun, State.REVIEW), (State.INCOMPLETE,)]
    ways += [begun[:1]] * 4 + [begun, sending[:3]]
    numbers = []
    with store.transaction():
        for place, way in enumerate(ways):
            at = now - (len(ways) - place) * 3600
            study = f"1.2.826.0.1.3680043.8.498.{rng.getrandbits(120)}"
            job = store.open_job(f"g{place}", 1, study, [f"1.{place}.{image}" for image in range(40)], at).id
            here = State.WAITING
            for step, there in enumerate(way):
                reason = LONG if there in (State.FAILED, State.REVIEW) else ""
                store.advance(job, here, there, at + 60 * (step + 1), reason)
                here = there
            numbers.append((job, here))
    archived = [job for job, state in numbers if state is State.ARCHIVED][-1]
    failed = next(job for job, state in numbers if state is State.FAILED)
    write_result(jobs / str(archived) / "result")
    stuck = next(job for job, state in numbers if state is State.RECONSTRUCTED)
    results = [Result(f"1.9.{image}", Path("/x")) for image in range(9)]
    outbox.register(the_job(store, stuck), results, ["pacs"], now - 900)
    away = "pacs (ORTHANC at 10.1.2.9:104) took no TCP connection: refused, or no answer within 10.0 s; is it running?"
    outbox.postpone(outbox.of(stuck), now - 800, comment=away, due_at=now + 400)
    running = next(job for job, state in numbers if state is State.RECONSTRUCTING)
    (jobs / str(running)).mkdir(parents=True)
    (jobs / str(running) / "progress.jsonl").write_text(f'{{"at": {now - 20}, "stage": "inversion"}}\n')
    for number in range(8):
        store.object_to(Objection(now - number, f"/q/{number}", "MR1", f"attributes are missing: {LONG}"))
    contacts = Contacts(store)
    contacts.take(Contact(Event.CLOSED, "mr1", "MR1_PRISMA_RAUM_7", "2001:db8::1428:57ab", now - 9, stored=12800))
    for number in range(30):
        contacts.take(Contact(Event.REJECTED, "", f"STRANGER{number}", "10.9.9.9", now - 50, LONG))
    contacts()
    return archived, failed


@pytest.mark.parametrize(("width", "dark"), SCREENS)
@pytest.mark.parametrize("page", ["/", "/jobs/{result}", "/jobs/{failed}", "/list/done", "/nowhere"])
def test_nothing_is_cut_off_and_everything_can_be_read(
    browser: Browser, busy: Shown, page: str, width: int, dark: bool
) -> None:
    browser.look_as(width, dark=dark)
    browser.load(busy.url + page.format(result=busy.result, failed=busy.failed))
    assert browser.clipped() == []
    contrasts = browser.contrasts()
    assert len(contrasts) > 5
    assert [found for found in contrasts if found[0] < READABLE] == []
    light = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert (light == "rgb(245, 246, 248)") != dark


@pytest.mark.parametrize(("width", "dark"), SCREENS)
def test_a_node_that_has_done_nothing_looks_no_worse(browser: Browser, empty: str, width: int, dark: bool) -> None:
    browser.look_as(width, dark=dark)
    browser.load(empty)
    assert browser.clipped() == []
    assert [found for found in browser.contrasts() if found[0] < READABLE] == []
    assert "The node works" in browser.text


def test_a_department_clicks_from_the_overview_to_a_result_and_back(browser: Browser, busy: Shown) -> None:
    browser.look_as(1024)
    browser.load(busy.url)
    assert browser.texts(".tiles dd:first-of-type")[:3] == ["5", "6", "60"]
    browser.click(f'a[href="/jobs/{busy.result}"]')
    assert browser.url == f"{busy.url}/jobs/{busy.result}"
    assert browser.texts("h2") == ["Result", "Regional figures", "Journal"]
    assert browser.pictures() == {f"{busy.url}/jobs/{busy.result}/map.png": 1024}
    assert "Caudate nucleus" in browser.texts(".figures tbody th")
    browser.click("a.brand")
    assert browser.url == f"{busy.url}/"
    browser.click('a[href="/list/done"]')
    assert len(browser.texts(".lines tbody tr")) == 50
    browser.click('a[href^="?before="]')
    assert len(browser.texts(".lines tbody tr")) == 10


def test_the_browser_objects_to_nothing_and_asks_nobody_else(browser: Browser, busy: Shown) -> None:
    browser.look_as(1024)
    browser.complaints()  # of pages before
    for page in ("/", f"/jobs/{busy.result}", "/list/attention"):
        browser.load(busy.url + page)
        asked = browser.run("return performance.getEntriesByType('resource').map(e => e.name)")
        assert asked
        assert [address for address in asked if not address.startswith(busy.url)] == []
        assert browser.complaints() == []
        assert [address for address, width in browser.pictures().items() if not width] == []


def test_no_script_is_needed_or_let_in(browser: Browser, busy: Shown) -> None:
    browser.load(busy.url)
    assert browser.run("return document.scripts.length") == 0
    browser.run(
        "const s = document.createElement('script'); s.textContent = 'window.intruder = 1'; document.body.append(s)"
    )
    assert browser.run("return window.intruder === undefined")
    assert any("Content Security Policy" in complaint for complaint in browser.complaints())


def test_it_updates_itself_until_somebody_stops_it(browser: Browser, busy: Shown) -> None:
    browser.load(busy.url)
    refresh = "return document.querySelector('meta[http-equiv=refresh]') !== null"
    assert browser.run(refresh)
    browser.click(".clock a")
    assert not browser.run(refresh)
    assert browser.url == f"{busy.url}/?still=1"
