"""The watcher is a guest of the line: nothing that it meets ends its rounds."""

from __future__ import annotations

from pathlib import Path

from dicom_node.settings import Watch
from dicom_node.states import State
from dicom_node.store import Store
from dicom_node.watch.watcher import Watcher
from tests.dicom_node.making import a_ready_job
from tests.dicom_node.watch.test_metrics import values


def test_a_report_that_cannot_be_read_is_met_once_and_what_follows_is_counted(tmp_path: Path) -> None:
    store = Store(tmp_path / "node.db")
    watcher = Watcher(
        Watch(host=""),
        store,
        tmp_path / "jobs",
        ae_title="QSMNODE",
        destinations=list,
        peers=list,
        port=lambda: 0,
        trouble=lambda: "",
        enough=0,
    )
    for key, report in (("a", "{"), ("b", '{"timings_s": {"unwrap": 2.0}}')):
        job = a_ready_job(store, key)
        store.claim(2.0, lease=1, ceiling=3)
        store.advance(job, State.RECONSTRUCTING, State.RECONSTRUCTED, 3.0)
        (tmp_path / "jobs" / str(job) / "result").mkdir(parents=True)
        (tmp_path / "jobs" / str(job) / "result" / "report.json").write_text(report)
    watcher()
    watcher()
    assert values(watcher.metrics)["qsm_node_stage_seconds_count", "unwrap"] == 1
    watcher.stop()
