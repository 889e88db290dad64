"""The journal of a job tells its moves, stages and deliveries in order, and nothing of what a peer said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dicom_node.commands import main
from dicom_node.journal import NoSuchJob, entries, in_words
from dicom_node.outbox import Outbox, Result
from dicom_node.states import State
from dicom_node.store import Store
from tests.dicom_node.making import a_ready_job, the_job


@pytest.fixture
def state_folder(tmp_path: Path) -> Path:
    store = Store(tmp_path / "node.db")
    job = a_ready_job(store, now=1.0)
    store.claim(2.0, lease=1, ceiling=3)
    progress = tmp_path / "jobs" / str(job) / "progress.jsonl"
    progress.parent.mkdir(parents=True)
    progress.write_text('{"at": 3.0, "stage": "unwrap"}\n{"at": 4.0, "stage": "inversion"}\n{"at": 4.5, "sta')
    store.advance(job, State.RECONSTRUCTING, State.RECONSTRUCTED, 5.0)
    outbox = Outbox(store)
    outbox.register(the_job(store, job), [Result("1.2", Path("/a")), Result("1.3", Path("/b"))], ["pacs"], 6.0)
    kept, lost = outbox.of(job)
    outbox.answered(kept, "stored", 7.0, status=0, comment="answered 0x0000", due_at=7.0)
    outbox.answered(lost, "refused", 8.0, status=0xA900, comment="answered 0xA900 Doe^Jane is unknown", due_at=8.0)
    store.close()
    return tmp_path


def test_everything_is_told_in_the_order_in_which_it_happened(state_folder: Path) -> None:
    assert [(entry["what"], entry["why"]) for entry in entries(state_folder, 1) if entry["at"] > 2] == [
        ("stage", "unwrap"),
        ("stage", "inversion"),
        ("reconstructed", "the result folder is on disk"),
        ("sending", "its results are registered for each destination"),
        ("destination", "pacs: 1 stored"),
        ("destination", "pacs: 1 refused: answered 0xA900"),
    ]


def test_it_fits_the_terminal_and_names_nobody(state_folder: Path, tmp_path: Path) -> None:
    for width in (80, 120):
        said = in_words(entries(state_folder, 1), width)
        assert max(map(len, said.splitlines())) <= width
        assert "Doe" not in said


def test_the_command_tells_people_and_machines(state_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = state_folder / "node.toml"
    config.write_text(f'[node]\nstate_folder = "{state_folder}"\n')
    assert main(["journal", "1", "--config", str(config)]) == 0
    assert "inversion" in capsys.readouterr().out
    assert main(["journal", "1", "--json", "--config", str(config)]) == 0
    assert [json.loads(line)["what"] for line in capsys.readouterr().out.splitlines()][:2] == ["waiting", "ready"]
    assert main(["journal", "2", "--config", str(config)]) == 1
    assert "no job 2" in capsys.readouterr().err


def test_a_number_that_no_job_has_is_refused(state_folder: Path) -> None:
    with pytest.raises(NoSuchJob, match="status lists them"):
        entries(state_folder, 99)
