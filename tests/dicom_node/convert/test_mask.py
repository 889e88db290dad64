"""The site's own brain mask: on the images' grid whatever the order of its axes, refused on any other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import highdicom as hd
import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmwrite
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from dicom_node.convert import Source, convert, describe
from dicom_node.convert.mask import on_grid, with_mask
from dicom_node.encode.segmentation import anonymous
from dicom_node.errors import NotConvertible
from dicom_node.group import group
from dicom_node.model import Completeness, Group
from reconstruction import Acquisition
from tests.dicom_node.convert.scans import AXIAL, CORONAL, SAGITTAL, groups, noise, rotated
from tests.dicom_node.encode.example import SHAPE
from tests.dicom_node.study import image, write_study

Mask = NDArray[np.bool_]
AXES = [AXIAL, SAGITTAL, CORONAL, rotated(AXIAL, 25)]


@pytest.fixture
def study(tmp_path: Path) -> list[Path]:
    return write_study(tmp_path / "images")


def converted(study: list[Path]) -> tuple[Group, Acquisition, Source]:
    (found,) = groups(study)
    return found, *convert(found)


def some_mask(shape: tuple[int, int, int]) -> Mask:
    return np.random.default_rng(3).random(shape) > 0.4


def nifti(path: Path, values: NDArray[np.generic], affine: NDArray[np.float64]) -> Path:
    volume = nibabel.Nifti1Image(values, affine)
    volume.set_sform(affine, 1)
    nibabel.save(volume, path)
    return path


def segmentation(path: Path, mask: Mask, kind: Code = codes.SCT.Brain, uid: str = "1.2.3.77.1") -> Path:
    """As a site's drawing tool makes it, of the study's first echo's magnitude.  mask: (x, y, z)."""
    dataset = hd.seg.Segmentation(
        source_images=[anonymous(image("M", 0, slice_)) for slice_ in range(mask.shape[2])],
        pixel_array=mask.transpose(2, 1, 0),
        segmentation_type="BINARY",
        segment_descriptions=[
            hd.seg.SegmentDescription(1, "drawn", codes.SCT.AnatomicalStructure, kind, "MANUAL"),
        ],
        series_instance_uid="1.2.3.77",
        series_number=77,
        sop_instance_uid=uid,
        instance_number=1,
        manufacturer="site",
        manufacturer_model_name="drawing",
        software_versions="1",
        device_serial_number="1",
    )
    dcmwrite(path, dataset, enforce_file_format=True)
    return path


@pytest.mark.parametrize("axes", AXES, ids=["axial", "sagittal", "coronal", "oblique"])
def test_axes_in_any_order_and_direction_are_the_same_grid(axes: NDArray[np.float64]) -> None:
    affine = noise(axes).affine
    mask = some_mask((7, 6, 5))
    np.testing.assert_array_equal(on_grid(mask, affine, affine, mask.shape), mask)
    flipped, turned = affine.copy(), affine[:, [2, 0, 1, 3]]
    flipped[:3, 3] += affine[:3, 1] * (mask.shape[1] - 1)
    flipped[:3, 1] *= -1
    np.testing.assert_array_equal(on_grid(mask[:, ::-1], flipped, affine, mask.shape), mask)
    np.testing.assert_array_equal(on_grid(mask.transpose(2, 0, 1), turned, affine, mask.shape), mask)


@pytest.mark.parametrize("moved", [(0.3, 0, 0), (0, 0, 0.5), (1, 0, 0), (0, -1, 0)])
def test_another_place_is_another_grid(moved: tuple[float, float, float]) -> None:
    affine = noise().affine
    elsewhere = affine.copy()
    elsewhere[:3, 3] += affine[:3, :3] @ moved
    assert on_grid(some_mask((7, 6, 5)), elsewhere, affine, (7, 6, 5)) is None


def test_another_size_or_direction_is_another_grid() -> None:
    affine = noise().affine
    assert on_grid(some_mask((7, 6, 5)), affine @ np.diag([2.0, 1, 1, 1]), affine, (14, 6, 5)) is None
    assert on_grid(some_mask((7, 6, 5)), noise(rotated(AXIAL, 3)).affine, affine, (7, 6, 5)) is None


def test_rounded_headers_are_no_other_grid() -> None:
    affine = noise(rotated(AXIAL, 25)).affine
    mask = some_mask((7, 6, 5))
    np.testing.assert_array_equal(on_grid(mask, affine.round(4).astype(np.float32), affine, mask.shape), mask)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int16])
def test_nifti_is_used_and_said(study: list[Path], tmp_path: Path, dtype: type[np.generic]) -> None:
    _, acquisition, source = converted(study)
    mask = some_mask(acquisition.geometry.shape)
    file = nifti(tmp_path / "brain.nii.gz", mask.astype(dtype), source.affine)
    masked, told = with_mask(acquisition, source, file)
    np.testing.assert_array_equal(masked.mask, mask)
    assert told.mask.startswith("NIfTI with SHA-256 ")
    assert any("the site's own" in warning for warning in told.warnings)
    assert "brain.nii" not in " ".join((*told.warnings, told.mask))  # a file's name may hold a patient's


