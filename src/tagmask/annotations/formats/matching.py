"""Which image a tool's file name is about: matched by whole paths, never guessed."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

from tagmask.data.file_names import legal_part
from tagmask.data.readers.images import IMAGE_SUFFIXES
from tagmask.errors import DataError, nearest

__all__ = ["Names", "addressed"]

_UPLOAD = re.compile(r"[0-9a-f]{8}-(?=.)")
_ROBOFLOW = re.compile(r"(.+)_(?:jpe?g|png|bmp|webp|tiff?)\.rf\.[0-9A-Za-z]+")
_HINTS = 2000


class Names:
    """The names of some images, and the file names that mean them.

    Args:
        files: Name of an image to its path below the image folder, with ending; the name itself if unknown.
    """

    def __init__(self, files: Mapping[str, str]) -> None:
        self._whole: dict[str, str] = dict(zip(files.values(), files, strict=True))
        self._files = files
        self._by_end: dict[str, list[str]] = {}
        self._by_form: dict[str, list[str]] = {}
        self._by_legal: dict[str, list[str]] = {}
        for name, file in files.items():
            ends = {PurePosixPath(key).name for key in (name, file)}
            ends |= {_stem(PurePosixPath(file).name)}
            for end in ends:
                self._by_end.setdefault(end, []).append(name)
            for form in {_form(name), _form(file)}:
                self._by_form.setdefault(form, []).append(name)
            self._by_legal.setdefault(_legal(name), []).append(name)

    def find(self, written: str, where: str, bare: bool = False) -> str:
        """The image that a path stands for.

        The path as a whole counts first, with and without its ending. Then tools may have put folders before
        it or left some out, but two different folders never match. The text is taken as it stands.

        Args:
            written: The path.
            where: Where it stands, for messages.
            bare: It is written without the ending of the picture.

        Raises:
            DataError: There is no such image, or several fit.
        """
        for path in dict.fromkeys((written, written.replace("\\", "/"))):
            found = self._match(path.lstrip("/"), bare)
            if len(found) == 1:
                return found[0]
            if found:
                raise DataError(f"{where}: '{written}' could be any of {', '.join(sorted(found)[:3])}")
        raise DataError(f"{where}: there is no image for '{written}'. {self._hint(written)}".rstrip())

    def upload(self, written: str, where: str, bare: bool = False) -> str:
        """The image behind a name to which a tool put eight digits and a hyphen, or a code, when it took it.

        Raises:
            DataError: There is no such image, or several fit.
        """
        path = PurePosixPath(written.replace("\\", "/"))
        try:
            return self.find(written, where, bare)
        except DataError as error:
            plain = _ROBOFLOW.sub(r"\1", _UPLOAD.sub("", _stem(path.name)))
            if plain == _stem(path.name) or "could be any" in str(error):
                raise
            return self.find(plain, where, bare=True)

    def _match(self, path: str, bare: bool) -> list[str]:
        if bare and path in self._files:
            # A file of ours may bear this name, or the code of another: 1%3F is how 1? is written.
            return [path, *(name for name in self._by_legal.get(path, []) if name != path)]
        for key in dict.fromkeys((path, _stem(path))):
            if key in self._whole:
                return [self._whole[key]]
            if key in self._files:
                return [key]
        if bare and path in self._by_legal:
            return self._by_legal[path]
        twins = self._by_form.get(_form(path)) or self._by_form.get(_form(_stem(path))) or []
        return twins or self._by_folders(path)

    def _by_folders(self, path: str) -> list[str]:
        """Images whose folders end as the path's do, or the other way round."""
        parts = PurePosixPath(path).parts
        if not parts:
            return []
        ends = dict.fromkeys((parts[-1], _stem(parts[-1])))
        near = list(dict.fromkeys(name for end in ends for name in self._by_end.get(end, [])))
        shared = {name: _shared(PurePosixPath(name).parts[:-1], parts[:-1]) for name in near}
        fitting = [name for name in near if shared[name] is not None]
        inner = [name for name in fitting if shared[name]]
        return inner if len(inner) == 1 else fitting

    def _hint(self, written: str) -> str:
        hint = nearest(_stem(PurePosixPath(written).name), list(self._by_end)[:_HINTS]).split(" Known")[0]
        return hint if "?" in hint else ""


def _shared(ours: tuple[str, ...], theirs: tuple[str, ...]) -> int | None:
    """How many folders two paths end in alike; None if one of them differs."""
    count = min(len(ours), len(theirs))
    return count if ours[len(ours) - count :] == theirs[len(theirs) - count :] else None


def _stem(path: str) -> str:
    """A path without the ending of a picture; other dots belong to the name."""
    pure = PurePosixPath(path)
    return pure.with_suffix("").as_posix() if pure.suffix.lower() in IMAGE_SUFFIXES else path


def _form(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def addressed(written: str) -> Iterable[str]:
    """What an address in a task may stand for: the file it decodes to, and the text itself.

    Only what looks like an address (a scheme, ``/data/...``, a query ``?d=``) is decoded; a plain file name
    may hold ``#``, ``?`` and ``%20`` itself.
    """
    try:
        parts = urlsplit(written)
    except ValueError:
        return [written]
    query = parse_qs(parts.query)
    if written.startswith("/data/local-files/") and "d" in query:
        return [query["d"][0]]
    if written.startswith("/data/upload/"):
        # The folder of an upload is the project's number, which says nothing about ours.
        return dict.fromkeys((PurePosixPath(unquote(parts.path)).name, PurePosixPath(written).name))
    if parts.scheme and parts.netloc:
        return dict.fromkeys((unquote(parts.path), parts.path))
    return [written]


def _legal(name: str) -> str:
    return "/".join(legal_part(part) for part in PurePosixPath(name).parts)
