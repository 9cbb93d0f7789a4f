"""Folders of images as users have them: the ways to tag them, and what is wrong with them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tagmask.data import open_dataset
from tagmask.errors import DataError


def _picture(path, size=(12, 16)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), 90, np.uint8)).save(path)


@pytest.fixture
def root(tmp_path):
    for name in ("a.jpg", "b.png", "sub/c.jpg"):
        _picture(tmp_path / "images" / name)
    return tmp_path


def _tags(root, text, name="tags.csv"):
    (root / name).write_text("image,tags\n" + text)


def test_csv_with_sub_folders_negatives_and_names_without_ending(root):
    _tags(root, "a.jpg,dog cat\nb,\nsub/c.jpg,cat\n")
    data = open_dataset(root, "auto")
    assert data.names == ("a", "b", "sub/c")
    assert data.classes.names == ("cat", "dog")
    assert [data.tags(i).tolist() for i in range(3)] == [[1, 1], [0, 0], [1, 0]]
    assert data.size(0) == (12, 16)
    assert data.position("sub/c") == 2
    assert data.about["kind"] == "folder"


def test_a_split_column_picks_rows_and_all_splits_number_classes_alike(root):
    (root / "tags.csv").write_text("image,tags,split\na.jpg,zebra,train\nb.png,ant,val\n")
    train, val = (open_dataset(root, "folder", split) for split in ("train", "val"))
    assert (train.names, val.names) == (("a",), ("b",))
    assert train.classes == val.classes
    with pytest.raises(DataError, match="no rows of split 'tset'"):
        open_dataset(root, "folder", "tset")


def test_a_file_per_split_with_classes_beside_it(root, tmp_path):
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "classes.txt").write_text("dog\ncat\n")
    _tags(lists, "a.jpg,cat\n", "tags_train.csv")
    _tags(lists, "b.png,dog\n", "tags_val.csv")
    pattern = lists / "tags_{split}.csv"
    val = open_dataset(root / "images", "auto", "val", tags=pattern)
    assert (val.names, val.classes.names) == (("b",), ("dog", "cat"))
    (lists / "classes.txt").unlink()
    train = open_dataset(root / "images", "auto", "train", tags=pattern)
    assert train.classes.names == ("cat", "dog")  # the tags of the other split count as well


def test_training_rows_cannot_pass_for_validation(root):
    _tags(root, "a.jpg,cat\n")
    with pytest.raises(DataError, match="no split column, so it is split 'train', not 'val'"):
        open_dataset(root, "folder", "val")


def test_one_sub_folder_per_class(tmp_path):
    for name in ("cat/1.jpg", "dog/1.jpg", "dog/2.jpg", "_none/3.jpg"):
        _picture(tmp_path / name)
    data = open_dataset(tmp_path, "auto")
    assert data.names == ("_none/3", "cat/1", "dog/1", "dog/2")
    assert [data.items[i].tags for i in range(4)] == [(), (0,), (1,), (1,)]


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (["images/a.jpg", "tags.csv"], r"a data set itself \(it holds tags.csv\); give \S*toy;"),
        (["images/a.jpg", "tags_train.csv"], "it holds tags_train.csv"),
        (["images/a.jpg"], "it holds a folder images"),
        (["train/cat/a.jpg", "val/cat/b.jpg"], "it holds the folders train, val"),
        (["JPEGImages/a.jpg", "Annotations/a.png"], "it holds one of kind voc"),
        (["cat/a.jpg", "dog/b.jpg"], "may be a class or hold the classes cat, dog"),
    ],
)
def test_a_folder_around_a_data_set_is_no_class(tmp_path, files, says):
    for file in files:
        _picture(tmp_path / "toy" / file) if "/" in file else (tmp_path / "toy" / file).touch()
    for kind in ("folder", "auto"):
        with pytest.raises(DataError, match=says) as told:
            open_dataset(tmp_path, kind)
        assert "holds nothing but the folder toy" in str(told.value)
    assert open_dataset(tmp_path, "folder", classes=["toy"]).classes.names == ("toy",)


@pytest.mark.parametrize(
    "files",
    [["a.jpg"], ["monday/a.jpg"], ["a.jpg", "monday/b.jpg", "tuesday/c.jpg"], ["train/a.jpg", "val/b.jpg"]],
)
def test_the_only_class_may_have_folders_of_its_own(tmp_path, files):
    for file in files:
        _picture(tmp_path / "cat" / file)
    data = open_dataset(tmp_path, "folder")
    assert (data.classes.names, len(data.names)) == (("cat",), len(files))


def test_class_folders_below_split_folders(tmp_path):
    for name in ("train/cat/1.jpg", "val/cat/2.jpg", "train/dog/3.jpg"):
        _picture(tmp_path / name)
    assert open_dataset(tmp_path, "auto", "train").names == ("cat/1", "dog/3")
    assert len(open_dataset(tmp_path, "auto")) == 3
    with pytest.raises(DataError, match="no folder 'test'"):
        open_dataset(tmp_path, "auto", "test")


def test_images_without_tags(root):
    data = open_dataset(root, "folder", tags="none", classes=["cat"])
    assert data.names == ("a", "b", "sub/c")
    assert not data.has_tags(0)
    with pytest.raises(DataError, match="'a' has no tags"):
        data.tags(0)
    with pytest.raises(DataError, match="need the class names"):
        open_dataset(root, "folder", tags="none")


def test_pictures_that_differ_in_their_ending_only_keep_it(tmp_path):
    for name in ("a.jpg", "a.png"):
        _picture(tmp_path / name)
    _tags(tmp_path, "a.jpg,cat\na.png,cat\n")
    assert open_dataset(tmp_path, "auto").names == ("a.jpg", "a.png")


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("gone.jpg,cat\n", "missing image 'gone.jpg': line 2"),
        ("a.jpg,cat\na.jpg,dog\n", "duplicate row 'a.jpg': lines 2 and 3"),
        ("a.jpg,cat\na,cat\n", "duplicate row"),
        ("../a.jpg,cat\n", "path outside '../a.jpg'"),
        ("/etc/passwd,cat\n", "path outside"),
        ("..\\\\a.jpg,cat\n", "path outside"),
        (",cat\n", "line 2 names no image"),
        ("a.jpg,cta\n", "unknown tag 'a.jpg': 'cta' .* Did you mean 'cat'"),
        ("a.jpg,\n", "no tag at all"),
    ],
)
def test_each_bad_row_gets_one_message(root, rows, says):
    if "cta" in rows:
        (root / "classes.txt").write_text("cat\ndog\n")
    _tags(root, rows)
    with pytest.raises(DataError, match=says):
        open_dataset(root, "folder")


def test_many_problems_make_one_message(root):
    _tags(root, "x.jpg,cat\ny.jpg,cat\n../z.jpg,cat\n")
    with pytest.raises(DataError, match=r"missing image 'x.jpg'.*\(and 1 more\); path outside") as caught:
        open_dataset(root, "folder")
    assert "\n" not in str(caught.value)


def test_an_empty_class_folder_and_an_empty_root_are_errors(tmp_path):
    with pytest.raises(DataError, match="neither a tag file"):
        open_dataset(tmp_path, "folder")
    (tmp_path / "cat").mkdir()
    _picture(tmp_path / "dog" / "1.jpg")
    with pytest.raises(DataError, match="empty class folder 'cat'"):
        open_dataset(tmp_path, "folder")
    with pytest.raises(DataError, match="does not exist"):
        open_dataset(tmp_path / "nowhere", "folder")
    with pytest.raises(DataError, match="is no folder"):
        open_dataset(tmp_path / "dog" / "1.jpg", "folder")


def _mask(root, name, values):
    path = root / "masks" / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(values, np.uint8)).save(path)


def test_masks_are_for_evaluation_only(root):
    _tags(root, "a.jpg,cat\n")
    _mask(root, "a", np.ones((12, 16)))
    with pytest.raises(DataError, match="opened without"):
        open_dataset(root, "folder").mask(0)
    assert open_dataset(root, "folder").items[0].mask is None
    assert open_dataset(root, "folder", masks=True).mask(0).sum() == 12 * 16


def test_mask_problems_are_named(root):
    _tags(root, "a.jpg,cat\nb.png,cat\n")
    with pytest.raises(DataError, match=r"no folder .*masks"):
        open_dataset(root, "folder", masks=True)
    _mask(root, "a", np.ones((12, 15)))
    with pytest.raises(DataError, match="missing mask 'b'"):
        open_dataset(root, "folder", masks=True)
    _mask(root, "b", np.full((12, 16), 9))
    data = open_dataset(root, "folder", masks=True)
    with pytest.raises(DataError, match=r"15 x 12 but its image .* 16 x 12"):
        data.mask(0)
    with pytest.raises(DataError, match="holds the values 9; allowed are 0 to 1"):
        data.mask(1)


@pytest.mark.parametrize("how", ["mapping", "file", "beside", "voc"])
def test_masks_with_other_numbers(root, how):
    _tags(root, "a.jpg,dog cat\n")
    values = np.zeros((12, 16), np.uint8)
    values[0, :4] = 8, 12, 15, 255  # VOC's cat, dog, person, ignore
    _mask(root, "a", values)
    mapping = {8: "cat", 12: "dog", "other": "background"}
    text = '{"8": "cat", "12": "dog", "other": "background"}'
    given = {"mapping": mapping, "file": root / "v.json", "beside": None, "voc": "voc"}[how]
    (root / ("mask_values.json" if how == "beside" else "v.json")).write_text(text)
    data = open_dataset(root, "folder", masks=True, mask_values=given)
    assert data.mask(0)[0, :5].tolist() == [1, 2, 0, 255, 0]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({8: "cta"}, "Did you mean 'cat'"),
        ({300: "cat"}, "no number from 0 to 255"),
        ({8: "cat", "other": "nothing"}, "other is 'nothing'"),
        ("vco", "neither 'voc' nor a file"),
    ],
)
def test_bad_mask_values(root, given, says):
    _tags(root, "a.jpg,cat\n")
    _mask(root, "a", np.zeros((12, 16)))
    with pytest.raises(DataError, match=says):
        open_dataset(root, "folder", masks=True, mask_values=given)


def test_values_outside_an_explicit_mapping_are_errors(root):
    _tags(root, "a.jpg,cat\n")
    _mask(root, "a", np.full((12, 16), 3))
    data = open_dataset(root, "folder", masks=True, mask_values={8: "cat"})
    with pytest.raises(DataError, match="holds the values 3"):
        data.mask(0)


def test_images_can_be_kept_in_memory(root):
    _tags(root, "a.jpg,cat\n")
    kept = open_dataset(root, "folder", cache="memory")
    first = kept.image(0)
    (root / "images" / "a.jpg").unlink()
    assert kept.image(0) is first
    with pytest.raises(DataError, match="unknown cache"):
        open_dataset(root, "folder", cache="disk")
