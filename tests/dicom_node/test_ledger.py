"""Pages follow the database, whoever changes it, and are whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node import ledger
from dicom_node.ledger import Ledger, pages
from dicom_node.outbox import Outbox, Result
from dicom_node.states import State
from dicom_node.store import Store
from tests.dicom_node.making import a_ready_job, the_job


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "node.db")


def test_a_page_has_all_that_is_known_of_a_job(tmp_path: Path, store: Store) -> None:
    job = a_ready_job(store)
    store.claim(2.0, lease=1, ceiling=3)
    store.advance(job, State.RECONSTRUCTING, State.RECONSTRUCTED, 3.0)
    outbox = Outbox(store)
    outbox.register(the_job(store, job), [Result("9.9", Path("r.dcm"))], ["pacs"], 4.0)
    Ledger(store, tmp_path / "ledger")()
    [page] = pages(tmp_path / "ledger")
    assert (page.job["state"], page.job["group_key"]) == ("sending", "g")
    assert [line["target"] for line in page.journal] == [m.target for m in store.journal()]
    [row] = outbox.of(job)
    outbox.answered(row, "stored", 5.0, status=0, comment="", due_at=5.0)
    Ledger(store, tmp_path / "ledger")()
    assert [row["outcome"] for page in pages(tmp_path / "ledger") for row in page.deliveries] == ["stored"]


def test_only_what_has_changed_is_written_and_whoever_changed_it(tmp_path: Path, store: Store) -> None:
    first, second = a_ready_job(store, "a"), a_ready_job(store, "b")
    write = Ledger(store, tmp_path / "ledger")
    write()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "ledger").iterdir()}
    write()
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "ledger").iterdir()} == before
    Store(tmp_path / "node.db", owner=False).advance(second, State.READY, State.WAITING, 5.0)
    write()
    changed = [path.stem for path, at in before.items() if path.stat().st_mtime_ns != at]
    assert changed == [str(second)]
    assert first != second


def test_a_change_while_a_page_is_written_is_written_next(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = a_ready_job(store)
    write = Ledger(store, tmp_path / "ledger")
    write_durably = ledger.write_durably

    def meanwhile(path: Path, *chunks: bytes) -> None:
        write_durably(path, *chunks)
        if the_job(store, job).state is State.READY:
            store.advance(job, State.READY, State.WAITING, 5.0)

    monkeypatch.setattr(ledger, "write_durably", meanwhile)
    write()
    assert [page.job["state"] for page in pages(tmp_path / "ledger")] == ["ready"]
    write()
    assert [page.job["state"] for page in pages(tmp_path / "ledger")] == ["waiting"]


def test_a_kill_leaves_the_page_of_before_and_the_next_round_writes_it(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = a_ready_job(store)
    write = Ledger(store, tmp_path / "ledger")
    write()
    store.advance(job, State.READY, State.WAITING, 5.0)

    def killed(path: Path, *chunks: bytes) -> None:
        path.write_bytes(chunks[0][:10])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "write_durably", killed)
        with pytest.raises(KeyboardInterrupt):
            write()
    assert [page.job["state"] for page in pages(tmp_path / "ledger")] == ["ready"]
    Ledger(store, tmp_path / "ledger")()
    assert [page.job["state"] for page in pages(tmp_path / "ledger")] == ["waiting"]
    assert [path.name for path in (tmp_path / "ledger").iterdir()] == [f"{job}.json"]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"job": {"id": 7}, "deliveries": [], "journal": []}', '{"job": 1}']
)
def test_a_page_that_is_none_is_passed_over(tmp_path: Path, store: Store, content: str) -> None:
    a_ready_job(store, "a")
    a_ready_job(store, "b")
    Ledger(store, tmp_path / "ledger")()
    (tmp_path / "ledger" / "1.json").write_text(content)
    assert [page.job["id"] for page in pages(tmp_path / "ledger")] == [2]


def test_a_round_writes_so_many_pages_the_latest_first(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "PAGES", 2)
    jobs = [a_ready_job(store, f"g{number}") for number in range(5)]
    write = Ledger(store, tmp_path / "ledger")
    write()
    assert [page.job["id"] for page in pages(tmp_path / "ledger")] == jobs[3:]
    write.write_all()
    assert [page.job["id"] for page in pages(tmp_path / "ledger")] == jobs
