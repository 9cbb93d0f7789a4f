"""What a person may give a command by mistake or malice; `docs/reference/errors.md` shows the answers."""

from __future__ import annotations

import json
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.cli import TINY

BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
"""YAML that would unfold to a billion words."""


class Mark:
    """Unpickled, this would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@dataclass
class Place:
    """A folder to spoil things in.

    Attributes:
        tmp: Empty.
        toy: A good data set, not to be changed.
        finished: A good run on it, not to be changed.
    """

    tmp: Path
    toy: Path
    finished: Path

    @property
    def out(self) -> Path:
        return self.tmp / "out"

    def file(self, name: str, content: str | bytes) -> Path:
        path = self.tmp / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def data(self, **changes: str | bytes | None) -> Path:
        """A copy of the data set with files replaced ("__" for "/", "_dot_" for "."), or removed."""
        root = shutil.copytree(self.toy, self.tmp / "data")
        for key, content in changes.items():
            path = root / key.replace("__", "/").replace("_dot_", ".")
            if content is None:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            else:
                path.write_bytes(content.encode() if isinstance(content, str) else content)
        return root

    def run(self, spoil: Callable[[Path], object] = lambda run: None) -> Path:
        """A copy of the run, spoiled."""
        root = shutil.copytree(self.finished, self.tmp / "run")
        spoil(root)
        return root


@dataclass(frozen=True)
class Case:
    """One row.

    Attributes:
        command: Words of the command.
        came: What it was given, in words.
        arguments: What follows the command.
        words: What the answer must say.
        code: Its exit code.
    """

    command: str
    came: str
    arguments: Callable[[Place], Sequence[object]]
    words: tuple[str, ...] = ()
    code: int = 2


def train(place: Place, data: Path | None = None, *more: object) -> list[object]:
    return ["--data", data or place.toy, "--out", place.out, "--iterations=1", *TINY, *more]


def recipe(place: Place, text: str | bytes) -> list[object]:
    return [place.file("mine.yaml", text), "--data", place.toy, "--out", place.out]


def cut_short(place: Place) -> Path:
    """A picture whose second half is missing."""
    whole = sorted((place.toy / "images").glob("*.png"))[0].read_bytes()
    return place.file("x.png", whole[: len(whole) // 2])


def tags(place: Place, text: str | bytes, name: str = "tags.csv") -> list[object]:
    return train(place, None, "--tags", place.file(name, text))


def weights(place: Place, content: bytes, name: str = "w.pth") -> list[object]:
    flags = [flag for flag in TINY if not flag.startswith("--weights")]
    path = place.file(name, content)
    return ["--data", place.toy, "--out", place.out, "--iterations=1", *flags, "--weights", path]


def hostile(place: Place) -> bytes:
    return pickle.dumps({"model": Mark(place.tmp / "executed")})


def hostile_torch(place: Place) -> bytes:
    import io

    import torch

    buffer = io.BytesIO()
    torch.save({"model": Mark(place.tmp / "executed")}, buffer)
    return buffer.getvalue()


def cut(path: Path, keep: int = 100) -> None:
    path.write_bytes(path.read_bytes()[:keep])


def first_map(run: Path) -> Path:
    shutil.rmtree(run / "labels")
    return sorted((run / "maps" / "cam").glob("*.npz"))[0]


def replace_map(run: Path, **arrays: np.ndarray) -> None:
    np.savez(first_map(run), **arrays)


def png_header(width: int, height: int) -> bytes:
    """A picture that declares a size and holds nothing."""
    import zlib

    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + head
        + struct.pack(">I", zlib.crc32(head))
        + b"\0\0\0\0IEND\xaeB`\x82"
    )


def archive(place: Place, name: str, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(place.tmp / name, "w") as file:
        for member, content in members.items():
            file.writestr(member, content)
    return place.tmp / name


def edit_json(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def small_mask(place: Place) -> Path:
    data = place.data()
    mask = sorted((data / "masks").glob("*.png"))[0]
    with Image.open(mask) as picture:
        picture.resize((9, 9)).save(mask)
    return data


def coloured_mask(place: Place) -> Path:
    data = place.data()
    Image.new("RGB", (64, 64)).save(sorted((data / "masks").glob("*.png"))[0])
    return data


def images_only(place: Place) -> Path:
    folder = place.tmp / "pictures"
    folder.mkdir()
    return folder


CASES: list[Case] = [
    # settings
    Case("train", "nothing at all", lambda p: ["--out", p.out], ("--data DIR",)),
    Case("train", "an option that does not exist", lambda p: ["--dta", p.toy], ("No such option",)),
    Case("train", "a word where a number belongs", lambda p: ["--iterations", "many"], ("valid integer",)),
    Case("train", "--set without a value", lambda p: train(p, None, "--set", "train.size"), ("key=value",)),
    Case("train", "--set of an unknown key", lambda p: train(p, None, "--set", "train.sise=64"), ("'size'",)),
    Case(
        "train", "--set through a value", lambda p: train(p, None, "--set", "train.size.x=1"), ("train.size",)
    ),
    Case("train", "no iterations", lambda p: [*train(p), "--iterations=0"], ("iterations",)),
    Case("train", "a negative batch", lambda p: train(p, None, "--batch-size=-4"), ("batch_size",)),
    Case("train", "views of 3 pixels", lambda p: [*train(p), "--size=3"], ("size",)),
    Case(
        "train", "a batch that cannot be shared", lambda p: train(p, None, "--set=train.accumulate=3"), ("3",)
    ),
    Case("train", "an unknown method", lambda p: [*train(p), "--method=moer"], ("'more'",)),
    Case("train", "an unknown view", lambda p: train(p, None, "--set=train.view=crop"), ("crop",)),
    Case(
        "train",
        "an unknown setting of the view",
        lambda p: train(p, None, "--set=train.view_settings={zoom: 2}"),
        ("zoom",),
    ),
    Case("train", "a device that is not here", lambda p: [*train(p), "--device=cuda:99"], ("cuda:99",)),
    Case("train", "a device that is none", lambda p: [*train(p), "--device=toaster"], ("toaster",)),
    Case("train", "a precision this device lacks", lambda p: train(p, None, "--precision=fp16"), ("fp16",)),
    Case("train", "an unknown precision", lambda p: train(p, None, "--precision=fp8"), ("precision",)),
    Case("train", "a negative seed", lambda p: train(p, None, "--seed=-1"), ("seed",)),
    Case(
        "train",
        "a backbone that does not exist",
        lambda p: [*train(p), "--backbone=vit_huge9"],
        ("vit_huge9",),
    ),
    Case("train", "a backbone of no layers", lambda p: [*train(p), "--backbone=vit:depth=0"], ("depth",)),
    Case(
        "train",
        "gradient checkpointing with a network that has none",
        lambda p: [
            "--data",
            p.toy,
            "--out",
            p.out,
            "--method=psa",
            "--weights=none",
            "--device=cpu",
            "--set=train.gradient_checkpointing=true",
        ],
        ("gradient_checkpointing",),
    ),
    Case(
        "train",
        "an output folder below a file",
        lambda p: [*train(p), "--out", p.file("f", "") / "o"],
        ("f",),
    ),
    # recipes
    Case("run", "a recipe that does not exist", lambda p: ["voc/mroe", "--data", p.toy], ("voc/mroe",)),
    Case("run", "a recipe file that is not there", lambda p: [p.tmp / "none.yaml"], ("none.yaml",)),
    Case("run", "a recipe with an unknown key", lambda p: recipe(p, "train: {sizes: 3}"), ("'size'",)),
    Case("run", "a recipe that is a list", lambda p: recipe(p, "[1, 2]"), ("key: value",)),
    Case(
        "run", "a recipe that is a picture", lambda p: recipe(p, b"\x89PNG\r\n\x1a\n\xff\xfe"), ("mine.yaml",)
    ),
    Case("run", "a recipe that is not closed", lambda p: recipe(p, "a: [1"), ("not valid YAML",)),
    Case(
        "run",
        "a recipe that wants to run a command",
        lambda p: recipe(p, f"method: !!python/object/apply:os.mkdir ['{p.tmp / 'executed'}']"),
        ("not valid YAML",),
    ),
    Case("run", "a recipe that unfolds to a billion words", lambda p: recipe(p, BOMB), ("unfolds",)),
    Case(
        "run",
        "the same deep inside a known key",
        lambda p: recipe(p, "model:\n  " + BOMB.replace("\n", "\n  ")),
        ("unfolds",),
    ),
    Case(
        "run", "a recipe of ten thousand brackets", lambda p: recipe(p, "a: " + "[" * 10000), ("mine.yaml",)
    ),
    Case("run", "a key that holds itself", lambda p: recipe(p, "model: &a {x: *a}"), ("mine.yaml",)),
    Case("run", "a step that does not exist", lambda p: [p.finished, "--until", "trian"], ("'train'",)),
    Case(
        "run", "steps in the wrong order", lambda p: ["small", "--from=report", "--until=train"], ("order",)
    ),
    Case("run", "a folder that holds nothing", lambda p: [p.tmp, "--out", p.out], ("tag file",)),
    Case("run", "neither a recipe nor data", lambda p: ["--out", p.out], ("--data",)),
    # data
    Case("train", "a data folder that does not exist", lambda p: train(p, p.tmp / "x"), ("does not exist",)),
    Case("train", "an empty data folder", lambda p: train(p, images_only(p)), ("tag file",)),
    Case("train", "a file instead of a folder", lambda p: train(p, p.file("x", "x")), ("x",)),
    Case("train", "an unknown kind of data", lambda p: train(p, None, "--kind=cityscapes"), ("cityscapes",)),
    Case("train", "a split that does not exist", lambda p: train(p, None, "--split=tran"), ("tran",)),
    Case("train", "VOC's kind for another folder", lambda p: train(p, None, "--kind=voc"), ("VOC2012",)),
    Case("train", "an empty tag file", lambda p: tags(p, ""), ("tags.csv",)),
    Case(
        "train",
        "a tag file without its first line",
        lambda p: tags(p, "00000.png,dots\n"),
        ("image and tags",),
    ),
    Case("train", "a tag file in UTF-16", lambda p: tags(p, "image,tags\n".encode("utf-16")), ("tags.csv",)),
    Case("train", "tags with too many fields", lambda p: tags(p, "image,tags\n0.png,a,b\n"), ("line 2",)),
    Case(
        "train", "a quote that is never closed", lambda p: tags(p, 'image,tags\n"0.png,dots\n'), ("tags.csv",)
    ),
    Case("train", "a picture that is not there", lambda p: tags(p, "image,tags\nx.png,dots\n"), ("x.png",)),
    Case(
        "train",
        "a picture outside the folder",
        lambda p: tags(p, "image,tags\n../../secret.png,dots\n"),
        ("secret.png",),
    ),
    Case("train", "an image twice", lambda p: tags(p, "image,tags\n00000.png,a\n00000.png,b\n"), ("00000",)),
    Case(
        "train", "JSON lines cut in the middle", lambda p: tags(p, '{"image": "0', "tags.jsonl"), ("line 1",)
    ),
    Case(
        "train", "JSON lines of ten thousand brackets", lambda p: tags(p, "[" * 10000, "t.jsonl"), ("line 1",)
    ),
    Case(
        "train",
        "a class file with a name twice",
        lambda p: train(p, p.data(classes_dot_txt="dots\ndots\n")),
        ("dots",),
    ),
    Case("train", "an empty class file", lambda p: train(p, p.data(classes_dot_txt="")), ("classes.txt",)),
    Case(
        "train", "a class that no file knows", lambda p: train(p, p.data(classes_dot_txt="cat\n")), ("cat",)
    ),
    Case(
        "train",
        "more broken pictures than allowed",
        lambda p: train(
            p,
            p.data(images__00000_dot_png=b"", images__00001_dot_png=b"x"),
            "--set=train.broken_limit=0",
            "--batch-size=12",
        ),
        ("could not be read",),
    ),
    Case(
        "train",
        "a picture that declares a million by a million pixels",
        lambda p: train(
            p,
            p.data(images__00000_dot_png=png_header(10**6, 10**6)),
            "--set=train.broken_limit=0",
            "--batch-size=12",
        ),
        ("00000.png",),
    ),
    # weights and models
    Case(
        "train", "weights that are not there", lambda p: [*train(p), "--weights", p.tmp / "w.pth"], ("w.pth",)
    ),
    Case("train", "weights of an unknown kind", lambda p: weights(p, b"x", "w.onnx"), ("w.onnx",)),
    Case("train", "weights that are noise", lambda p: weights(p, bytes(range(256))), ("w.pth",)),
    Case("train", "weights that are empty", lambda p: weights(p, b""), ("w.pth",)),
    Case("train", "weights that run code (pickle)", lambda p: weights(p, hostile(p)), ("w.pth",)),
    Case("train", "weights that run code (torch)", lambda p: weights(p, hostile_torch(p)), ("w.pth",)),
    Case(
        "train",
        "safetensors that declare more than they hold",
        lambda p: weights(p, struct.pack("<Q", 2**62) + b"{}", "w.safetensors"),
        ("w.safetensors",),
    ),
    Case(
        "run",
        "a published checkpoint that runs code",
        lambda p: [
            *recipe(p, "{method: more, model: {backbone: 'vit:patch=8,dim=32,depth=3,heads=2,size=64'}}"),
            "--checkpoint",
            p.file("w.pth", hostile_torch(p)),
            "--from=localize",
        ],
        ("w.pth",),
    ),
    Case("segment", "a folder that does not exist", lambda p: [p.tmp / "none"], ("none",)),
    Case(
        "segment",
        "a run without a model",
        lambda p: [p.run(lambda r: shutil.rmtree(r / "model"))],
        ("weights",),
    ),
    Case(
        "segment",
        "a model that is cut off",
        lambda p: [p.run(lambda r: cut(r / "model" / "weights.safetensors"))],
        ("damaged",),
    ),
    Case(
        "segment",
        "a model with flipped bits",
        lambda p: [
            p.run(
                lambda r: (w := r / "model" / "weights.safetensors").write_bytes(
                    w.read_bytes()[:-4] + b"abcd"
                )
            )
        ],
        ("checksum",),
    ),
    Case("segment", "a model folder without --out", lambda p: [p.finished / "model"], ("--out",)),
    Case(
        "segment",
        "settings of a run that make no sense",
        lambda p: [p.run(lambda r: (r / "settings.yaml").write_text("train: 5"))],
        ("settings.yaml",),
    ),
    Case("segment", "a scale of 0", lambda p: [p.run(), "--scales", "1,0"], ("scales",)),
    Case("segment", "a scale that is a word", lambda p: [p.run(), "--scales", "big"], ("scales",)),
    Case("segment", "an unknown CRF", lambda p: [p.run(), "--crf", "denser"], ("denser",)),
    Case(
        "segment",
        "a manifest that is cut off",
        lambda p: [p.run(lambda r: cut(r / "run.json", 50))],
        ("run.json is damaged",),
    ),
    Case(
        "segment",
        "a manifest of a newer tagmask",
        lambda p: [p.run(lambda r: edit_json(r / "run.json", format=99))],
        ("newer",),
    ),
    Case("localize", "an unknown kind of maps", lambda p: [p.run(), "--maps", "cam,cma"], ("cma",)),
    Case("localize", "squares of 2 pixels", lambda p: [p.run(), "--resize=2"], ("size",)),
    Case(
        "localize",
        "data with other classes",
        lambda p: [
            p.run(),
            "--data",
            p.data(classes_dot_txt=None, tags_dot_csv="image,tags\n00000.png,dots\n"),
        ],
        ("classes",),
    ),
    Case(
        "refine", "a run without maps", lambda p: [p.run(lambda r: shutil.rmtree(r / "maps"))], ("no maps",)
    ),
    Case("refine", "an unknown refinement", lambda p: [p.run(), "--refinement=sharp"], ("method",)),
    Case("refine", "a threshold above 1", lambda p: [p.run(), "--background=7"], ("background",)),
    Case("refine", "maps that are cut off", lambda p: [p.run(lambda r: cut(first_map(r)))], ("npz",)),
    Case(
        "refine",
        "maps that run code",
        lambda p: [p.run(lambda r: replace_map(r, maps=np.array([Mark(p.tmp / "executed")], dtype=object)))],
        ("npz",),
    ),
    Case(
        "refine",
        "maps without their keys",
        lambda p: [p.run(lambda r: replace_map(r, x=np.zeros(3)))],
        ("npz",),
    ),
    Case("affinity", "a run whose recipe has none", lambda p: [p.run()], ("no affinity",)),
    Case("walk", "a run whose recipe has none", lambda p: [p.run()], ("no affinity",)),
    Case("student", "a run whose recipe has none", lambda p: [p.run()], ("no student",)),
    # scores and pages
    Case("evaluate", "an unknown kind of result", lambda p: [p.run(), "--what", "camp"], ("camp",)),
    Case(
        "evaluate", "a threshold that is a word", lambda p: [p.run(), "--background", "good"], ("background",)
    ),
    Case("evaluate", "masks of another size", lambda p: [p.run(), "--data", small_mask(p)], ("must match",)),
    Case("evaluate", "masks in colour", lambda p: [p.run(), "--data", coloured_mask(p)], ("one channel",)),
    Case(
        "evaluate", "a folder of masks that is not there", lambda p: [p.run(), "--masks", p.tmp / "m"], ("m",)
    ),
    Case("evaluate", "a folder that does not exist", lambda p: [p.tmp / "none"], ("none",)),
    Case("report", "a folder that is no run", lambda p: [p.toy], ("neither a run folder",)),
    Case(
        "entropy",
        "a split that does not exist",
        lambda p: [p.run(), "--split=nowhere"],
        ("nowhere",),
    ),
    Case("show", "a word that means nothing", lambda p: ["moore"], ("'more'",)),
    Case("demo", "an output folder that is a file", lambda p: ["--out", p.file("f", "x")], ("f",)),
    Case("animate", "a video that is missing", lambda p: [p.finished, p.tmp / "x.mp4", p.out], ("x.mp4",)),
    Case(
        "animate",
        "a video that is text",
        lambda p: [p.finished, p.file("x.gif", "hello"), p.tmp / "o.gif", "--device=cpu"],
        ("x.gif",),
    ),
    Case(
        "animate",
        "an unknown panel",
        lambda p: [p.finished, p.toy / "images", p.tmp / "o.gif", "--panels=depth"],
        ("panels",),
    ),
    Case(
        "animate", "an empty folder", lambda p: [p.finished, images_only(p), p.tmp / "o.gif"], ("pictures",)
    ),
    # data commands
    Case("data check", "a folder that does not exist", lambda p: [p.tmp / "x"], ("does not exist",)),
    Case("data check", "an empty folder", lambda p: [images_only(p)], ("tag file",)),
    Case("data download", "an unknown data set", lambda p: ["voc2013", "--root", p.out], ("voc2012",)),
    Case(
        "data download",
        "a server that does not answer",
        lambda p: ["voc2012", "--root", p.out, "--mirror", "http://127.0.0.1:9"],
        ("127.0.0.1",),
    ),
    Case(
        "data build-voc-aug",
        "folders that do not exist",
        lambda p: ["--sbd", p.tmp / "a", "--voc", p.tmp / "b"],
        ("no .mat masks",),
    ),
    # annotation tools
    Case(
        "annotate export",
        "an unknown format",
        lambda p: [p.finished, "--format=cvatt", "--out", p.tmp / "x.zip"],
        ("'cvat'",),
    ),
    Case(
        "annotate export",
        "masks of which nothing is known",
        lambda p: [images_only(p), "--format=coco", "--out", p.tmp / "x.json"],
        ("--images DIR",),
    ),
    Case(
        "annotate import",
        "an archive that wants to write elsewhere",
        lambda p: [
            archive(p, "x.zip", {"SegmentationClass/../../executed": b"x"}),
            p.finished,
            "--out",
            p.out,
        ],
        ("x.zip",),
    ),
    Case(
        "annotate import",
        "an archive that is none",
        lambda p: [p.file("x.zip", "PK"), p.finished, "--out", p.out],
        ("x.zip",),
    ),
    Case(
        "annotate import",
        "a file with no annotation in it",
        lambda p: [p.file("x.json", "{}"), p.finished, "--out", p.out],
        ("none of the formats",),
    ),
    Case(
        "annotate import",
        "a JSON file of ten thousand brackets",
        lambda p: [p.file("x.json", "[" * 10000), p.finished, "--out", p.out, "--format=coco"],
        ("x.json",),
    ),
    # using a model
    Case("predict", "no model", lambda p: [p.tmp, p.toy, "--out", p.out], ("no saved weights",)),
    Case(
        "predict",
        "a picture that does not exist",
        lambda p: [p.finished, p.tmp / "x.jpg", "--out", p.out],
        ("x.jpg", "does not exist"),
        code=3,
    ),
    Case(
        "predict",
        "a picture cut short",
        lambda p: [p.finished, cut_short(p), "--out", p.out],
        ("x.png",),
        code=3,
    ),
    Case(
        "predict",
        "a tag file that does not exist",
        lambda p: [p.finished, p.toy, "--out", p.out, "--tags", "unicorn"],
        ("unicorn",),
    ),
    Case(
        "predict",
        "a tag that the model does not know",
        lambda p: [
            *(p.finished, p.toy / "images", "--out", p.out),
            *("--tags", p.file("tags.csv", "image,tags\n00012.png,unicorn\n")),
        ],
        ("unicorn",),
    ),
    Case(
        "predict",
        "an unknown engine",
        lambda p: [p.finished, p.toy, "--out", p.out, "--engine=spark"],
        ("spark",),
    ),
    Case(
        "predict",
        "a negative scale",
        lambda p: [p.finished, p.toy, "--out", p.out, "--scales=-1"],
        ("scales",),
    ),
    Case("review", "a folder that is no run", lambda p: [p.tmp], ("neither a run folder",)),
    Case("review", "an unknown kind of maps", lambda p: [p.run(), "--set=review.kinds=[cmm]"], ("cmm",)),
    Case("export", "no model", lambda p: [p.tmp, "--out", p.tmp / "m.onnx"], ("no saved weights",)),
    Case(
        "export", "an ending of another format", lambda p: [p.finished, "--out", p.tmp / "m.txt"], (".onnx",)
    ),
    Case(
        "export",
        "an unknown kind of maps",
        lambda p: [p.finished, "--out", p.tmp / "m.onnx", "--maps=cmm"],
        ("cmm",),
    ),
]
