from __future__ import annotations

import os
import struct
import zipfile

import pytest

from tagmask.data.readers.archive import FileTree, FolderTree, ZipTree, open_tree
from tagmask.errors import DataError


def packed(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_members_that_lead_out_are_refused_and_the_others_read(tmp_path):
    link = zipfile.ZipInfo("link.png")
    link.external_attr = 0o120777 << 16
    files = {"a/b.txt": b"hello", "../up.png": b"x", "/root.png": b"x", "a\\..\\..\\up.png": b"x"}
    files |= {"C:/x.png": b"x", ".hidden": b"x", "__MACOSX/a": b"x", link: b"/etc/passwd"}
    tree = open_tree(packed(tmp_path / "x.zip", files))
    assert isinstance(tree, ZipTree)
    assert tree.names == ["a/b.txt"]
    assert tree.read("a/b.txt") == b"hello"
    assert len(tree.refused) == 5
    assert ("link.png", "is a link") in tree.refused
    assert sum("out of the archive" in reason for _, reason in tree.refused) == 4
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.zip"]


def test_bombs_and_encrypted_members_are_refused_by_what_they_declare(tmp_path):
    path = packed(tmp_path / "x.zip", {"bomb.png": b"0", "locked.png": b"1", "good.txt": b"2"})
    content = bytearray(path.read_bytes())
    for name, place, value in (("bomb.png", 24, 1 << 30), ("locked.png", 8, 1)):
        entry = content.rfind(name.encode()) - 46
        struct.pack_into("<I" if place == 24 else "<H", content, entry + place, value)
    path.write_bytes(content)
    tree = ZipTree(path)
    assert dict(tree.refused).keys() == {"bomb.png", "locked.png"}
    assert "which no packer gives" in dict(tree.refused)["bomb.png"]
    assert tree.read("good.txt") == b"2"


def test_large_members_that_pack_like_bombs_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("tagmask.data.readers.archive._LARGE", 1 << 20)
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("blanks.json", b" " * (2 << 20))
        file.writestr("small.json", b" " * 1000)
    tree = ZipTree(tmp_path / "x.zip")
    assert tree.names == ["small.json"]
    assert "as bombs do" in dict(tree.refused)["blanks.json"]


def test_archives_that_declare_too_much_as_a_whole_are_not_opened(tmp_path, monkeypatch):
    path = packed(tmp_path / "x.zip", {"a": b"0" * 100, "b": b"0" * 100})
    monkeypatch.setattr("tagmask.data.readers.archive._MAX_TOTAL", 150)
    with pytest.raises(DataError, match="2 files with 200 bytes"):
        ZipTree(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"no zip at all"])
def test_damaged_archives_are_named(tmp_path, content):
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.zip is not a readable zip"):
        open_tree(tmp_path / "x.zip")


def test_damaged_members_are_named(tmp_path):
    path = packed(tmp_path / "x.zip", {"a.txt": os.urandom(3000), "b.txt": b"fine"})
    content = bytearray(path.read_bytes())
    content[100:200] = bytes(100)
    path.write_bytes(content)
    tree = ZipTree(path)
    with pytest.raises(DataError, match=r"'a\.txt' is damaged"):
        tree.read("a.txt")
    assert tree.read("b.txt") == b"fine"


def test_links_out_of_a_folder_are_refused_and_inner_ones_read(tmp_path):
    root = tmp_path / "in"
    (root / "sub").mkdir(parents=True)
    (tmp_path / "secret.txt").write_text("x")
    (root / "sub" / "a.txt").write_text("a")
    (root / ".hidden").write_text("x")
    (root / "out.txt").symlink_to(tmp_path / "secret.txt")
    (root / "dangling.txt").symlink_to(root / "nothing")
    (root / "inner.txt").symlink_to(root / "sub" / "a.txt")
    (root / "loop").symlink_to(root)
    tree = open_tree(root)
    assert isinstance(tree, FolderTree)
    assert tree.names == ["inner.txt", "sub/a.txt"]
    assert {name for name, _ in tree.refused} == {"out.txt", "dangling.txt", "loop"}
    assert tree.read("sub/a.txt") == b"a"


def test_other_files_are_a_tree_of_one(tmp_path):
    (tmp_path / "x.json").write_text("{}")
    tree = open_tree(tmp_path / "x.json")
    assert isinstance(tree, FileTree)
    assert (tree.names, tree.read("x.json")) == (("x.json",), b"{}")
    with pytest.raises(DataError, match="does not exist"):
        open_tree(tmp_path / "nothing")
