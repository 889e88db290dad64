"""How a job is made: as it was begun, as its results were delivered, else as the node is configured."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dicom_node.cleanup import make_anew
from dicom_node.config import recipe_file
from dicom_node.dispatch import Dispatch
from dicom_node.errors import NotConvertible
from dicom_node.execute import WorkerDied
from dicom_node.manner import digest_of, read_manner
from dicom_node.recipes import read_recipe
from dicom_node.reprocess import NotReprocessed, reprocess
from dicom_node.settings import Output, Reconstruct, Scanner
from dicom_node.states import State
from tests.dicom_node.making import an_instance, the_job
from tests.dicom_node.test_dispatch import RECIPE, Line


def changed(line: Line) -> Dispatch:
    """The same node under another recipe, another scanner and another output."""
    dispatch = line.a_dispatch()
    settings = Reconstruct.model_construct(workers=1, attempts=2, time_limit=100.0, pause=0.0, withhold_failed=True)
    scanners = [Scanner(station_name="MR1", phase_sign="flip")]
    dispatch.renew(read_recipe(recipe_file("fast")), settings, ["pacs"], scanners, Output(maps=("t2star",)))
    return dispatch


def the_call(line: Line, job: int) -> tuple[str, dict[str, Any]]:
    """The recipe that a worker was handed last, and what it was told besides."""
    told = json.loads((line.jobs / str(job) / "job.json").read_text())
    return line.executor.calls[-1][2][1].name, {key: told[key] for key in ("recipe", "scanners", "output")}


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return Line(tmp_path)


@pytest.fixture
def default(line: Line) -> Line:
    """Under a recipe that can be read back."""
    line.recipe = read_recipe(recipe_file("default"))
    line.dispatch = line.a_dispatch()
    return line


def test_what_a_crash_interrupts_goes_on_as_it_was_begun_whatever_the_configuration_says_by_then(default: Line) -> None:
    job = default.a_job()
    default.dispatch()
    before = the_call(default, job)
    default.executor.end(WorkerDied("killed"))
    default.clock.now += 100
    dispatch = changed(default)
    dispatch()
    assert the_call(default, job) == before
    other = default.a_job("h", (3,))
    default.executor.end()
    dispatch()
    name, told = the_call(default, other)
    assert (name, told["scanners"][0]["station_name"], told["output"]["maps"]) == ("fast", "MR1", ["t2star"])


@pytest.mark.parametrize("delivered", [True, False])
def test_who_asks_gets_what_was_delivered_made_alike_and_all_else_as_the_node_is_configured(
    default: Line, delivered: bool
) -> None:
    job = default.a_job()
    default.dispatch()
    if delivered:
        default.executor.end()
        for row in default.outbox.of(job):
            default.outbox.answered(row, "stored", 0.0, status=0, comment="", due_at=0.0)
        default.outbox.settle(0.0)
    else:
        default.executor.end(NotConvertible("no background is left by this recipe"))
    dispatch = changed(default)
    assert default.store.run_again(the_job(default.store, job), default.clock())
    dispatch()
    assert the_call(default, job)[0] == ("default" if delivered else "fast")
    if delivered:
        with pytest.raises(NotReprocessed, match="already"):
            reprocess(default.store, the_job(default.store, job), default.recipe, RECIPE, 0.0, "")
        default.executor.end()
        assert {row.outcome for row in default.outbox.of(job)} == {"stored"}, "the same objects: nothing goes out twice"


def test_what_is_delivered_and_cannot_be_made_alike_fails_with_the_way_out_and_nothing_is_sent_beside_it(
    default: Line,
) -> None:
    job = default.a_job()
    default.dispatch()
    default.executor.end()
    default.outbox.answered(default.outbox.of(job)[0], "stored", 0.0, status=0, comment="", due_at=0.0)
    default.store.database.execute("UPDATE jobs SET made_with = json_set(made_with, '$.digest', 'of another version')")
    make_anew(default.store, default.jobs, job, State.SENDING, default.clock(), "its files are gone")
    default.dispatch()
    found = the_job(default.store, job)
    assert (found.state, f"qsm-node reprocess {job}" in found.reason) == (State.FAILED, True)
    assert "another version of the node" in found.reason
    made, _ = reprocess(default.store, found, default.recipe, default.recipe, 0.0, "")
    default.dispatch()
    assert the_job(default.store, made.id).state is State.RECONSTRUCTING


@pytest.mark.parametrize("told", [True, False])
def test_what_an_earlier_version_delivered_is_made_as_its_folder_tells_or_not_at_all(default: Line, told: bool) -> None:
    """Its rows, and pages of the ledger, do not say how it was made."""
    job = default.a_job()
    default.dispatch()
    before = the_call(default, job)
    default.executor.end()
    for row in default.outbox.of(job):
        default.outbox.answered(row, "stored", 0.0, status=0, comment="", due_at=0.0)
    default.outbox.settle(0.0)
    default.store.keep_manner(job, "")
    made = default.recipe.as_mapping() | {"digest": default.recipe.digest()}
    report = default.jobs / str(job) / "result" / "report.json"
    if told:
        report.write_text(json.dumps({"recipe": made, "atlas": {"sha256": default.recipe.atlas}}))
    default.store.run_again(the_job(default.store, job), default.clock())
    changed(default)()
    found = the_job(default.store, job)
    if told:
        assert (the_call(default, job), digest_of(found.made_with)) == (before, default.recipe.digest())
        return
    assert (found.state, f"qsm-node reprocess {job}" in found.reason) == (State.FAILED, True)
    assert {row.outcome for row in default.outbox.of(job)} == {"stored"}
    shutil.rmtree(default.jobs / str(job))
    assert reprocess(default.store, found, default.recipe, default.recipe, 0.0, "")[1], "the way out is none"


def test_what_is_not_delivered_and_cannot_be_made_alike_is_made_as_the_node_is_configured(default: Line) -> None:
    job = default.a_job()
    default.dispatch()
    default.executor.end(WorkerDied("killed"))
    default.clock.now += 100
    default.store.database.execute("UPDATE jobs SET made_with = replace(made_with, 'mcpc3ds', 'magic')")
    changed(default)()
    assert the_call(default, job)[0] == "fast"
    assert json.loads(the_job(default.store, job).made_with)["recipe"]["name"] == "fast"


def test_other_images_make_another_result_as_the_node_is_configured(default: Line) -> None:
    job = default.a_job()
    default.dispatch()
    default.executor.end(NotConvertible("a slice is black"))
    found = the_job(default.store, job)
    assert found.made_with
    default.store.advance(job, State.FAILED, State.WAITING, 0.0)
    default.store.set_images(the_job(default.store, job), [*found.images, an_instance(3).sop_instance_uid])
    assert not the_job(default.store, job).made_with


def test_a_job_with_a_recipe_of_its_own_is_done_with_that(line: Line) -> None:
    recipe = read_recipe(recipe_file("fast"))
    job = the_job(line.store, line.a_job())
    made, is_new = reprocess(line.store, job, recipe, RECIPE, line.clock(), "asked for")
    assert is_new
    line.dispatch = line.a_dispatch(workers=2)
    line.dispatch()
    assert [call[2][1] for call in line.executor.calls] == [RECIPE, recipe]
    described = json.loads((line.jobs / str(made.id) / "job.json").read_text())
    assert described["recipe"] == {"name": "fast", "digest": recipe.digest()}
    assert described["reprocessed"] == 1
    assert json.loads((line.jobs / str(job.id) / "job.json").read_text())["reprocessed"] == 0


def test_what_is_begun_again_reads_one_recipe_not_two(line: Line) -> None:
    """Each time takes a process."""
    job = the_job(line.store, line.a_job())
    read: list[Callable[..., Any]] = []

    def apart(function: Callable[..., Any], *arguments: Any) -> Any:
        read.append(function)
        return function(*arguments)

    line.store.advance(job.id, State.READY, State.CANCELLED, 0.0)
    reprocess(line.store, job, read_recipe(recipe_file("fast")), RECIPE, line.clock(), "asked for")
    line.dispatch()
    line.executor.end(WorkerDied("killed"))
    line.clock.now += 100
    line.dispatch._apart = apart
    line.dispatch()
    assert (read, line.executor.calls[0][2][1].name) == ([read_manner], "fast")


def test_a_recipe_of_another_version_fails_its_job_by_name(line: Line) -> None:
    job = the_job(line.store, line.a_job())
    made, _ = reprocess(line.store, job, read_recipe(recipe_file("fast")), RECIPE, line.clock(), "asked for")
    line.store.database.execute("UPDATE jobs SET recipe = replace(recipe, 'mcpc3ds', 'magic') WHERE id = ?", [made.id])
    line.dispatch = line.a_dispatch(workers=2)
    line.dispatch()
    found = the_job(line.store, made.id)
    assert (found.state, "magic" in found.reason) == (State.FAILED, True)
    assert line.dispatch.running == {job.id}
