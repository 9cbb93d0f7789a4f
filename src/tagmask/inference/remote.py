"""Where the pictures of a bulk run are: folders, archives, shards, manifests, on disk or behind URLs."""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec

from tagmask.data.levels import Reading
from tagmask.data.readers.archive import MAX_MEMBER, FolderTree, ZipTree
from tagmask.data.readers.images import FOREIGN_SUFFIXES, IMAGE_SUFFIXES, foreign
from tagmask.data.readers.regular import irregular
from tagmask.data.readers.stack import AnyPicture
from tagmask.errors import ConfigError, DataError, UserError
from tagmask.inference.patterns import fixed_part, is_pattern, matches
from tagmask.inference.pictures import (
    Broken,
    Named,
    own_folders,
    renamed,
    stem,
    whole_name,
)
from tagmask.inference.place import open_system, passing, stamp_of
from tagmask.inference.reading import one_of_each_series, read_by, whole_kind
from tagmask.inference.shard import Ahead
from tagmask.inference.video import VIDEO_SUFFIXES
from tagmask.store.files import PerhapsLater

__all__ = ["Item", "list_items", "read_item"]

_HERE = "is read in parts and needs a disk; copy it to one first"


@dataclass(frozen=True)
class Item(Named):
    """A picture by its place, small enough to travel.

    Attributes:
        url: The file, or the archive it is in.
        member: Its path in a zip archive.
        start: Its first byte in a tar shard; -1 elsewhere.
        length: Its bytes in a tar shard.
        kind: What is predicted in one go, see `tagmask.inference.reading.whole_kind`; "" for a picture.
    """

    url: str
    member: str = ""
    start: int = -1
    length: int = 0
    kind: str = ""


def list_items(inputs: Sequence[str], out: Path | None = None) -> Iterator[Item | Broken]:
    """Everything that some inputs hold; no picture is opened.

    Names are made as `tagmask.inference.pictures.each_picture` makes them.

    Args:
        inputs: Folders, patterns with ``*``, pictures, zip archives, tar shards (WebDataset), Parquet files
            with a column "path" (and, if wanted, "name"); each a path or a URL that fsspec knows.
        out: Folder that the masks go to; it is left out of the inputs that it is in.

    Yields:
        Items, and what cannot be used, in the order of the inputs, sorted within each.
    """
    used: set[str] = set()
    for given in inputs:
        try:
            for found in _from_input(given, own_folders(out)):
                yield renamed(found, used) if isinstance(found, Item) else found
        except UserError as error:
            yield Broken(given, str(error))
        except Exception as error:  # every file system behind fsspec raises types of its own
            yield Broken(given, f"cannot be listed ({_words(error)})")


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _from_input(given: str, skip: tuple[Path, ...]) -> Iterator[Item | Broken]:
    system, path = open_system(given)
    local = "://" not in given
    if local and not Path(given).exists() and is_pattern(given):
        yield from _from_pattern(given, skip)
    elif is_pattern(given) and not local:
        found = sorted(system.glob(path))
        root = fixed_part(PurePosixPath(path))
        if not found:
            yield Broken(given, "matches no file")
        for one in found:
            if not system.isdir(one):
                file = PurePosixPath(one).relative_to(PurePosixPath(root)).as_posix()
                yield from _from_file(str(system.unstrip_protocol(one)), file, system.info(one))
    elif local and Path(given).is_dir():
        tree = FolderTree(Path(given), skip)
        for name, reason in tree.refused:
            yield Broken(str(tree.root / name), reason)
        for name in one_of_each_series(tree.names):
            yield from _one(str(tree.root / name), name, _local_stamp(tree.root / name))
    elif not local and system.isdir(path):
        for one, info in sorted(system.find(path, detail=True).items()):
            file = PurePosixPath(one).relative_to(PurePosixPath(path)).as_posix()
            yield from _one(str(system.unstrip_protocol(one)), file, stamp_of(info))
    elif local and (unread := irregular(Path(given))) is not None:
        yield Broken(given, unread)
    elif not local and not system.exists(path):
        yield Broken(given, "does not exist")
    else:
        yield from _from_file(given, PurePosixPath(path).name, {} if local else system.info(path))


def _from_pattern(given: str, skip: tuple[Path, ...]) -> Iterator[Item | Broken]:
    root = Path(fixed_part(Path(given)))
    found, refused = matches(given, root, skip)
    for name, reason in refused:
        yield Broken(str(root / name), reason)
    if not found and not refused:
        yield Broken(given, "matches no file")
    for name in found:
        yield from _from_file(str(root / name), name, {})


def _local_stamp(path: Path) -> str:
    state = path.stat()
    return f"{state.st_size}-{state.st_mtime_ns}"


def _from_file(url: str, file: str, info: Mapping[str, Any]) -> Iterator[Item | Broken]:
    suffix = PurePosixPath(file).suffix.lower()
    local = "://" not in url
    stamp = _local_stamp(Path(url)) if local else stamp_of(info)
    if suffix == ".zip":
        tree = _zip(url)
        for name, reason in tree.refused:
            yield Broken(f"{url}:{name}", reason)
        for name in tree.names:
            if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES:
                yield Item(stem(name), name, f"{url}:{name}", stamp, url, member=name)
    elif suffix == ".tar":
        yield from _from_shard(url, stamp)
    elif suffix == ".parquet":
        yield from _from_manifest(url)
    else:
        yield from _one(url, file, stamp, named=True)


