"""Volumes: NIfTI and DICOM series go in as a stack of slices, and the mask comes back in their grid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tagmask.data.levels import Reading
from tagmask.data.readers import dicom, nifti
from tagmask.engine.compute import Compute
from tagmask.engine.log import Display
from tagmask.errors import DataError
from tagmask.inference.predict import PredictConfig, predict
from tests.seams.pixel import trained

nibabel = pytest.importorskip("nibabel")
pydicom = pytest.importorskip("pydicom")
highdicom = pytest.importorskip("highdicom")
AFFINE = np.array([[0.7, 0.1, 0, -3], [0, -0.8, 0.05, 5], [0.02, 0, 2.5, 7], [0, 0, 0, 1]])
GREY = Reading(None, ((-1000.0, 1000.0),), True)
VALUES = np.full((40, 48, 4), -1000, np.int16)
VALUES[5:20, 8:30, 1:3] = 1000


def run(inputs, out, reading=GREY):
    model = replace(trained(), reading=reading)
    given = [str(i) for i in inputs]
    return predict(PredictConfig(), model, Compute.choose("cpu"), Display(quiet=True), given, out)


def failures(out):
    return (out / "failed.csv").read_text().splitlines()[1:]


def expected(labels):
    """The seam model calls white a class, and black background."""
    bright = labels[1][20, 10]
    assert bright > 0
    return np.where(VALUES.transpose(2, 1, 0) > 0, bright, 0)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_nifti_mask_has_the_affine_of_its_volume(tmp_path, ending):
    path = tmp_path / f"head{ending}"
    image = nibabel.Nifti1Image(VALUES, AFFINE)
    image.header.set_xyzt_units("mm")
    image.set_qform(AFFINE, code=2)
    nibabel.save(image, path)
    assert run([tmp_path], tmp_path / "out")["images"] == 1
    mask, source = nibabel.load(tmp_path / "out/masks/head.nii.gz"), nibabel.load(path)
    np.testing.assert_array_equal(mask.affine, source.affine)
    np.testing.assert_array_equal(mask.header.get_qform(), source.header.get_qform())
    assert mask.header.get_xyzt_units() == source.header.get_xyzt_units()
    assert mask.shape == source.shape
    labels = np.asarray(mask.dataobj).transpose(2, 1, 0)
    np.testing.assert_array_equal(labels, expected(labels))


def _series(folder, places=(0.0, 2.5, 5.0, 7.5), spacing=(0.8, 0.7), uid=None):
    folder.mkdir(exist_ok=True)
    base = pydicom.dcmread(pydicom.data.get_testdata_file("CT_small.dcm"))
    uid, frame = uid or pydicom.uid.generate_uid(), pydicom.uid.generate_uid()
    for k, place in enumerate(places):
        slice_ = pydicom.dcmread(pydicom.data.get_testdata_file("CT_small.dcm"))
        slice_.SOPInstanceUID = slice_.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
        slice_.SeriesInstanceUID, slice_.FrameOfReferenceUID = uid, frame
        slice_.Rows, slice_.Columns = VALUES.shape[1], VALUES.shape[0]
        slice_.PixelSpacing = list(spacing)
        slice_.ImagePositionPatient = [1.5, -2.25, place]
        slice_.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        slice_.RescaleSlope, slice_.RescaleIntercept = 2, -1000
        stored = (VALUES[:, :, k % 4].T.astype(int) + 1000) // 2
        slice_.PixelData = stored.astype(np.int16).tobytes()
        # Names say nothing about the order.
        slice_.save_as(folder / f"{(7 * k + 3) % len(places)}-{k}.dcm")
    return base


def test_a_series_comes_back_as_a_dicom_segmentation(tmp_path):
    _series(tmp_path / "scan")
    assert run([tmp_path], tmp_path / "out")["images"] == 1, failures(tmp_path / "out")
    made = highdicom.seg.segread(tmp_path / "out/masks/scan.dcm")
    geometry = made.get_volume(combine_segments=True)
    assert geometry.spacing == pytest.approx((2.5, 0.8, 0.7))
    np.testing.assert_array_equal(np.sort(geometry.array.shape), np.sort(VALUES.shape))
    files = dicom.series(list((tmp_path / "scan").iterdir()))
    uids = [pydicom.dcmread(file).SOPInstanceUID for file in files]
    planes = made.get_pixels_by_source_instance(uids, combine_segments=True)
    np.testing.assert_array_equal(planes, expected(planes))
    first = geometry.affine[:3, 3] if geometry.affine[2, 0] > 0 else None
    if first is not None:
        np.testing.assert_array_equal(first, [1.5, -2.25, 0])
    assert [s.SegmentLabel for s in made.SegmentSequence] == list(trained().classes.names)


def test_bad_volumes_are_named_and_the_rest_is_done(tmp_path):
    nibabel.save(nibabel.Nifti1Image(VALUES, AFFINE), tmp_path / "good.nii")
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 3, 2), np.int16), AFFINE), tmp_path / "times.nii")
    whole = (tmp_path / "good.nii").read_bytes()
    (tmp_path / "cut.nii").write_bytes(whole[: len(whole) // 2])
    _series(tmp_path / "gap", places=(0, 2.5, 10, 12.5))
    _series(tmp_path / "twice", places=(0, 2.5, 2.5, 5))
    _series(tmp_path / "mixed", places=(0, 2.5))
    _series(tmp_path / "mixed-more", places=(5, 7.5), spacing=(1, 1))
    _series(tmp_path / "two", places=(0, 2.5))
    uid = pydicom.dcmread(next((tmp_path / "mixed").iterdir())).SeriesInstanceUID
    for number, file in enumerate((tmp_path / "mixed-more").iterdir()):
        moved = pydicom.dcmread(file)
        moved.SeriesInstanceUID = uid
        moved.save_as(tmp_path / "mixed" / f"x{number}.dcm")
    for number, file in enumerate((tmp_path / "gap").iterdir()):
        (tmp_path / "two" / f"x{number}.dcm").write_bytes(file.read_bytes())
    empty = pydicom.dcmread(next((tmp_path / "mixed").iterdir()))
    del empty.PixelData
    (tmp_path / "empty").mkdir()
    empty.save_as(tmp_path / "empty/a.dcm")
    assert run([tmp_path], tmp_path / "out")["images"] == 2  # good and mixed-more
    told = "\n".join(failures(tmp_path / "out"))
    for words in (
        "4 axes",
        "cut.nii",
        "misses slices",
        "two slices at 2.5",
        "2 spacings",
        "2 series",
        "without pixels",
    ):
        assert words in told
    assert len(failures(tmp_path / "out")) == 7


def test_slices_are_counted_from_0_along_the_third_axis(tmp_path):
    path = tmp_path / "a.nii"
    values = np.random.default_rng(0).integers(-99, 99, (5, 6, 3)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(values, AFFINE), path)
    assert (nifti.count(path), nifti.size(path, 99)) == (3, (6, 5))
    np.testing.assert_array_equal(nifti.read(path, 2, 99)[0][0], values[:, :, 2].T)
    with pytest.raises(DataError, match="slices 0 to 2, not 3"):
        nifti.read(path, 3, 99)
    with pytest.raises(DataError, match="volume of 3 slices"):
        nifti.read(path, None, 99)


def test_a_model_of_photographs_does_not_guess_a_range(tmp_path):
    nibabel.save(nibabel.Nifti1Image(VALUES, AFFINE), tmp_path / "a.nii")
    run([tmp_path], tmp_path / "out", reading=None)
    assert "nothing says which values are black" in failures(tmp_path / "out")[0]


def test_volumes_are_learned_from_slice_by_slice(tmp_path):
    from tagmask.data.check import check
    from tagmask.data.parts import DataConfig, Parts

    root = tmp_path / "data"
    root.mkdir()
    nibabel.save(nibabel.Nifti1Image(VALUES, AFFINE), root / "head.nii.gz")
    nibabel.save(nibabel.Nifti1Image(VALUES, AFFINE), root / "neck.nii")
    _series(root / "scan")
    rows = ("head.nii.gz,a", "head.nii.gz/2,b", "neck.nii/1,b", "scan,a b")
    (root / "tags.csv").write_text("image,tags\n" + "\n".join(rows) + "\n")
    parts = Parts(DataConfig(root=root, holdout=0, range="percentiles"))
    dataset = parts.open("train")
    assert dataset.names == tuple(
        [f"head/000{k}" for k in range(4)] + ["neck/0001"] + [f"scan/000{k}" for k in range(4)]
    )
    tags = [item.tags for item in dataset.items]
    assert tags == [(0,), (0,), (1,), (0,), (1,), *[(0, 1)] * 4]
    assert dataset.reading.ranges == ((-1000.0, 1000.0),)
    for index, part in ((0, 0), (2, 2), (4, 1), (6, 1)):
        expect = (VALUES[:, :, part].T > 0) * np.uint8(255)
        np.testing.assert_array_equal(dataset.image(index)[..., 0], expect)
    assert dataset.size(3) == (48, 40)
    nibabel.save(nibabel.Nifti1Image(VALUES, AFFINE), root / "spare.nii")
    report = check(root)
    assert report.ok, report.text()
    assert report.num_images == 9
    # A row of a slice names its volume, and the row of a folder the series in it.
    assert [note.name for note in report.problems if "row" in note.kind] == ["spare.nii"]
