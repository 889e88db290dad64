"""The list of what is fetched: nothing is lost by an interruption, asked too often, or asked for ever."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.presentation import build_context

from dicom_node.call import Destination, SendSettings
from dicom_node.commands import main
from dicom_node.config import recipe_file
from dicom_node.errors import NotTaken, PeerFailure, Unreachable
from dicom_node.fetch import GET, MOST_WAITING, MOVE, Arrivals, Fetcher, retriever
from dicom_node.fetch_text import listed_in_words, summed_up
from dicom_node.fetches import ATTEMPTS, Fetch, Fetches
from dicom_node.manner import Manner
from dicom_node.messages import Taking
from dicom_node.recipes import read_recipe
from dicom_node.reprocess import reprocess
from dicom_node.seek import Candidate
from dicom_node.settings import Send
from dicom_node.states import State
from dicom_node.store import Store
from dicom_node.wado import Landing
from tests.dicom_node.making import STUDY, Clock, a_ready_job, an_instance, the_job
from tests.peers import free_port
from tests.web import Answer, Asked, serving

PAUSES = Send(first_pause=5, pause_factor=2, longest_pause=60)
PACS = Destination("pacs", "127.0.0.1", 1, "PACS")


def a_candidate(series: int, study: str = STUDY, against: str = "", images: int = 8) -> Candidate:
    return Candidate(study, f"{study}.{series}", "20240229", str(series), "gre", images, against)


def a_fetch() -> Fetch:
    return Fetch("pacs", STUDY, f"{STUDY}.1", 8, "found", "", 0, 0.0, 0.0)


def _take_nothing(*_: object) -> Taking:
    raise AssertionError("nothing is sent here")


NO_LANDING = Landing(lambda source: contextlib.nullcontext(_take_nothing), 2**31, list)


def an_arrival() -> Arrivals:
    return Arrivals(_take_nothing, lambda association, title: contextlib.nullcontext(), NO_LANDING)


class Line:
    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.path = folder / "node.db"
        self.asked: list[str] = []
        self.fails: dict[str, str] = {}
        self.stopping = False
        self.no_room = ""
        self.start()

    def start(self) -> None:
        """Also: as after a restart."""
        self.store = Store(self.path)
        self.fetches = Fetches(self.store)
        self.round = Fetcher(
            self.fetches,
            {"pacs": PACS},
            self._retrieve,
            SendSettings(),
            PAUSES,
            60.0,
            self.clock,
            lambda: self.stopping,
            lambda: self.no_room,
        )

    def _retrieve(self, fetch: Fetch, archive: Destination, settings: SendSettings) -> None:
        self.asked.append(fetch.series_instance_uid)
        if reason := self.fails.get(fetch.series_instance_uid):
            raise PeerFailure(reason)

    def states(self) -> dict[str, str]:
        return {fetch.series_instance_uid: fetch.state for fetch in self.fetches.listed()}


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return Line(tmp_path)


def test_a_study_is_fetched_as_a_whole_and_studies_one_after_another(line: Line) -> None:
    found = [a_candidate(1), a_candidate(2), a_candidate(3, against="one echo"), a_candidate(1, study="1.2.9")]
    assert line.fetches.add("pacs", found, line.clock()) == 3
    line.round()
    assert line.asked == [f"{STUDY}.1", f"{STUDY}.2"]
    line.clock.now += 59
    line.round()
    assert len(line.asked) == 2, "60 studies in an hour are one in a minute"
    line.clock.now += 1
    line.round()
    line.clock.now += 60
    line.round()
    assert line.asked[2:] == ["1.2.9.1"]
    assert line.states() == {
        f"{STUDY}.1": "fetched",
        f"{STUDY}.2": "fetched",
        f"{STUDY}.3": "refused",
        "1.2.9.1": "fetched",
    }


def test_found_again_is_nothing_new_unless_it_has_grown_or_was_refused(line: Line) -> None:
    line.fetches.add("pacs", [a_candidate(1), a_candidate(2, against="one echo")], line.clock())
    line.round()
    assert line.fetches.add("pacs", [a_candidate(1), a_candidate(2, against="one echo")], line.clock()) == 0
    assert line.fetches.add("pacs", [a_candidate(1, images=9)], line.clock()) == 1
    assert line.fetches.add("pacs", [a_candidate(2)], line.clock()) == 1
    assert set(line.states().values()) == {"found"}


def test_nobody_is_locked_out_while_the_archive_answers_and_what_was_found_stays(line: Line) -> None:
    def breaking_off() -> Iterator[Candidate]:
        for study in ("1.2.8", "1.2.9"):
            assert not line.store.database.conn.in_transaction
            yield a_candidate(1, study)
            yield a_candidate(2, study)
        raise PeerFailure("pacs broke off")

    with pytest.raises(PeerFailure):
        line.fetches.add("pacs", breaking_off(), line.clock())
    assert set(line.states()) == {"1.2.8.1", "1.2.8.2", "1.2.9.1", "1.2.9.2"}


def test_a_restart_goes_on_with_what_is_left(line: Line) -> None:
    line.fetches.add("pacs", [a_candidate(1), a_candidate(2)], line.clock())
    line.fails = {f"{STUDY}.2": "pacs broke off"}
    line.round()
    assert line.states() == {f"{STUDY}.1": "fetched", f"{STUDY}.2": "found"}
    line.start()
    line.fails = {}
    line.round()
    assert line.asked == [f"{STUDY}.1", f"{STUDY}.2"], "not before the pause is over"
    line.clock.now += 5
    line.round()
    assert line.asked[2:] == [f"{STUDY}.2"]
    assert set(line.states().values()) == {"fetched"}


def test_stopping_counts_as_no_failure(line: Line) -> None:
    line.fetches.add("pacs", [a_candidate(1)], line.clock())

    def stop(fetch: Fetch, archive: Destination, settings: SendSettings) -> None:
        line.stopping = True
        raise PeerFailure("aborted")

    line.round._retrieve = stop
    line.round()
    [fetch] = line.fetches.listed()
    assert (fetch.state, fetch.attempts) == ("found", 0)


def test_what_never_comes_is_refused_in_the_end_with_the_reason(line: Line) -> None:
    line.fetches.add("pacs", [a_candidate(1)], line.clock())
    line.fails = {f"{STUDY}.1": "pacs sent nothing"}
    for _ in range(3 * ATTEMPTS):
        line.round()
        line.clock.now += 60
    [fetch] = line.fetches.listed()
    assert (fetch.state, fetch.reason, len(line.asked)) == ("refused", "pacs sent nothing", ATTEMPTS)


def test_an_archive_that_is_gone_from_the_configuration_is_named(line: Line) -> None:
    line.fetches.add("elsewhere", [a_candidate(1)], line.clock())
    line.round()
    assert "elsewhere is no [[peer]] with a port any more" in line.fetches.listed()[0].reason


def test_fetched_is_done_when_a_map_was_made_and_else_says_what_stopped_it(line: Line) -> None:
    line.fetches.add("pacs", [a_candidate(1)], line.clock())
    line.round()
    job = a_ready_job(line.store)
    assert line.fetches.listed()[0].reason.startswith(f"job {job} is ready")
    line.store.advance(job, State.READY, State.RECONSTRUCTING, 2.0)
    line.store.advance(job, State.RECONSTRUCTING, State.RECONSTRUCTED, 2.0)
    assert line.states() == {f"{STUDY}.1": "done"}


def test_an_archive_that_is_down_costs_no_series(line: Line) -> None:
    line.fetches.add("pacs", [a_candidate(1), a_candidate(2), a_candidate(1, study="1.2.9")], line.clock())
    times: list[float] = []

    def unreachable(fetch: Fetch, archive: Destination, settings: SendSettings) -> None:
        times.append(line.clock.now)
        raise Unreachable("pacs took no TCP connection")

    line.round._retrieve = unreachable
    for _ in range(40):
        line.round()
        line.clock.now += 30
    assert {(fetch.state, fetch.attempts) for fetch in line.fetches.listed()} == {("found", 0)}
    assert "took no TCP connection" in line.fetches.listed()[2].reason, "all of them wait"
    assert len(times) == 20, "each time for one series, with the longest pause between"
    line.round._retrieve = line._retrieve
    for _ in range(3):
        line.clock.now += 60
        line.round()
    assert set(line.states().values()) == {"fetched"}


def test_a_disk_that_is_full_here_costs_no_series(line: Line) -> None:
    line.fetches.add("pacs", [a_candidate(1), a_candidate(1, study="1.2.9")], line.clock())

    def fill(fetch: Fetch, archive: Destination, settings: SendSettings) -> None:
        line.asked.append(fetch.series_instance_uid)
        line.no_room = "0 bytes are free: make room"
        raise PeerFailure("pacs answered 0xB000, 3 images did not come")

    line.round._retrieve = fill
    for _ in range(3 * ATTEMPTS):
        line.round()
        line.clock.now += 60
    assert {(one.state, one.attempts, one.reason) for one in line.fetches.listed()} == {("found", 0, line.no_room)}
    assert len(line.asked) == 1, "nothing is begun as long as there is no room"
    line.no_room = ""
    line.round._retrieve = line._retrieve
    for _ in range(2):
        line.round()
        line.clock.now += 60
    assert set(line.states().values()) == {"fetched"}


def test_a_surprise_with_one_series_keeps_no_other(line: Line) -> None:
    line.fetches.add("pacs", [a_candidate(1), a_candidate(2)], line.clock())

    def retrieve(fetch: Fetch, archive: Destination, settings: SendSettings) -> None:
        if fetch.series_instance_uid == f"{STUDY}.1":
            raise RecursionError("nested too deeply")

    line.round._retrieve = retrieve
    for _ in range(3 * ATTEMPTS):
        line.round()
        line.clock.now += 60
    assert line.states() == {f"{STUDY}.1": "refused", f"{STUDY}.2": "fetched"}
    assert line.fetches.listed()[0].reason.startswith("RecursionError at ")


def test_a_database_that_fails_is_not_called_a_fault_of_the_series(line: Line) -> None:
    line.fetches.add("pacs", [a_candidate(1)], line.clock())

    def retrieve(fetch: Fetch, archive: Destination, settings: SendSettings) -> None:
        raise sqlite3.DatabaseError("database disk image is malformed")

    line.round._retrieve = retrieve
    with pytest.raises(sqlite3.DatabaseError):
        line.round()


def test_nobody_there_is_unreachable() -> None:
    arrivals = an_arrival()
    with pytest.raises(Unreachable):
        retriever("move", arrivals, lambda: False)(
            a_fetch(), Destination("pacs", "127.0.0.1", free_port(), "PACS"), SendSettings()
        )


def an_answer(status: int, **counts: int) -> tuple[Dataset, None]:
    answer = Dataset()
    answer.Status = status
    for kind, count in counts.items():
        setattr(answer, f"NumberOf{kind}Suboperations", count)
    return answer, None


DONE, PENDING = 0x0000, 0xFF00


@pytest.mark.parametrize(
    ("by", "answers", "trouble"),
    [
        ("move", [an_answer(DONE, Completed=8)], ""),
        ("move", [an_answer(DONE, Completed=0, Warning=8)], ""),
        ("move", [an_answer(DONE)], ""),
        ("move", [an_answer(PENDING, Completed=7, Remaining=1), an_answer(DONE)], ""),
        ("move", [an_answer(DONE, Completed=0)], "sent nothing"),
        ("move", [an_answer(0xB000, Completed=7, Failed=1)], "1 images did not come"),
        ("get", [an_answer(DONE, Completed=8)], ""),
        ("get", [an_answer(DONE)], "sent 0 images, and holds 8"),
    ],
)
def test_what_makes_a_retrieve_complete(
    by: Literal["move", "get"],
    answers: list[tuple[Dataset, None]],
    trouble: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entity, port = AE("PACS"), free_port()
    entity.supported_contexts = [build_context(MOVE), build_context(GET)]
    server = entity.start_server(("127.0.0.1", port), block=False)
    monkeypatch.setattr(f"pynetdicom.association.Association.send_c_{by}", lambda *_, **__: iter(answers))
    arrivals = an_arrival()
    try:
        with pytest.raises(PeerFailure, match=trouble) if trouble else contextlib.nullcontext():
            retriever(by, arrivals, lambda: False)(
                a_fetch(), Destination("pacs", "127.0.0.1", port, "PACS"), SendSettings()
            )
    finally:
        server.shutdown()


@pytest.mark.parametrize("by", ["move", "get"])
def test_a_node_that_stops_does_not_wait_for_a_slow_archive(by: str) -> None:
    over, stopping = threading.Event(), threading.Event()

    def dawdle(event: evt.Event):  # type: ignore[no-untyped-def]
        stopping.set()
        over.wait(20)
        yield None, None

    entity = AE("PACS")
    for uid in (MOVE, GET):
        entity.add_supported_context(uid)
    handlers = [(evt.EVT_C_MOVE, dawdle), (evt.EVT_C_GET, dawdle)]
    port = free_port()
    entity.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
    try:
        arrivals = an_arrival()
        retrieve = retriever(by, arrivals, stopping.is_set)  # type: ignore[arg-type]
        with pytest.raises(PeerFailure):
            retrieve(a_fetch(), Destination("pacs", "127.0.0.1", port, "PACS"), SendSettings())
    finally:
        over.set()
        entity.shutdown()


def held(line: Line, candidate: Candidate) -> list[str]:
    """Has the images of a candidate come from elsewhere."""
    for number, uid in enumerate(sorted(candidate.instances)):
        image = replace(an_instance(number), sop_instance_uid=uid, path=Path(f"/spool/{uid}.dcm"))
        line.store.add_instance(replace(image, series_instance_uid=candidate.series_instance_uid))
    return sorted(candidate.instances)


def told(series: int, images: int = 3) -> Candidate:
    uids = frozenset(f"{STUDY}.{series}.{number}" for number in range(images))
    return replace(a_candidate(series, images=images), instances=uids)


def test_what_is_here_already_is_not_fetched(line: Line) -> None:
    here, part = told(1), told(2)
    held(line, here)
    held(line, replace(part, instances=frozenset(sorted(part.instances)[:2])))
    for again in (False, True):
        assert line.fetches.add("pacs", [here, part], line.clock(), again=again) == (not again)
    line.round()
    assert line.asked == [part.series_instance_uid]
    [first, second] = line.fetches.listed()
    assert (first.state, first.reason) == ("fetched", "was here already")
    assert not line.store.were_fetched([here.series_instance_uid]), "its patient is not behind the cohort"
    assert line.store.were_fetched([second.series_instance_uid])


def test_what_was_found_while_it_was_not_known_to_be_here_is_not_fetched(line: Line) -> None:
    """A start was still reading the spool, or a scanner has sent it since."""
    one, other = told(1), told(2)
    assert line.fetches.add("pacs", [one, other], line.clock()) == 2
    held(line, one)
    line.round()
    assert line.asked == [other.series_instance_uid]
    first = line.fetches.listed()[0]
    assert (first.state, first.reason, first.attempts) == ("fetched", "was here already", 0)


def test_what_was_made_before_is_fetched_again_only_when_that_is_asked_for(line: Line) -> None:
    made = told(1)
    job = line.store.open_job("g", 1, STUDY, sorted(made.instances), 1.0).id
    assert line.fetches.add("pacs", [made], line.clock()) == 1, "its job has made nothing yet"
    for source, target in pairwise((State.WAITING, State.READY, State.RECONSTRUCTING, State.RECONSTRUCTED)):
        line.store.advance(job, source, target, 2.0)
    line.round()
    later = told(1, 4)
    assert line.fetches.add("elsewhere", [made], line.clock()) == 0
    assert line.fetches.listed()[1].state == "done"
    assert line.fetches.add("elsewhere", [made], line.clock(), again=True) == 1
    assert line.fetches.add("elsewhere", [made], line.clock(), again=True) == 0, "it waits already"
    assert line.fetches.add("pacs", [later], line.clock()) == 1, "it has grown"


def test_what_the_node_does_not_take_is_asked_for_once(line: Line) -> None:
    line.fetches.add("pacs", [a_candidate(1), a_candidate(2)], line.clock())

    def retrieve(fetch: Fetch, archive: Destination, settings: SendSettings) -> None:
        line.asked.append(fetch.series_instance_uid)
        raise NotTaken("3 of 8 objects were not taken")

    line.round._retrieve = retrieve
    for _ in range(3):
        line.round()
        line.clock.now += 60
    assert line.asked == [f"{STUDY}.1", f"{STUDY}.2"], "one that is not taken keeps no other"
    assert {(one.state, one.reason) for one in line.fetches.listed()} == {("refused", "3 of 8 objects were not taken")}


def test_nothing_is_fetched_that_the_line_could_not_take(line: Line) -> None:
    jobs = [a_ready_job(line.store, key=str(number)) for number in range(MOST_WAITING)]
    line.fetches.add("pacs", [a_candidate(1)], line.clock())
    line.round()
    assert line.asked == []
    line.store.advance(jobs[0], State.READY, State.RECONSTRUCTING, 2.0)
    line.round()
    assert line.asked == [f"{STUDY}.1"]


def test_each_acquisition_of_a_study_has_an_end_of_its_own(line: Line) -> None:
    good, bad = told(1), told(2)
    line.fetches.add("pacs", [good, bad], line.clock())
    line.round()
    for candidate, ends in ((good, State.RECONSTRUCTED), (bad, State.FAILED)):
        job = line.store.open_job(candidate.number, 1, STUDY, held(line, candidate), 1.0).id
        for source, target in pairwise((State.WAITING, State.READY, State.RECONSTRUCTING, ends)):
            line.store.advance(job, source, target, 2.0, "no phase" if target is State.FAILED else "")
    done, stopped = line.fetches.listed()
    assert (done.state, done.reason) == ("done", "job 1")
    assert (stopped.state, stopped.reason) == ("stopped", "job 2 is failed: no phase")


def test_what_is_done_says_with_which_recipe_and_another_recipe_fetches_nothing_again(line: Line) -> None:
    """It is here, or was delivered: a second map of it is what `reprocess` is for, which keeps the first."""
    made = told(1)
    line.fetches.add("pacs", [made], line.clock())
    line.round()
    job = the_job(line.store, line.store.open_job("g", 1, STUDY, held(line, made), 1.0).id)
    ends = (State.WAITING, State.READY, State.RECONSTRUCTING, State.RECONSTRUCTED)
    default, fast = (read_recipe(recipe_file(name)) for name in ("default", "fast"))
    line.store.keep_manner(job.id, Manner(default, [], {}).written())
    for source, target in pairwise(ends):
        line.store.advance(job.id, source, target, 2.0)
    of_the_first = f"job 1 with recipe default ({default.digest()[:8]})"
    assert [(one.state, one.reason) for one in line.fetches.listed()] == [("done", of_the_first)]
    assert line.fetches.add("elsewhere", [made], line.clock()) == 0
    more, _ = reprocess(line.store, the_job(line.store, job.id), fast, default, 3.0, "asked for")
    line.store.keep_manner(more.id, Manner(fast, [], {}).written())
    for source, target in pairwise(ends[1:]):
        line.store.advance(more.id, source, target, 4.0)
    both = f"{of_the_first}, job 2 with recipe fast ({fast.digest()[:8]})"
    assert {(one.state, one.reason) for one in line.fetches.listed()} == {("done", both)}


def test_a_cohort_of_thousands_is_summed_up_before_it_is_listed() -> None:
    def one(number: int, state: str, reason: str = "", due_at: float = 0.0) -> Fetch:
        return Fetch("pacs", f"1.2.{number}", f"1.2.{number}.1", 300, state, reason, 1, due_at, 900.0)

    cohort = [one(number, "done") for number in range(1000)]
    cohort += [one(number, "found", "pacs took no TCP connection", 1300.0) for number in range(1000, 1600)]
    cohort += [one(number, "refused", "one echo, 4.0 ms") for number in range(1600, 1990)]
    cohort += [one(number, "refused", f"{number} images") for number in range(1990, 2010)]
    cohort += [one(2010, "stopped", "job 7 is review: sign")]
    told = summed_up(cohort, 60.0, 1000.0).splitlines()
    assert told[0] == "600 found, 0 fetched, 1000 done, 1 stopped, 410 refused"
    assert told[1] == "600 studies to be fetched from pacs: at least 10 h"
    assert told[2] == "  600 of these series wait for 5 min: pacs took no TCP connection"
    assert "     390  one echo, 4.0 ms" in told
    assert told[-1] == "  and 9 other reasons"
    assert len(told) < 24
    rows = listed_in_words([fetch for fetch in cohort if fetch.state == "refused"], 1000.0).splitlines()
    assert len(rows) == 2 * 410
    assert rows[0] == "study 1.2.1600 from pacs"
    assert rows[1].split() == [
        "refused",
        "100",
        "s",
        "ago",
        "300",
        "images",
        "series",
        "1.2.1600.1",
        "one",
        "echo,",
        "4.0",
        "ms",
    ]


def test_what_a_broken_search_has_found_is_kept_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def tag(name: str, value: object) -> dict[str, object]:
        return {name: {"vr": "DS" if name == "00180081" else "UI", "Value": [value]}}

    def answer(asked: Asked) -> Answer:
        if int(asked.query["offset"][0]):
            return Answer(204)
        if asked.path.endswith("/studies"):
            return Answer(200, [tag("0020000D", "1.2.8"), tag("0020000D", "1.2.9")])
        if "1.2.9" in asked.path:
            return Answer(503)
        if asked.path.endswith("/series"):
            return Answer(200, [tag("0020000E", "1.2.8.1"), tag("0020000E", "1.2.8.2")])
        echoes = (4.0, 8.0) if "1.2.8.1/" in asked.path else (4.0,)
        images = [(f"1.2.{number}.{echo:.0f}", echo) for number in range(5) for echo in echoes]
        return Answer(200, [tag("00080018", uid) | tag("00180081", echo) for uid, echo in images])

    state = tmp_path / "state"
    state.mkdir()
    Store(state / "node.db").close()
    with serving(answer) as served:
        config = tmp_path / "node.toml"
        config.write_text(
            f'[node]\nstate_folder = "{state}"\n[[web_source]]\nname = "web"\nurl = "{served.url}"\n'
            '[fetch]\npeer = "web"\n'
        )
        assert main(["fetch", "--config", str(config), "--since", "2024-01-01"]) == 1
        told = capsys.readouterr()
        assert "series     ?     10 images" in told.out
        assert "left: one echo, 4.0 ms" in told.out
        assert "HTTP 503; it is asked again later; what was found before is kept (2 series), ask again" in told.err
    assert main(["fetch", "--config", str(config), "--list", "refused"]) == 0
    told = capsys.readouterr()
    assert told.out.splitlines()[0] == "1 found, 0 fetched, 0 done, 0 stopped, 1 refused"
    assert "series 1.2.8.2  one echo, 4.0 ms" in told.out
    assert "series 1.2.8.1 " not in told.out
    assert main(["fetch", "--config", str(config), "--list", "all", "--json"]) == 0
    assert [one["state"] for one in json.loads(capsys.readouterr().out)] == ["found", "refused"]
