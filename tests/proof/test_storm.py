"""Killed at random under load: nothing that was acknowledged is lost, nothing is missing, nothing is there twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.peers import running_orthanc
from tests.proof.plays import KINDS
from tests.proof.storm import Storm


@pytest.mark.orthanc
@pytest.mark.parametrize("kills", [3, pytest.param(200, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
def test_killed_at_random_under_load(orthanc_command: Path, tmp_path: Path, kills: int) -> None:
    with running_orthanc(orthanc_command, tmp_path / "orthanc") as archive:
        outcome = Storm(tmp_path, archive, seed=kills).run(kills)
    assert outcome.kills == kills
    assert (outcome.lost, outcome.missing, outcome.duplicate, outcome.unfinished) == ([], [], [], [])
    assert outcome.studies >= kills / 3, "there was no load"
    assert outcome.results == outcome.studies * len(KINDS)
