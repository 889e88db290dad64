"""verify, backup and rebuild as people call them: what they print, and how they exit."""

from __future__ import annotations

import json
import time
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest

from dicom_node.alone import alone_in
from dicom_node.commands import main
from dicom_node.commands._common import time_of
from dicom_node.convert import describe
from dicom_node.index import Index
from dicom_node.outbox import Outbox, Result
from dicom_node.spool import Spool
from dicom_node.states import State
from dicom_node.store import Store
from tests.dicom_node.test_retention import ROADS
from tests.e2e.phantom import simple_head
from tests.simulation.siemens import write_siemens


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A node that has taken one study, and stands."""
    folder = tmp_path / "state"
    study = folder / "images" / "ab"
    study.mkdir(parents=True)
    for number, path in enumerate(write_siemens(simple_head(1, shape=(8, 8, 4)), tmp_path / "study")):
        path.rename(study / f"{number:032x}.dcm")
    with closing(Store(folder / "node.db")) as store:
        Index(store, Spool(folder), describe).reconcile()
    file = tmp_path / "node.toml"
    file.write_text(f'[node]\nstate_folder = "{folder}"\n')
    return file


def said(capsys: pytest.CaptureFixture[str]) -> str:
    told = capsys.readouterr()
    return told.out + told.err


def test_verify_exits_with_one_when_a_file_has_changed(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--config", str(config)]) == 0
    assert "no finding" in said(capsys)
    image = next(config.parent.glob("state/images/*/*.dcm"))
    content = image.read_bytes()
    image.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert main(["verify", "--config", str(config)]) == 1
    assert f"image changed: {image}" in said(capsys)
    assert main(["verify", "--json", "--config", str(config)]) == 1
    assert [one["what"] for one in json.loads(capsys.readouterr().out)["findings"]] == ["image changed"]


def test_backup_says_what_it_did_and_where_it_may_not(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = config.parent / "backup"
    assert main(["backup", str(target), "--config", str(config)]) == 0
    assert "24 files copied" in said(capsys)
    assert (target / "node.toml").read_text() == config.read_text()
    assert main(["backup", str(config.parent), "--config", str(config)]) == 1
    assert "name a folder elsewhere" in said(capsys)


def test_rebuild_makes_the_database_anew_while_nobody_serves(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with alone_in(config.parent / "state"):
        assert main(["rebuild", "--config", str(config)]) == 1
    assert "another process serves" in said(capsys)
    with closing(Store(config.parent / "state" / "node.db")) as store:
        known = store.rows("SELECT sop_instance_uid, digest FROM instances ORDER BY 1")
    assert main(["rebuild", "--config", str(config)]) == 0
    told = said(capsys)
    assert "images      24" in told
    assert "the old database is" in told
    with closing(Store(config.parent / "state" / "node.db")) as store:
        assert store.rows("SELECT sop_instance_uid, digest FROM instances ORDER BY 1") == known
    assert main(["verify", "--config", str(config)]) == 0


def test_rebuild_after_the_folder_was_moved_finds_results_where_they_are_now(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = config.parent / "moved"
    (config.parent / "state").rename(moved)
    with closing(Store(moved / "node.db")) as store:
        job = store.open_job("g", 1, "1.2", ["1.1"], 1.0)
        for here, there in pairwise((State.WAITING, *ROADS[State.RECONSTRUCTED])):
            store.advance(job.id, here, there, 1.0)
        path = config.parent / "state" / "jobs" / str(job.id) / "result" / "dicom" / "r.dcm"
        Outbox(store).register(job, [Result("9.9", path)], ["pacs"], 1.0)
    config.write_text(f'[node]\nstate_folder = "{moved}"\n')
    assert main(["rebuild", "--config", str(config)]) == 0
    with closing(Store(moved / "node.db")) as store:
        assert [row.path for row in Outbox(store).of(job.id)] == [moved / path.relative_to(path.parents[4])]


def test_a_damaged_database_is_told_with_its_remedy(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (config.parent / "state" / "node.db").write_bytes(b"no database" * 1000)
    assert main(["status", "--config", str(config)]) == 1
    assert "start the node again, which makes it anew, or see qsm-node rebuild" in said(capsys)
    main(["check", "--config", str(config)])
    assert "makes it anew" in said(capsys)
    assert main(["rebuild", "--config", str(config)]) == 0
    assert main(["status", "--config", str(config)]) == 0


@pytest.mark.parametrize("ahead", [86400.0, -86400.0])
def test_what_is_asked_for_goes_by_the_clock_of_the_node_that_serves(tmp_path: Path, ahead: float) -> None:
    assert time_of(tmp_path) == pytest.approx(time.time(), abs=5)
    with alone_in(tmp_path) as tell:
        tell({"pid": 1, "port": 2, "clock_ahead": ahead})
        assert time_of(tmp_path) == pytest.approx(time.time() + ahead, abs=5)
    assert time_of(tmp_path) == pytest.approx(time.time(), abs=5)
