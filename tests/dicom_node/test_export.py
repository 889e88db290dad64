from __future__ import annotations

import csv
import json
import re
import socket
import subprocess
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from dicom_node import pseudonym
from dicom_node.commands import main
from dicom_node.export import Label, NotOurs, SameName, export_bids, export_csv
from dicom_node.finished import NoResult, find_result, read_result
from dicom_node.pseudonym import NoPseudonym, Pseudonyms, read_pseudonyms
from dicom_node.settings import Output
from tests.dicom_node.encode.example import NUCLEI, affine, header, maps, recipe, whole_maps
from tests.dicom_node.results import altered, write_result

KEY = Pseudonyms(b"k" * 32)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_result(tmp_path_factory.mktemp("result"))


@pytest.fixture(scope="module")
def dataset(result: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two time points of one patient."""
    folder = tmp_path_factory.mktemp("export") / "bids"
    later = write_result(tmp_path_factory.mktemp("later"), StudyInstanceUID="1.2.9", StudyDate="20270102")
    for made in (result, later):
        read = read_result(made)
        export_bids(read, Label.of(read, KEY), folder)
    return folder


def test_the_bids_validator_finds_no_error(dataset: Path, bids_validator_command: Path) -> None:
    found = subprocess.run(
        [bids_validator_command, dataset, "--format", "json"], capture_output=True, text=True, check=False
    )
    issues = json.loads(found.stdout)["issues"]["issues"]
    assert [issue for issue in issues if issue["severity"] == "error"] == []
    assert json.loads(found.stdout)["summary"]["sessions"]


def test_maps_hold_the_values_and_lie_where_the_scan_lay(dataset: Path) -> None:
    path = next(dataset.glob("sub-*/ses-*/anat/*_run-7_Chimap.nii.gz"))
    image = nib.load(path)
    assert np.abs(np.asarray(image.dataobj) - maps().chi).max() <= 0.5e-3  # ppm; the series is in whole ppb
    np.testing.assert_allclose(image.affine, affine(), atol=1e-4)
    sidecar = json.loads(Path(str(path).replace(".nii.gz", ".json")).read_text())
    assert sidecar["Units"] == "ppm"
    assert sidecar["ReferenceRegion"]["name"] == "csf"
    assert sidecar["Recipe"]["inversion"]["method"] == "tv"
    assert sidecar["Grade"] == {"grade": "review", "grounds": ["the field of the sinuses is weak"]}


def test_a_parametric_map_is_exported_unrounded(tmp_path: Path) -> None:
    read = read_result(write_result(tmp_path / "in", output=Output(objects=("parametric",))))
    np.testing.assert_allclose(read.volume("r2star"), maps().r2star, rtol=1e-6)
    np.testing.assert_allclose(read.volume("qsm"), maps().chi * 1000, rtol=1e-6)


def test_the_nuclei_have_a_table_with_their_figures(result: Path, dataset: Path) -> None:
    labels = next(dataset.glob("sub-*/ses-*/anat/*_dseg.nii.gz"))
    with Path(str(labels).replace(".nii.gz", ".tsv")).open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert {row["name"] for row in rows} == set(NUCLEI)
    volume = np.asarray(nib.load(labels).dataobj)
    figures = json.loads((result / "report.json").read_text())["regions"]
    for row in rows:
        inside = volume == int(row["index"])
        assert inside.sum() == int(row["voxels"]) == figures[row["name"]]["voxels"]
        assert float(row["chi_mean_ppb"]) == pytest.approx(maps().chi[inside].mean() * 1000, rel=1e-4)


def test_nothing_names_the_patient(dataset: Path) -> None:
    patient = header()
    private = [str(patient.PatientName), "Müller", patient.PatientBirthDate, patient.AccessionNumber, "20260102"]
    for path in dataset.rglob("*"):
        assert not any(word in path.name for word in private)
        if path.suffix in (".json", ".tsv", ".md"):
            text = path.read_text()
            assert not any(word in text for word in (*private, patient.StudyInstanceUID + ".4")), path


def test_doing_it_again_changes_nothing(result: Path, dataset: Path) -> None:
    before = {path: path.read_bytes() for path in dataset.rglob("*") if path.suffix in (".json", ".tsv")}
    read = read_result(result)
    export_bids(read, Label.of(read, KEY), dataset)
    assert before == {path: path.read_bytes() for path in dataset.rglob("*") if path.suffix in (".json", ".tsv")}


def test_another_result_with_the_same_names_is_kept(result: Path, tmp_path: Path) -> None:
    read = read_result(result)
    export_bids(read, Label.of(read, KEY), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    images = read.record["source"] | {"sop_instance_uids": ["1.2.3"]}
    other = altered(read, {"source": images, "grade": {"grade": "good", "grounds": []}})
    with pytest.raises(SameName, match="of other images of the same study"):
        export_bids(other, Label.of(other, KEY), tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    export_bids(other, replace(Label.of(other, KEY), run=0), tmp_path)
    again = altered(read, {"grade": {"grade": "good", "grounds": []}})
    export_bids(again, Label.of(again, KEY), tmp_path)
    sidecar = json.loads(next(tmp_path.glob("sub-*/ses-*/anat/*_run-7_Chimap.json")).read_text())
    assert sidecar["Grade"]["grade"] == "good"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"recipe": {"name": "fast", "digest": "1" * 64}}, "recipe default .* than this result .recipe fast 1111"),
        ({"source": {"mask": "segmentation 1.2.3"}}, "mask the site's own"),
        ({"source": {"phase_override": {"sign": "flip"}}}, "phase sign flip"),
    ],
)
def test_what_was_made_in_another_way_is_neither_overwritten_nor_mixed(
    changed: dict[str, dict[str, object]], words: str, result: Path, tmp_path: Path
) -> None:
    read = read_result(result)
    export_bids(read, Label.of(read, KEY), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    other = altered(read, {part: read.record[part] | values for part, values in changed.items()})
    with pytest.raises(SameName, match=words):
        export_bids(other, Label.of(other, KEY), tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    export_bids(other, Label.of(other, KEY), tmp_path / "other")
    with pytest.raises(SameName):
        export_bids(read, Label.of(read, KEY), tmp_path / "other")


def test_what_an_earlier_export_left_goes_and_what_a_site_added_stays(result: Path, tmp_path: Path) -> None:
    read = read_result(result)
    export_bids(read, Label.of(read, KEY), tmp_path)
    stem = next(tmp_path.rglob("*_Chimap.json")).with_suffix("").as_posix().removesuffix("_Chimap")
    stale, added = Path(f"{stem}_T2starmap.nii.gz"), Path(f"{stem}_desc-lesions_mask.json")
    stale.write_bytes(b"")
    added.write_text("{}")
    export_bids(read, Label.of(read, KEY), tmp_path)
    assert not stale.exists()
    assert added.exists()


def test_a_mask_of_the_site_s_own_is_told_and_names_no_object(result: Path, tmp_path: Path) -> None:
    read = read_result(result)
    other = altered(read, {"source": read.record["source"] | {"mask": "segmentation 1.2.3.77"}})
    export_bids(other, Label.of(other, KEY), tmp_path)
    sidecar = next(tmp_path.rglob("*_Chimap.json")).read_text()
    told = json.loads(sidecar)
    assert told["EstimationAlgorithm"] == "mask the site's own, inversion tv"
    assert told["Mask"]["Origin"].startswith("the site's own")
    assert "1.2.3.77" not in sidecar


def test_a_result_that_stands_aside_keeps_its_run_and_names_its_recipe(
    result: Path, tmp_path: Path, bids_validator_command: Path
) -> None:
    """With a structure whose name the character set lacks letters for."""
    given = whole_maps()
    assert given.regions is not None
    named = replace(given, regions=replace(given.regions, names=("left_東京", *given.regions.names[1:])))
    beside = write_result(tmp_path / "in", named, replace(recipe(), name="fast 2"), place=1)
    for made in (result, beside):
        read = read_result(made)
        export_bids(read, Label.of(read, KEY), tmp_path / "bids")
    names = {path.name.split("_", 2)[2] for path in (tmp_path / "bids").rglob("*_Chimap.json")}
    assert names == {"run-7_Chimap.json", "rec-fast2_run-7_Chimap.json"}
    table = next((tmp_path / "bids").rglob("*_rec-fast2_run-7_desc-nuclei_dseg.tsv")).read_text(encoding="utf-8")
    assert "left_東京" in table
    command = [bids_validator_command, tmp_path / "bids", "--format", "json"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    issues = json.loads(found.stdout)["issues"]["issues"]
    assert [issue for issue in issues if issue["severity"] == "error"] == []


def test_a_sex_that_is_none_is_written_nowhere(result: Path, tmp_path: Path) -> None:
    read = read_result(result)
    note = altered(read, PatientSex="DOE")
    export_csv([(note, Label.of(note, KEY))], tmp_path / "cohort.csv")
    export_bids(note, Label.of(note, KEY), tmp_path / "bids")
    with (tmp_path / "cohort.csv").open(newline="") as file:
        assert {row["sex"] for row in csv.DictReader(file)} == {""}
    assert (tmp_path / "bids" / "participants.tsv").read_text().splitlines()[1].split("\t")[1] == "n/a"


def test_a_folder_that_holds_something_else_is_left_alone(result: Path, tmp_path: Path) -> None:
    read = read_result(result)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(NotOurs, match="not empty"):
        export_bids(read, Label.of(read, KEY), tmp_path / "full")
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "dataset_description.json").write_text('{"Name": "raw"}')
    with pytest.raises(NotOurs, match="did not make"):
        export_bids(read, Label.of(read, KEY), tmp_path / "raw")


def test_without_trusted_regions_maps_are_exported_alone(tmp_path: Path) -> None:
    read = read_result(write_result(tmp_path / "in", whole_maps(trusted=False)))
    export_bids(read, Label.of(read, KEY), tmp_path / "bids")
    assert not list((tmp_path / "bids").rglob("*_dseg*"))
    assert list((tmp_path / "bids").rglob("*_Chimap.nii.gz"))


def test_a_cohort_is_one_table(result: Path, tmp_path: Path) -> None:
    first = read_result(result)
    without_r2star = {name: figures | {"r2star": None} for name, figures in first.record["regions"].items()}
    other = altered(first, {"regions": without_r2star}, PatientID="4711", PatientBirthDate="19000101")
    results = [first, other]
    count = export_csv(((read, Label.of(read, KEY)) for read in results), tmp_path / "cohort.csv")
    with (tmp_path / "cohort.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == count == 2 * (len(NUCLEI) + 2)
    assert len({row["participant"] for row in rows}) == 2
    figures = [row[column] for row in rows for column in row if column.startswith(("chi_", "r2star_", "volume_"))]
    assert all(re.fullmatch(r"(-?\d+\.\d+)?", figure) for figure in figures)
    assert not any(re.fullmatch(r"-0\.0+", figure) for figure in figures)
    assert {row["age_years"] for row in rows} == {"63.8", "89"}
    caudate = next(row for row in rows if (row["structure"], row["side"]) == ("caudate", "left"))
    assert float(caudate["chi_mean_ppb"]) == pytest.approx(374, abs=0.1)
    assert (caudate["model"], caudate["larmor_frequency_mhz"]) == ("", "123.2000")
    assert (caudate["voxel_size_mm"], caudate["echo_times_ms"]) == ("0.5 0.75 2.5", "4 12")
    assert {row["r2star_mean_per_s"] for row in rows if row["participant"] == rows[-1]["participant"]} == {""}


def test_a_label_is_the_same_every_time_and_hangs_on_the_key() -> None:
    one, other = Pseudonyms(b"a" * 32), Pseudonyms(b"b" * 32)
    assert one.subject(header()) == one.subject(header(3))
    assert one.subject(header()) != other.subject(header())
    assert one.subject(header()).isalnum()
    nobody = header()
    nobody.PatientID = ""
    with pytest.raises(NoPseudonym):
        one.subject(nobody)


def test_the_key_is_made_once_and_kept_from_others(tmp_path: Path) -> None:
    key = read_pseudonyms(tmp_path / "state").key
    assert read_pseudonyms(tmp_path / "state").key == key
    assert (tmp_path / "state" / "pseudonym.key").stat().st_mode & 0o077 == 0


def test_a_key_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(length: int) -> bytes:
        raise OSError("no power")

    with monkeypatch.context() as patched:
        patched.setattr(pseudonym.secrets, "token_bytes", stop)
        with pytest.raises(OSError, match="no power"):
            read_pseudonyms(tmp_path)
    assert not list(tmp_path.iterdir())
    key = read_pseudonyms(tmp_path).key
    assert [path.name for path in tmp_path.iterdir()] == ["pseudonym.key"]
    pseudonym._make_key(tmp_path / "pseudonym.key")
    assert read_pseudonyms(tmp_path).key == key, "whoever was first has made it"


def test_the_command_takes_jobs_and_folders(result: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = tmp_path / "state"
    (state / "jobs" / "3").mkdir(parents=True)
    (state / "jobs" / "3" / "result").symlink_to(result)
    config = tmp_path / "node.toml"
    config.write_text(f'[node]\nstate_folder = "{state}"\n')
    told = ["--bids", str(tmp_path / "bids"), "--csv", str(tmp_path / "c.csv"), "--config", str(config)]
    assert main(["export", "3", str(result), *told]) == 0
    assert (tmp_path / "bids" / "dataset_description.json").exists()
    assert main(["export", "3", "--subject", "P01", *told]) == 0
    assert (tmp_path / "bids" / "sub-P01").is_dir()
    assert main(["export", "4", *told]) == 1
    assert main(["export", "3", "--config", str(config)]) == 2
    lost = [*told[:1], str(tmp_path / "other"), "--csv", str(tmp_path / "absent" / "c.csv"), *told[4:]]
    assert main(["export", "3", *lost]) == 2
    assert not (tmp_path / "other").exists()
    said = capsys.readouterr()
    assert f"{tmp_path / 'absent'} is no folder; make it first" in said.err
    assert "there is no folder of job 4" in said.err
    assert "--bids" in said.err


def test_what_is_no_result_is_named(tmp_path: Path) -> None:
    with pytest.raises(NoResult, match=r"no report\.json"):
        find_result(str(tmp_path), tmp_path)
    (tmp_path / "report.json").write_text('{"recipe": {}}')
    with pytest.raises(NoResult, match="lacks grade, regions, software"):
        read_result(tmp_path)


def test_an_export_is_told_to_the_audit_repository_once_for_each_result_and_place(
    result: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_USER", "anna")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as repository:
        repository.bind(("127.0.0.1", 0))
        repository.settimeout(10)
        config = tmp_path / "node.toml"
        config.write_text(
            f'[node]\nstate_folder = "{tmp_path / "state"}"\n'
            f'[audit]\nhost = "127.0.0.1"\nport = {repository.getsockname()[1]}\nprotocol = "udp"\n'
        )
        places = ["--bids", str(tmp_path / "bids"), "--csv", str(tmp_path / "table.csv")]
        assert main(["export", str(result), "--config", str(config), *places]) == 0
        told = [repository.recv(2**16).decode() for _ in range(2)]
    for message, place in zip(told, ("bids", "table.csv"), strict=True):
        assert '"110106"' in message
        assert f'UserID="{(tmp_path / place).as_uri()}"' in message
        assert 'UserID="anna"' in message
        assert f'ParticipantObjectID="{read_result(result).header.PatientID}"' in message
