"""An atlas is read from its folder, the site's own too, and what is wrong in it is told by file."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from dicom_node.atlas import read_atlas
from dicom_node.config import config_folder
from dicom_node.errors import InvalidConfiguration
from dicom_node.recipes import atlas_of, read_recipe
from tests.simulation import atlas as simulated

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


def save(path: Path, values: NDArray, affine: NDArray[np.float64] = AFFINE) -> None:
    nibabel.save(nibabel.Nifti1Image(values, affine), path)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """An atlas of one template and two drawn regions."""
    brain = np.zeros((8, 9, 10), np.uint8)
    brain[2:6, 2:7, 2:8] = 1
    labels = np.zeros(brain.shape, np.int16)
    labels[2:4, 3, 3], labels[4:6, 3, 3] = 7, 300
    save(tmp_path / "brain.nii.gz", brain)
    save(tmp_path / "template.nii.gz", brain.astype(np.int16) * 900)
    save(tmp_path / "labels.nii.gz", labels)
    (tmp_path / "labels.csv").write_text("number,name\n7,left_dentate\n300,right_dentate\n")
    return tmp_path


def test_the_default_atlas_has_the_table_of_nuclei() -> None:
    atlas = read_atlas("icbm152")
    table = simulated.nuclei()
    assert len(atlas.mixtures) == len(table) == 16
    for name, components in table.items():
        structure, _, side = name.rpartition("_")
        mixture = atlas.mixtures[f"{side}_{structure}"]
        assert mixture.threshold == components[0, 0]
        np.testing.assert_array_equal(mixture.means, components[:, 2:5])
        # Right is positive.
        assert (mixture.means[:, 0].mean() > 0) == (side == "right")
    assert {"left_lateral_ventricle", "right_white_matter"} <= set(atlas.names)
    assert 1400 < atlas.brain.sum() * 8e-3 < 2000  # ml
    assert max(image.max() for image in atlas.tissues.values()) <= 1


def test_drawn_regions_lie_on_their_side() -> None:
    atlas = read_atlas("icbm152")
    assert atlas.labels is not None
    for number, name in atlas.label_names.items():
        x = np.argwhere(atlas.labels == number)[:, 0] * atlas.affine[0][0] + atlas.affine[0][3]
        assert (x > 0).all() if name.startswith("right_") else (x < 0).all()


def test_a_site_may_set_an_atlas_of_its_own(site: Path) -> None:
    atlas = read_atlas(str(site))
    assert atlas.name == str(site)
    assert atlas.names == ("left_dentate", "right_dentate")
    assert list(atlas.tissues) == ["template"]
    assert atlas.tissues["template"].max() == 1


def test_a_left_handed_file_is_turned_not_mirrored(site: Path) -> None:
    """The same atlas stored with its first axis to the left."""
    plain = read_atlas(str(site))
    for file in site.glob("*.nii.gz"):
        image = nibabel.load(file)
        values = np.asarray(image.dataobj)[::-1]
        save(file, values, AFFINE @ np.array([[-1, 0, 0, 7], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]))
    turned = read_atlas(str(site))
    np.testing.assert_allclose(turned.affine, plain.affine)
    assert turned.labels is not None
    assert plain.labels is not None
    np.testing.assert_array_equal(turned.labels, plain.labels)


def test_an_unknown_name_lists_those_there_are() -> None:
    with pytest.raises(InvalidConfiguration, match="neither a folder nor one of: icbm152"):
        read_atlas("nowhere")


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("brain.nii.gz", b"no image", "brain.nii.gz cannot be read"),
        ("labels.csv", b"number;name\n7;left_dentate\n", "expected a number and a name"),
        ("labels.csv", b"number,name\n7,one\n300,one\n", "each once"),
        ("labels.csv", b"number,name\n", "names no region"),
        ("mixtures.csv", b"structure,side,threshold\ncaudate,left,0.1\n", "lacks a number"),
    ],
)
def test_what_is_wrong_is_told_with_its_file(site: Path, file: str, content: bytes, said: str) -> None:
    (site / file).write_bytes(content)
    with pytest.raises(InvalidConfiguration, match=said):
        read_atlas(str(site))


def test_images_on_two_grids_are_refused(site: Path) -> None:
    save(site / "template.nii.gz", np.ones((8, 9, 10), np.int16), np.diag([2.0, 2.0, 2.1, 1.0]))
    with pytest.raises(InvalidConfiguration, match="another grid"):
        read_atlas(str(site))
    save(site / "template.nii.gz", np.ones((8, 9, 11), np.int16))
    with pytest.raises(InvalidConfiguration, match=r"expected at least one, of \(8, 9, 10\)"):
        read_atlas(str(site))


def test_the_digest_follows_the_content_and_not_the_name(site: Path, tmp_path: Path) -> None:
    before = read_atlas(str(site)).digest()
    again = shutil.copytree(site, tmp_path / "again")
    assert read_atlas(str(again)).digest() == before
    image = nibabel.load(again / "labels.nii.gz")
    moved = np.roll(np.asarray(image.dataobj), 1, axis=2)
    save(again / "labels.nii.gz", moved)
    assert read_atlas(str(again)).digest() != before
    (site / "labels.csv").write_text("number,name\n7,left_caudate\n300,right_dentate\n")
    assert read_atlas(str(site)).digest() != before


def test_a_recipe_is_another_one_when_its_atlas_has_changed(site: Path, tmp_path: Path) -> None:
    """So the outputs get other UIDs, and a result that was made with the old atlas is made anew."""
    text = (config_folder() / "recipes" / "default.toml").read_text(encoding="utf-8")
    file = tmp_path / "recipe.toml"
    file.write_text(text.replace('name = "icbm152"', f'name = "{site}"'), encoding="utf-8")
    before = read_recipe(file)
    assert before.atlas == read_atlas(str(site)).digest()
    assert read_recipe(file).digest() == before.digest()
    (site / "labels.csv").write_text("number,name\n7,left_caudate\n300,right_dentate\n")
    assert read_recipe(file).digest() != before.digest()
    with pytest.raises(InvalidConfiguration, match="changed since the recipe was read"):
        atlas_of(before)
