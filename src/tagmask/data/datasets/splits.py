"""What people and programs call the parts of a data set."""

from __future__ import annotations

from pathlib import Path

__all__ = ["EVERY_TAG_FILE", "SPLITS", "SPLIT_WORDS", "TAG_FILES", "part_folders", "part_name", "tag_files"]

SPLITS = ("train", "val", "test")
SPLIT_WORDS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""The words for each part, its own first."""
TAG_FILES = ("tags.csv", "tags.jsonl", "tags.ndjson", "tags.tsv")
"""What the tag file of a whole data set may be called."""
_PARTS = {word: part for part, words in SPLIT_WORDS.items() for word in words}


def part_name(text: str) -> str:
    """The part that a word means: "val" for "Validation"; a word of somebody's own as it is."""
    return _PARTS.get(text.strip().lower(), text)


def part_folders(root: Path) -> dict[str, list[Path]]:
    """The folders that are called like parts, by part; "val" and "valid" are the same."""
    found: dict[str, list[Path]] = {}
    for part, words in SPLIT_WORDS.items():
        folders = [root / word for word in words if (root / word).is_dir()]
        if folders:
            found[part] = folders
    return found


def tag_files(split: str) -> list[str]:
    """What a tag file of one part may be called."""
    return [name.replace(".", f"_{word}.") for word in SPLIT_WORDS.get(split, (split,)) for name in TAG_FILES]


EVERY_TAG_FILE = (*TAG_FILES, *(name for split in SPLITS for name in tag_files(split)))
"""What tag files of data sets and their parts may be called."""
