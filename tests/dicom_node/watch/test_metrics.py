"""Metrics hold what happened and what is so, in the format that Prometheus reads, and never a caller's words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from dicom_node.call import SendSettings
from dicom_node.contacts import Contact, Event
from dicom_node.errors import PeerFailure
from dicom_node.outbox import Outbox, Result
from dicom_node.receive import Refused, Stored
from dicom_node.send import Delivery
from dicom_node.states import State
from dicom_node.store import Move, Store
from dicom_node.trail import Standing
from dicom_node.watch.metrics import Metrics
from dicom_node.watch.pulse import Pulse
from tests.dicom_node.making import Clock, a_ready_job, the_job


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "node.db")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pulse(clock: Clock) -> Pulse:
    return Pulse(clock)


@pytest.fixture
def peers() -> list[str]:
    return ["mr1"]


@pytest.fixture
def metrics(store: Store, clock: Clock, pulse: Pulse, peers: list[str]) -> Metrics:
    return Metrics(
        *(store, store.path.parent / "jobs", pulse, lambda: ["pacs"], lambda: peers, clock),
        lambda: Standing(sent=3, lost=1, queued=2, silent_for=7.5, trouble=""),
    )


def values(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """By name and label values, in the order of the labels' names."""
    text = metrics.encoded("text/plain")[0].decode()
    return {
        (sample.name, *(sample.labels[label] for label in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def reconstructed(job: int, folder: Path) -> None:
    result = folder / "jobs" / str(job) / "result"
    result.mkdir(parents=True)
    (result / "report.json").write_text(json.dumps({"timings_s": {"unwrap": 2.5}}))


def test_a_peer_that_a_reload_has_added_begins_at_zero_too(metrics: Metrics, peers: list[str]) -> None:
    assert ("qsm_node_associations_total", "accepted", "mr2") not in values(metrics)
    peers.append("mr2")
    assert values(metrics)["qsm_node_associations_total", "accepted", "mr2"] == 0


def test_every_series_is_one_that_the_documentation_names(metrics: Metrics, tmp_path: Path) -> None:
    reconstructed(7, tmp_path)
    metrics.moved(Move(1, 1.0, 7, None, State.RECONSTRUCTED, ""))
    documented = (Path(__file__).parents[3] / "docs" / "operations.md").read_text()
    for accept in ("text/plain", "application/openmetrics-text; version=1.0.0"):
        told = metrics.encoded(accept)[0].decode()
        names = set(re.findall(r"(?m)^([a-z]\w*)", told)) - set(re.findall(r"\bprocess_\w+", told))
        assert {"qsm_node_instances_received_total", "qsm_node_stage_seconds_sum"} <= names
        for name in names:
            assert f"`{re.sub('_(sum|count|info)$', '', name)}" in documented, name


def test_series_of_what_is_configured_begin_at_zero(metrics: Metrics) -> None:
    found = values(metrics)
    assert found["qsm_node_associations_total", "accepted", "mr1"] == 0
    assert found["qsm_node_associations_total", "rejected", "unknown"] == 0
    assert found["qsm_node_deliveries_total", "pacs", "stored"] == 0
    assert found["qsm_node_instances_received_total", "refused"] == 0
    assert found["qsm_node_deliveries_pending", "pacs"] == 0
    assert {found["qsm_node_jobs", state.value] for state in State} == {0}
    assert found["qsm_node_start_time_seconds",] == 1000.0
    assert [found["qsm_node_audit_messages_total", outcome] for outcome in ("sent", "lost")] == [3, 1]
    assert (found["qsm_node_audit_queued",], found["qsm_node_audit_silent_seconds",]) == (2, 7.5)
    assert found["qsm_node_disk_size_bytes",] > found["qsm_node_disk_free_bytes",] > 0
    assert any(name[0] == "qsm_node_build_info" for name in found)
    assert found["process_resident_memory_bytes",] > 0


def test_both_formats_are_spoken(metrics: Metrics) -> None:
    for accept, expected in (("", "text/plain"), ("application/openmetrics-text; version=1.0.0", "openmetrics")):
        body, content_type = metrics.encoded(accept)
        assert expected in content_type
        assert b"qsm_node_jobs" in body


def test_instances_are_counted_by_outcome(metrics: Metrics) -> None:
    metrics.stored(Stored(Path("/x"), "a", 1.0))
    metrics.stored(Stored(Path("/x"), "a", 1.0, repeated=True))
    for status in (0xA900, 0):
        metrics.refused(Refused("why", status, "a", 1.0, "1.2", "MR1", None))
    found = values(metrics)
    outcomes = ("stored", "repeated", "refused", "conflict")
    assert [found["qsm_node_instances_received_total", outcome] for outcome in outcomes] == [1, 1, 1, 1]


def test_callers_who_are_no_peer_make_no_series_of_their_own(metrics: Metrics) -> None:
    metrics.contact(Contact(Event.OPENED, "mr1", "MR1", "10.1.2.3", 1.0))
    metrics.contact(Contact(Event.CLOSED, "mr1", "MR1", "10.1.2.3", 2.0, "it has no right to query", denied=5))
    for number in range(20):
        metrics.contact(Contact(Event.REJECTED, "", f"DOE{number}", "10.9.9.9", 3.0))
    found = values(metrics)
    assert found["qsm_node_associations_total", "accepted", "mr1"] == 1
    assert found["qsm_node_associations_total", "rejected", "unknown"] == 20
    assert found["qsm_node_requests_denied_total", "mr1"] == 5
    assert not any("DOE" in label for name in found for label in name)


def test_stages_are_timed_when_a_job_is_reconstructed(metrics: Metrics, tmp_path: Path) -> None:
    reconstructed(7, tmp_path)
    for job, target in ((7, State.RECONSTRUCTED), (7, State.SENDING), (8, State.RECONSTRUCTED)):
        metrics.moved(Move(1, 1.0, job, None, target, ""))
    found = values(metrics)
    assert found["qsm_node_stage_seconds_sum", "unwrap"] == 2.5
    assert found["qsm_node_stage_seconds_count", "unwrap"] == 1


def test_what_a_destination_answers_is_counted_on_the_way(metrics: Metrics) -> None:
    def send(files: Sequence[Path], to: Any, settings: SendSettings) -> Iterator[Delivery]:
        yield Delivery("1", Path("/a"), 0, "stored", "")
        yield Delivery("2", Path("/b"), 0xA900, "refused", "Doe^Jane")
        raise PeerFailure("it broke off")

    counted = metrics.counting(send, "pacs")
    with pytest.raises(PeerFailure):
        list(counted([], None, SendSettings()))
    found = values(metrics)
    assert [found["qsm_node_deliveries_total", "pacs", outcome] for outcome in ("stored", "refused")] == [1, 1]
    assert found["qsm_node_destination_failures_total", "pacs"] == 1


def test_what_is_so_is_asked_of_the_store(metrics: Metrics, store: Store, clock: Clock) -> None:
    outbox = Outbox(store, frozenset({"pacs"}))
    for number in range(3):
        a_ready_job(store, f"g{number}", now=900.0 + number)
    store.claim(950.0, lease=1, ceiling=3)
    store.advance(1, State.RECONSTRUCTING, State.RECONSTRUCTED, 960.0)
    outbox.register(the_job(store, 1), [Result("1.1", Path("/a")), Result("1.2", Path("/b"))], ["pacs"], 970.0)
    kept, left = outbox.of(1)
    outbox.answered(kept, "stored", 980.0, status=0, comment="answered 0x0000", due_at=980.0)
    outbox.postpone([left], 990.0, comment="away", due_at=2000.0)
    found = values(metrics)
    assert (found["qsm_node_jobs", "ready"], found["qsm_node_jobs", "sending"]) == (2, 1)
    assert (found["qsm_node_queue_length",], found["qsm_node_queue_oldest_seconds",]) == (2, 99.0)
    assert found["qsm_node_deliveries_pending", "pacs"] == 1
    assert found["qsm_node_destination_silent_seconds", "pacs"] == 20.0
    assert found["qsm_node_commitment_pending", "pacs"] == 1


def test_rounds_that_fail_are_counted_by_part(metrics: Metrics, pulse: Pulse) -> None:
    pulse.ended("group")
    pulse.failed("group", OSError("Doe^Jane"))
    found = values(metrics)
    assert found["qsm_node_round_failures_total", "group"] == 1
    assert found["qsm_node_round_last_success_timestamp_seconds", "group"] == 1000.0