def test_nifti_of_another_grid_is_refused_and_both_are_named(study: list[Path], tmp_path: Path) -> None:
    _, acquisition, source = converted(study)
    shape = acquisition.geometry.shape
    moved = source.affine.copy()
    moved[:3, 3] += 0.6
    for values, affine in ((some_mask(shape), moved), (some_mask(shape)[:-1], source.affine)):
        file = nifti(tmp_path / "brain.nii", values.astype(np.uint8), affine)
        with pytest.raises(NotConvertible, match=r"another grid.*voxels of.*the images are.*voxels of.*resample"):
            with_mask(acquisition, source, file)


def test_what_is_no_mask_is_refused(study: list[Path], tmp_path: Path) -> None:
    _, acquisition, source = converted(study)
    (tmp_path / "notes.nii").write_text("not a volume")
    homeless = tmp_path / "homeless.nii"
    nibabel.save(nibabel.Nifti1Image(np.ones(acquisition.geometry.shape, np.uint8), None), homeless)
    tumour = segmentation(tmp_path / "tumour", some_mask(acquisition.geometry.shape), codes.SCT.Neoplasm)
    for file, said in (
        (tmp_path / "notes.nii", "neither NIfTI nor DICOM"),
        (homeless, "where it lies"),
        (tumour, "no segmentation of the brain"),
        (study[0], "no segmentation of the brain"),
        (nifti(tmp_path / "echoes.nii", np.ones((*acquisition.geometry.shape, 2), np.uint8), source.affine), "volume"),
    ):
        with pytest.raises(NotConvertible, match=said):
            with_mask(acquisition, source, file)


def test_a_damaged_mask_is_refused(study: list[Path], tmp_path: Path) -> None:
    _, acquisition, source = converted(study)
    mask = some_mask(acquisition.geometry.shape)
    whole = nifti(tmp_path / "brain.nii", mask.astype(np.uint8), source.affine)
    cut = tmp_path / "cut.nii"
    cut.write_bytes(whole.read_bytes()[:-20])
    drawn = segmentation(tmp_path / "drawn", mask)
    short = tmp_path / "short"
    short.write_bytes(drawn.read_bytes()[:-8])
    for file in (cut, short):
        with pytest.raises(NotConvertible):
            with_mask(acquisition, source, file)


def test_without_a_file_nothing_changes(study: list[Path]) -> None:
    _, acquisition, source = converted(study)
    assert with_mask(acquisition, source, None) == (acquisition, source)


def test_segmentation_of_the_brain_is_used(study: list[Path], tmp_path: Path) -> None:
    """Its empty slices are left out of the file."""
    _, acquisition, source = converted(study)
    mask = some_mask(acquisition.geometry.shape)
    mask[:, :, [0, 3]] = False
    masked, told = with_mask(acquisition, source, segmentation(tmp_path / "seg", mask))
    np.testing.assert_array_equal(masked.mask, mask)
    assert told.mask == "segmentation 1.2.3.77.1"


def test_segmentation_in_the_study_joins_the_acquisition(study: list[Path], tmp_path: Path) -> None:
    before, acquisition, _ = converted(study)
    mask = some_mask(acquisition.geometry.shape)
    drawn = segmentation(tmp_path / "a", mask)
    (found,) = groups([*study, drawn])
    assert found.mask is not None
    assert found.mask.path == drawn
    assert found.completeness is Completeness.COMPLETE
    assert replace(found, mask=None) == before
    assert found.used == (*found.instances, found.mask)


def test_the_last_of_several_is_used(study: list[Path], tmp_path: Path) -> None:
    mask = np.ones(SHAPE, bool)
    images = [describe(path, 0.0, "1") for path in study]
    masks = [
        describe(segmentation(tmp_path / uid, mask, uid=uid), float(uid[-1]), "2")
        for uid in ("1.2.3.77.3", "1.2.3.77.2")
    ]
    (found,) = group([*images, *masks], 1e4, 60.0, frozenset())
    assert found.mask is not None
    assert found.mask.sop_instance_uid == "1.2.3.77.3"
    assert [i.sop_instance_uid for i in found.set_aside] == ["1.2.3.77.2"]


def test_what_marks_something_else_or_elsewhere_stays_foreign(study: list[Path], tmp_path: Path) -> None:
    mask = np.ones(SHAPE, bool)
    tumour = segmentation(tmp_path / "tumour", mask, codes.SCT.Neoplasm)
    acquired, foreign = sorted(groups([*study, tumour]), key=lambda g: g.completeness is Completeness.FOREIGN)
    assert acquired.mask is None
    assert foreign.completeness is Completeness.FOREIGN
    (alone,) = groups([segmentation(tmp_path / "brain", mask)])
    assert alone.completeness is Completeness.FOREIGN
    assert alone.reason
