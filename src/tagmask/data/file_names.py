"""Image names as file names that every system can hold, and names in messages that every terminal can."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

from tagmask.errors import DataError

__all__ = ["image_name", "legal_part", "named_file", "unusable"]

# What Windows forbids, and a percent sign that would be read as the start of a code.
_FORBIDDEN = re.compile(r'[<>:"|?*\x01-\x1f\x7f]|%(?=[0-9A-Fa-f]{2})')
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\.|$)", re.IGNORECASE)
_CODE = re.compile(r"%([0-9A-F]{2})")


def legal_part(part: str) -> str:
    """One part of a path as Windows, macOS and Linux can hold it; what it was is told by `image_name`.

    Forbidden characters become ``%`` and two hexadecimal digits, as in addresses: ``10:30`` is ``10%3A30``.
    So does the first letter of a name Windows keeps for itself (``%43ON.png``), a blank or dot at the end,
    and a percent sign that two hexadecimal digits follow. All other names stay as they are.
    """
    result = _FORBIDDEN.sub(lambda found: _coded(found[0]), part)
    if _RESERVED.match(result):
        result = _coded(result[0]) + result[1:]
    return result[:-1] + _coded(result[-1]) if result.endswith((".", " ")) else result


def _coded(character: str) -> str:
    return f"%{ord(character):02X}"


def image_name(written: str) -> str:
    """The name that `legal_part` made a file name of."""
    return _CODE.sub(lambda found: chr(int(found[1], 16)), written)


def unusable(name: str) -> str | None:
    """Why an image name cannot become a file name; None if it can."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or any("\\" in p or "\0" in p for p in parts):
        return "rename it without '..' or '\\'"
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return "it is not valid text (UTF-8); rename it"
    return None


def named_file(folder: Path, name: str, suffix: str) -> Path:
    """Path of the file that belongs to an image name; sub-folder parts of the name become sub-folders.

    Args:
        folder: The folder of all such files.
        name: Image name without ending, parts separated by "/".
        suffix: Ending with its dot.

    Raises:
        DataError: The name would leave the folder, or cannot be a file name.
    """
    if (reason := unusable(name)) is not None:
        raise DataError(f"image name {name!r} cannot be used as a file name; {reason}")
    parts = PurePosixPath(name).parts
    as_is = (*parts[:-1], parts[-1] + suffix)
    legal = tuple(legal_part(part) for part in as_is)
    path = folder.joinpath(*legal)
    if legal != as_is and os.name != "nt" and not path.exists():
        # Files that people or earlier versions called by the bare name are still found.
        bare = folder.joinpath(*as_is)
        path = bare if bare.is_file() else path
    return path
