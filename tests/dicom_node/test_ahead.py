from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node import ahead
from dicom_node.ahead import read_ahead
from dicom_node.execute import WorkerStopped
from dicom_node.folder import read
from tests.dicom_node.convert.scans import noise
from tests.simulation.siemens import write_siemens


def test_other_processes_read_what_this_one_would(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    paths = write_siemens(noise(), tmp_path)
    paths[0].write_bytes(paths[0].read_bytes()[:-9])
    (tmp_path / "note.txt").write_text("no image")
    expected, said = read(tmp_path), capfd.readouterr().err
    assert len(expected) == len(paths) - 1
    assert "damaged" in said
    with read_ahead(tmp_path) as instances:
        assert instances() == expected
    assert capfd.readouterr().err == said


def test_who_does_not_wait_leaves_no_process_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []

    class Executor(ahead.ProcessPerJob):
        def submit(self, *call, **settings):  # type: ignore[no-untyped-def]  # passed on
            begun.append(super().submit(*call, **settings))
            return begun[-1]

    monkeypatch.setattr(ahead, "ProcessPerJob", Executor)
    with pytest.raises(ValueError, match="no recipe"), read_ahead(tmp_path):
        raise ValueError("no recipe")
    assert len(begun) == ahead.READERS
    assert all(isinstance(reading.exception(), WorkerStopped) for reading in begun)


def test_each_file_is_of_one_part_whatever_lies_beside_it(tmp_path: Path) -> None:
    paths = write_siemens(noise(), tmp_path)
    before = [{found.path for found in read(tmp_path, part, 2)} for part in range(2)]
    (tmp_path / "!first").write_text("no image")
    paths[3].unlink()
    after = [{found.path for found in read(tmp_path, part, 2)} for part in range(2)]
    assert before[0] | before[1] == set(paths)
    assert not before[0] & before[1]
    assert after == [part - {paths[3]} for part in before]
