from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from dicom_node.commands import main
from dicom_node.compare import NotComparable, compare, in_words_of
from dicom_node.finished import Finished, read_result
from tests.dicom_node.encode.example import maps, whole_maps
from tests.dicom_node.results import altered, write_result

LATER = {"StudyInstanceUID": "1.2.9", "StudyDate": "20270102"}
RISE = 0.005
"""ppm."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("compare")
    risen = dataclasses.replace(whole_maps(), chi=whole_maps().chi + RISE)
    return write_result(root / "before"), write_result(root / "after", risen, **LATER)


@pytest.fixture(scope="module")
def results(folders: tuple[Path, Path]) -> tuple[Finished, Finished]:
    before, after = folders
    return read_result(before), read_result(after)


def test_each_region_s_change_is_after_minus_before(results: tuple[Finished, Finished]) -> None:
    found = compare(*results)
    assert found.days == 365
    assert len(found.changes) == len(results[0].record["regions"])
    for change in found.changes:
        assert change.chi[2] == pytest.approx(RISE * 1000, abs=1e-2)
        assert change.volume[2] == 0
        assert change.r2star is not None
        assert change.r2star[2] == 0


def test_the_order_they_are_named_in_does_not_matter(results: tuple[Finished, Finished]) -> None:
    assert compare(*results) == compare(*reversed(results))


def test_a_result_does_not_differ_from_itself(results: tuple[Finished, Finished]) -> None:
    found = compare(results[0], results[0])
    assert {change.chi[2] for change in found.changes} == {0}
    assert "Both are made of the same images in the same way: this is one result" in in_words_of(found)
    other = altered(results[0], {"source": results[0].record["source"] | {"sop_instance_uids": ["1.2.9.1"]}})
    assert "one result" not in in_words_of(compare(results[0], other))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"mask": "NIfTI with SHA-256 1"}, "The brain mask of the earlier map is the site's own"),
        ({"phase_override": {"sign": "flip"}}, "sign flip for the earlier map, as its header says for the later one"),
    ],
)
def test_what_the_site_put_in_a_step_s_place_is_told(
    changed: dict[str, object], words: str, results: tuple[Finished, Finished]
) -> None:
    one, later = results
    other = altered(one, {"source": one.record["source"] | changed})
    assert words in in_words_of(compare(other, later))
    of_same_images = in_words_of(compare(other, one))
    assert words in of_same_images
    assert "a change is the making's" in of_same_images
    assert "one result" not in of_same_images
    assert "one result" in in_words_of(compare(other, other))


def test_two_masks_of_a_site_are_alike_for_two_scans_and_not_for_one(results: tuple[Finished, Finished]) -> None:
    one, later = (
        altered(result, {"source": result.record["source"] | {"mask": f"SHA-256 {scan}", "sop_instance_uids": [scan]}})
        for scan, result in zip(("1.2.1", "1.2.2"), results, strict=True)
    )
    assert "mask" not in in_words_of(compare(one, later))
    redrawn = altered(one, {"source": one.record["source"] | {"mask": "SHA-256 9"}})
    assert "two of the site's own" in in_words_of(compare(one, redrawn))


def test_no_figure_is_a_negative_zero(results: tuple[Finished, Finished]) -> None:
    regions = {
        name: figures | {"chi": figures["chi"] | {"mean": -1e-3}}
        for name, figures in results[0].record["regions"].items()
    }
    said = in_words_of(compare(altered(results[0], {"regions": regions}), altered(results[0], {"regions": regions})))
    assert "-0.0" not in said
    assert "+0.0" in said


def test_says_what_a_reader_must_know(results: tuple[Finished, Finished]) -> None:
    said = in_words_of(compare(*results))
    assert "left caudate nucleus" in said
    assert "+5.0" in said
    assert "365 days" in said
    assert "The earlier map is graded review: the field of the sinuses is weak" in said
    assert "repeated scans of one person" in said
    assert "For research, not for diagnosis." in said


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"PatientID": "4711"}, "different patients"),
        ({"PatientBirthDate": "19620324"}, "different patients"),
        ({"PatientID": ""}, "no PatientID"),
    ],
)
def test_another_patient_is_refused(attributes: dict[str, str], words: str, results: tuple[Finished, Finished]) -> None:
    with pytest.raises(NotComparable, match=words):
        compare(results[0], altered(results[1], **attributes))


def test_another_recipe_or_zero_is_refused(results: tuple[Finished, Finished]) -> None:
    other = altered(results[1], {"recipe": results[1].record["recipe"] | {"digest": "0" * 64}})
    with pytest.raises(NotComparable, match="made in different ways"):
        compare(results[0], other)
    other = altered(results[1], {"reference": results[1].record["reference"] | {"name": "whole_brain"}})
    with pytest.raises(NotComparable, match="the zero of one map is csf, of the other whole_brain"):
        compare(results[0], other)


def test_what_is_in_one_only_and_other_scanners_are_told(results: tuple[Finished, Finished], tmp_path: Path) -> None:
    other = read_result(write_result(tmp_path, maps(r2star=False), **(LATER | {"DeviceSerialNumber": "2"})))
    found = compare(results[0], other)
    assert [change.region for change in found.changes] == ["csf", "whole_brain"]
    assert {change.r2star for change in found.changes} == {None}
    assert any("Found in one of them only: left caudate nucleus" in note for note in found.notes)
    assert any("different scanners" in note for note in found.notes)


def test_the_command_tells_no_name(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    before, after = map(str, folders)
    assert main(["compare", before, after]) == 0
    assert main(["compare", before, after, "--json"]) == 0
    said = capsys.readouterr().out
    assert json.loads(said[said.index("{") :])["days"] == 365
    assert "Müller" not in said
    assert "0815" not in said
