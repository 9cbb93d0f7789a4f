"""Fetch public data sets from their official addresses: resumed, checked, unpacked in one folder."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tagmask.errors import DataError, nearest

__all__ = ["RELEASES", "Archive", "download", "fetch", "unpack"]

# Not pooch: it begins a broken download again at the first byte, and these archives have up to 13 GB.
Progress = Callable[[str, int, int], None]
_CHUNK = 1 << 20
_TRIES = 4
_TIMEOUT = 60.0


@dataclass(frozen=True)
class Archive:
    """A file to fetch.

    Attributes:
        url: Official address.
        size: Length in bytes.
        sha256: Digest of the content. It is what makes an address without encryption safe to use.
        makes: Folder it holds, below the root.
    """

    url: str
    size: int
    sha256: str
    makes: str

    @property
    def file_name(self) -> str:
        """Last part of the address."""
        return self.url.rsplit("/", 1)[-1]


_COCO = "http://images.cocodataset.org"
_BERKELEY = "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours"
RELEASES: dict[str, tuple[Archive, ...]] = {
    "voc2012": (
        Archive(
            "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
            1_999_639_040,
            "e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
            "VOCdevkit/VOC2012",
        ),
    ),
    "sbd": (
        Archive(
            f"{_BERKELEY}/benchmark.tgz",
            1_419_539_633,
            "6a5a2918d5c73ce032fdeba876574d150d9d04113ab87540a1304cbcc715be53",
            "benchmark_RELEASE",
        ),
    ),
    "coco2014": (
        Archive(
            f"{_COCO}/annotations/annotations_trainval2014.zip",
            252_872_794,
            "031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009",
            "annotations",
        ),
        Archive(
            f"{_COCO}/zips/val2014.zip",
            6_645_013_297,
            "fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0",
            "val2014",
        ),
        Archive(
            f"{_COCO}/zips/train2014.zip",
            13_510_573_713,
            "ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775",
            "train2014",
        ),
    ),
}
"""Archives of each data set that can be fetched by name."""


def download(
    name: str,
    root: str | Path,
    *,
    mirror: str | None = None,
    keep_archives: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Fetch and unpack a public data set. What is there already is left alone.

    Args:
        name: "voc2012", "sbd" or "coco2014".
        root: Folder to put it in.
        mirror: Address of a folder that holds the same files, used instead of the official one; the
            content is checked all the same.
        keep_archives: Keep the archives after unpacking.
        progress: Called with (file name, bytes done, bytes in all).

    Returns:
        The root.

    Raises:
        DataError: The name is unknown, the disk too full, the server unreachable, or the content not what was
            published. Running it again continues where it stopped.
    """
    if name not in RELEASES:
        raise DataError(f"no data set '{name}' to download. {nearest(name, RELEASES)}")
    root = Path(root)
    todo = [archive for archive in RELEASES[name] if not (root / archive.makes).exists()]
    # An unpacked archive of JPEGs is about as large as the archive itself.
    need = sum(2 * archive.size for archive in todo) - sum(_size(_part(a, root)) for a in todo)
    if todo:
        _demand_space(root, need)
    for archive in todo:
        address = f"{mirror.rstrip('/')}/{archive.file_name}" if mirror else archive.url
        path = fetch(archive, root, address=address, progress=progress)
        unpack(path, root, archive.makes)
        if not keep_archives:
            path.unlink()
    return root


def fetch(
    archive: Archive, folder: Path, *, address: str | None = None, progress: Progress | None = None
) -> Path:
    """One archive in a folder, resumed from what an earlier try left in ``<name>.part``.

    Args:
        archive: What to fetch.
        folder: Where to; made if missing.
        address: Where from, if not the official address.
        progress: Called with (file name, bytes done, bytes in all).

    Returns:
        The file, complete and checked.

    Raises:
        DataError: The server cannot be reached, breaks off again and again, or sends something else.
    """
    final, part = folder / archive.file_name, _part(archive, folder)
    if final.is_file() and _digest(final) == archive.sha256:
        return final
    address, trouble = address or archive.url, ""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for _ in range(_TRIES):
            if _size(part) >= archive.size:
                break
            trouble = _receive(address, part, archive, progress)
    except OSError as error:
        raise DataError(f"cannot write {part}: {error.strerror or error}") from None
    if _size(part) < archive.size:
        raise DataError(
            f"{address} gave {_size(part):,} of {archive.size:,} bytes ({trouble or 'it ended'}). "
            "Repeat the command to continue from there, name a mirror, or put the file there by hand"
        )
    if _digest(part) != archive.sha256:
        part.unlink()
        raise DataError(f"what {address} sent is not {archive.file_name} as published (the sha256 differs)")
    os.replace(part, final)
    return final


def _receive(address: str, part: Path, archive: Archive, progress: Progress | None) -> str:
    """Append to the part file what the server still has; the reason if it ended early."""
    done = _size(part)
    request = urllib.request.Request(address, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
            span = answer.headers.get("Content-Range", "")
            resumed = answer.status == 206 and span.startswith(f"bytes {done}-")
            done = done if resumed else 0
            with open(part, "ab" if resumed else "wb") as file:
                while block := answer.read(_CHUNK):
                    done += len(block)
                    if done > archive.size:
                        return "it sends more than was published"
                    file.write(block)
                    if progress is not None:
                        progress(archive.file_name, done, archive.size)
    except urllib.error.HTTPError as error:
        return f"it answers {error.code} {error.reason}"
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        return str(getattr(error, "reason", None) or error or type(error).__name__)
    return ""


def unpack(path: Path, root: Path, makes: str) -> Path:
    """Unpack an archive; the folder it makes appears whole or not at all.

    Args:
        path: A .zip or a tar file.
        root: Folder to unpack in.
        makes: Folder inside the archive to keep.

    Returns:
        ``root / makes``.

    Raises:
        DataError: The archive is damaged, would write outside, lacks the folder, or the disk is full.
    """
    partial = root / f".{path.name}.{os.getpid()}.partial"
    try:
        partial.mkdir(parents=True)
        if zipfile.is_zipfile(path):
            _unzip(path, partial)
        else:
            with tarfile.open(path) as archive:
                archive.extractall(partial, filter="data")
        if not (partial / makes).is_dir():
            raise DataError(f"{path} does not hold the folder {makes}")
        (root / makes).parent.mkdir(parents=True, exist_ok=True)
        os.replace(partial / makes, root / makes)
    except tarfile.FilterError as error:
        raise DataError(f"{path} is refused: {error}") from None
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, OSError, RuntimeError) as error:
        raise DataError(f"cannot unpack {path}: {error}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return root / makes


def _unzip(path: Path, target: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        # Looked at before anything is written; zip members can be neither links nor devices here.
        for name in archive.namelist():
            inside = PurePosixPath(name.replace("\\", "/"))
            if inside.is_absolute() or ".." in inside.parts or ":" in name:
                raise DataError(f"{path} is refused: its member '{name}' would be written outside the folder")
        _demand_space(target, sum(member.file_size for member in archive.infolist()))
        archive.extractall(target)


def _demand_space(folder: Path, need: int) -> None:
    place = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    free = shutil.disk_usage(place).free
    if free < need:
        raise DataError(f"{place} has {free / 2**30:.1f} GiB free, about {need / 2**30:.1f} GiB are needed")


def _part(archive: Archive, folder: Path) -> Path:
    return folder / f"{archive.file_name}.part"


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