def _one(url: str, file: str, stamp: str, named: bool = False) -> Iterator[Item | Broken]:
    suffix = PurePosixPath(file).suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        yield Broken(url, "is a video; leave out --engine ray for videos")
    elif suffix in FOREIGN_SUFFIXES:
        yield Broken(url, foreign(suffix))
    elif (kind := whole_kind(Path(url))) and "://" in url:
        yield Broken(url, f"is a {kind}, which {_HERE}")
    elif named or kind in ("volume", "series", "slide") or suffix in IMAGE_SUFFIXES:
        yield Item(whole_name(Path(url), file, kind, named), file, url, stamp, url, kind=kind)


def _from_shard(url: str, stamp: str) -> Iterator[Item | Broken]:
    """Places of the pictures in a tar file; nothing is unpacked, so nothing can be written elsewhere."""
    try:
        with fsspec.open(url, "rb") as file, tarfile.open(fileobj=file, mode="r:") as shard:
            for entry in shard:
                if PurePosixPath(entry.name).suffix.lower() not in IMAGE_SUFFIXES:
                    continue
                source = f"{url}:{entry.name}"
                if not entry.isreg() or entry.issparse():
                    yield Broken(source, "is a link or no plain file")
                elif entry.size > MAX_MEMBER:
                    yield Broken(source, f"has {entry.size:,} bytes; at most {MAX_MEMBER:,} are read")
                else:
                    place = entry.offset_data, entry.size
                    yield Item(stem(entry.name), entry.name, source, stamp, url, "", *place)
    except (tarfile.TarError, EOFError) as error:
        yield Broken(
            url, f"is no readable tar file, or a packed one ({error}); unpack it to plain .tar first"
        )


def _from_manifest(url: str) -> Iterator[Item | Broken]:
    import pyarrow
    from pyarrow import parquet

    base = url.rsplit("/", 1)[0] if "://" in url else str(Path(url).parent)
    try:
        with fsspec.open(url, "rb") as file:
            table = parquet.ParquetFile(file)
            if "path" not in table.schema_arrow.names:
                raise DataError(f"{url} has no column 'path' (it has {', '.join(table.schema_arrow.names)})")
            columns = [name for name in ("path", "name") if name in table.schema_arrow.names]
            for batch in table.iter_batches(columns=columns):
                for row in batch.to_pylist():
                    yield _listed(base, str(row["path"]), row.get("name"))
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{url} is no readable Parquet file ({_words(error)})") from None


def _listed(base: str, path: str, name: str | None) -> Item | Broken:
    if ".." in PurePosixPath(path).parts:
        return Broken(path, "is a path with '..'; a manifest names what is below it, or absolute places")
    url = path if "://" in path or Path(path).is_absolute() else f"{base}/{path}"
    try:
        system, place = open_system(url)
        if "://" not in url and (reason := irregular(Path(url))) is not None:
            return Broken(url, reason)
        stamp = _local_stamp(Path(url)) if "://" not in url else stamp_of(system.info(place))
    except (OSError, ConfigError) as error:
        return Broken(url, f"cannot be read ({getattr(error, 'strerror', None) or error})")
    file = path if url != path else PurePosixPath(place).name
    if (kind := whole_kind(Path(url))) and "://" in url:
        return Broken(url, f"is a {kind}, which {_HERE}")
    return Item(stem(f"{name}.x") if name else stem(file), file, url, stamp, url, kind=kind)


@lru_cache(maxsize=8)
def _zip(url: str) -> ZipTree:
    return ZipTree(Path(url), None if "://" not in url else fsspec.open(url, "rb").open())


def read_item(
    item: Item, max_pixels: int, reading: Reading | None = None, ahead: Ahead | None = None
) -> AnyPicture:
    """Decode the picture at a place.

    Args:
        item: The place.
        max_pixels: Larger declared sizes are refused.
        reading: How files become levels; None for 8-bit pictures.
        ahead: Reads the pictures of a shard many at a time.

    Raises:
        DataError: It cannot be read or decoded.
    """
    if not item.member and item.start < 0 and "://" not in item.url:
        return read_by(reading, item.url, max_pixels)
    try:
        if item.member:
            content = _zip(item.url).read(item.member)
        else:
            content = _bytes(item) if ahead is None or item.start < 0 else ahead.content(item)
    except UserError:
        raise
    except Exception as error:  # every file system behind fsspec raises types of its own
        raise (PerhapsLater if "://" in item.url and passing(error) else DataError)(
            f"{item.source} cannot be read ({type(error).__name__}: {str(error)[:200]})"
        ) from None
    if "://" in item.url and item.start < 0 and _is_scene(item.url, content):
        raise DataError(f"{item.source} is a scene, which {_HERE}")
    return read_by(reading, item.source, max_pixels, content=content)


def _is_scene(url: str, content: bytes) -> bool:
    suffix = PurePosixPath(url).suffix.lower()
    if suffix not in (".tif", ".tiff"):
        return False
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / f"picture{suffix}"
        copy.write_bytes(content)
        return whole_kind(copy) == "scene"


def _bytes(item: Item) -> bytes:
    with fsspec.open(item.url, "rb") as file:
        if item.start < 0:
            content = file.read(MAX_MEMBER + 1)
            if len(content) > MAX_MEMBER:
                raise DataError(f"{item.source} has more than {MAX_MEMBER:,} bytes")
            return bytes(content)
        file.seek(item.start)
        content = file.read(item.length)
    if len(content) != item.length:
        raise DataError(f"{item.source} is cut off")
    return bytes(content)
