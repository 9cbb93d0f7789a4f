"""From the rows of a tag file to picture files."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from tagmask.data.base import Problem
from tagmask.data.datasets.listing import pictures_below
from tagmask.data.datasets.stacks import is_stack, stack_of
from tagmask.data.datasets.tagfile import TagRow
from tagmask.data.readers.images import IMAGE_SUFFIXES
from tagmask.data.tables import cell

__all__ = ["Finder", "look_around"]


class Finder:
    """Looks up image files, listing every folder once instead of asking for every file.

    Args:
        folder: The image folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._listed: dict[PurePosixPath, dict[str, list[str]]] = {}

    def find(self, row: TagRow, problems: list[Problem]) -> Path | None:
        """The picture that a row is about; None if there is none, which becomes a problem.

        A name without ending is taken if exactly one picture has it, and so is one that differs from a single
        picture's in upper and lower case or in its Unicode form only, with a note.
        """
        written = PurePosixPath(row.image.replace("\\", "/"))
        if not row.image or written.is_absolute() or ".." in written.parts:
            detail = f"line {row.line}: paths must be below {self.folder}"
            problems.append(Problem("path outside", row.image or "(empty)", detail))
            return None
        if (stack := stack_of(self.folder, written.as_posix())) is not None:
            return stack
        for name in dict.fromkeys((written.name, cell(written.name))):
            matching = self._named(written.parent, name)
            if len(matching) == 1:
                return self.folder / written.parent / matching[0]
            if matching:
                break
        if not matching:
            matching = self._list(written.parent).get(f"/{_form(written.name)}", [])
            if len(matching) == 1:
                detail = f"line {row.line}: taken for {matching[0]}, which is spelled differently"
                problems.append(Problem("image of another spelling", row.image, detail, fatal=False))
                return self.folder / written.parent / matching[0]
        problem = "no such file" if not matching else f"could be any of {', '.join(sorted(matching))}"
        problems.append(Problem("missing image", row.image, f"line {row.line}: {problem} in {self.folder}"))
        return None

    def _named(self, sub: PurePosixPath, name: str) -> list[str]:
        """The file of a name, or the pictures that have it before their ending ("a.b" may be such a name)."""
        stems = self._list(sub)
        if name in stems.get(PurePosixPath(name).stem, ()):
            return [name]
        return [n for n in stems.get(name, []) if Path(n).suffix.lower() in IMAGE_SUFFIXES]

    def _list(self, sub: PurePosixPath) -> dict[str, list[str]]:
        """Files of a folder by stem, and behind a slash by their form with and without ending."""
        if sub not in self._listed:
            found: dict[str, list[str]] = {}
            folder = self.folder / sub
            for name in os.listdir(folder) if folder.is_dir() else ():
                found.setdefault(PurePosixPath(name).stem, []).append(name)
                for form in {_form(name), _form(PurePosixPath(name).stem)}:
                    found.setdefault(f"/{form}", []).append(name)
            self._listed[sub] = found
        return self._listed[sub]


def _form(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def look_around(
    folder: Path, root: Path, skip: Path, rows: Iterable[TagRow] | None, finder: Finder
) -> Sequence[Problem]:
    """What lies in an image folder besides what a data set takes from it.

    Args:
        folder: The image folder.
        root: Folder of the data set.
        skip: Folder of the masks, which may lie below.
        rows: All rows of the tag files; None where every picture belongs to the data set.
        finder: Looks up the pictures of rows.
    """
    found: list[Problem] = []
    pictures = [path for path in pictures_below(folder, root, found) if not path.is_relative_to(skip)]
    notes: list[Problem] = []
    if rows is not None:
        notes += [problem for problem in found if not problem.fatal]
        named = {image for row in rows if (image := finder.find(row, [])) is not None}
        # The row of a slice or tile names the file around it; the row of a folder, the series in it.
        covered = named | {image.parent for image in named}
        notes += [
            Problem("image without row", path.relative_to(folder).as_posix(), "no row names it", fatal=False)
            for path in pictures
            if path not in covered and not (is_stack(path.name) and path.parent in named)
        ]
    forms = Counter(_form(path.relative_to(folder).as_posix()) for path in pictures)
    notes += [
        Problem(
            "image with a twin",
            path.relative_to(folder).as_posix(),
            "another differs in upper and lower case or Unicode form only; many systems take them for one",
            fatal=False,
        )
        for path in pictures
        if forms[_form(path.relative_to(folder).as_posix())] > 1
    ]
    return notes
