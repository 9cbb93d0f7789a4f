"""YOLO's segmentation labels: one text file per image, one outline per line, shares of width and height."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

import numpy as np

from tagmask.annotations.formats.base import Found, Images, Labelled, Put, Tree, blank, label_of
from tagmask.annotations.formats.regions import components, outlines, polygon_mask
from tagmask.data.classes import ClassTable
from tagmask.errors import DataError

__all__ = ["read", "write"]


def write(items: Iterable[Labelled], classes: ClassTable, put: Put, shapes: str = "polygons") -> None:
    """Write ``labels/<name>.txt`` and ``data.yaml``.

    Args:
        items: Images with labels.
        classes: Number k is class k.
        put: Takes the files.
        shapes: "polygons"; this format has nothing else.
    """
    for item in items:
        height, width = item.mask.shape
        rows = []
        for region in components(item.mask):
            for polygon in outlines(region):
                shares = np.clip(polygon / (width, height), 0, 1).reshape(-1)
                rows.append(" ".join([str(region.label - 1), *(f"{share:.6f}" for share in shares)]))
        put(f"labels/{item.name}.txt", "".join(f"{row}\n" for row in rows).encode())
    # JSON strings are valid YAML, whatever the name holds.
    names = "".join(f"  {k}: {json.dumps(name)}\n" for k, name in enumerate(classes.names))
    put("data.yaml", f"path: .\ntrain: images\nval: images\nnames:\n{names}".encode())


def read(tree: Tree, images: Images) -> Iterator[Found]:
    """Labels of every text file; ``data.yaml`` names the numbers, else they follow the classes.

    Raises:
        DataError: A line cannot be read, or names an unknown number or image.
    """
    labels = _numbers(tree, images)
    files = [name for name in tree.names if name.lower().endswith(".txt")]
    proper = [name for name in files if "labels" in PurePosixPath(name).parts[:-1]]
    if not files:
        raise DataError("there is no .txt with outlines in it")
    for file in proper or [name for name in files if PurePosixPath(name).name != "classes.txt"]:
        parts = PurePosixPath(file).parts
        inner = parts[parts.index("labels") + 1 :] if proper else parts
        try:
            name = images.find("/".join(inner), file)
        except DataError:
            # With parts as sub-folders (labels/train) the picture's name begins one later.
            name = images.find("/".join(inner[1:]) or inner[0], file)
        mask = blank(images, name)
        height, width = mask.shape
        for number, line in enumerate(tree.read(file).decode("utf-8", "replace").splitlines(), start=1):
            if not line.strip():
                continue
            try:
                key, *shares = line.split()
                points = np.asarray(shares, np.float64).reshape(-1, 2) * (width, height)
                mask[polygon_mask([points], (height, width))] = labels[int(key)]
            except (ValueError, KeyError) as error:
                raise DataError(f"{file}, line {number}: {error or 'cannot be read'}") from None
        yield name, mask


def _numbers(tree: Tree, images: Images) -> dict[int, int]:
    """Class number of a line to label."""
    import yaml

    file = next((name for name in tree.names if PurePosixPath(name).name in ("data.yaml", "data.yml")), None)
    if file is None:
        return {k: k + 1 for k in range(images.classes.num_classes)}
    try:
        names = yaml.safe_load(tree.read(file))["names"]
        pairs = names.items() if isinstance(names, dict) else enumerate(names)
        return {int(k): label_of(images.classes, str(name), file) for k, name in pairs}
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{file} has no readable list of names: {type(error).__name__}") from None
