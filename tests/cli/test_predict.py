"""Prediction of whatever people point at."""

from __future__ import annotations

import csv
import io
import json
import shutil
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tagmask.data.datasets.scenes import render
from tagmask.store.labels import read_mask
from tests.cli import tagmask

FAST = ("--device", "cpu", "--scales", "1", "--tile", "64", "--set", "overlap=16")


def predict(model: Path, out: Path, *arguments: str | Path):
    return tagmask("predict", model, *FAST, "--out", out, *arguments)


def rows(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "summary.jsonl").read_text().splitlines()]


def png(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


SCENE = Image.fromarray(render(3, 0, size=48).image)
GOOD = png(SCENE)


def test_a_folder_with_tags_gives_masks_overlays_and_figures(finished: Path, toy: Path, tmp_path: Path):
    done = predict(finished, tmp_path / "out", toy / "images", "--tags", toy / "tags.csv")
    assert done.exit_code == 0, done.stderr
    with (toy / "tags.csv").open() as file:
        tags = {row["image"]: set(row["tags"].split()) for row in csv.DictReader(file)}
    found = rows(tmp_path / "out")
    assert [row["file"] for row in found] == sorted(tags)
    for row in found:
        mask = read_mask(tmp_path / "out" / "masks" / f"{row['name']}.png")
        sure = read_mask(tmp_path / "out" / "confidence" / f"{row['name']}.png")
        assert mask.shape == sure.shape == (row["height"], row["width"]) == (64, 64)
        assert set(row["classes"]) <= tags[row["file"]]
        assert row["confidence"] == pytest.approx(sure.mean() / 255, abs=1e-3)
        missing = tags[row["file"]] - set(row["classes"])
        assert {w.removeprefix("no pixel of the tag ") for w in row["warnings"] if "tag" in w} == missing
        with Image.open(tmp_path / "out" / "overlays" / f"{row['name']}.jpg") as overlay:
            assert overlay.size == (64, 64)
    with (tmp_path / "out" / "summary.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [line["name"] for line in table] == [row["name"] for row in found]
    assert float(table[0]["area of dots"]) == found[0]["classes"].get("dots", 0)


def test_what_is_done_is_left_alone_and_what_changed_is_done_again(finished: Path, tmp_path: Path):
    pictures, out = tmp_path / "in", tmp_path / "out"
    pictures.mkdir()
    for index in range(3):
        Image.fromarray(render(index, 0, size=48).image).save(pictures / f"{index}.png")
    assert predict(finished, out, pictures).exit_code == 0
    before = {path: path.stat().st_mtime_ns for path in (out / "masks").iterdir()}
    (pictures / "1.png").write_bytes(GOOD)
    # A kill while the last line was written.
    whole = (out / "summary.jsonl").read_text().splitlines()
    (out / "summary.jsonl").write_text("\n".join([*whole[:2], whole[2][:20]]))
    done = predict(finished, out, pictures)
    assert "masks of 3 images, 1 of them done before" in done.stdout
    changed = {path.name for path, when in before.items() if path.stat().st_mtime_ns != when}
    assert changed == {"1.png", "2.png"}
    done = predict(finished, out, pictures, "--set", "max_side=32")
    assert (done.exit_code, "--overwrite" in done.stderr) == (2, True)
    assert predict(finished, out, pictures, "--set", "max_side=32", "--overwrite").exit_code == 0


def test_archives_patterns_films_and_equal_names(finished: Path, tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as archive:
        archive.writestr("a/x.png", GOOD)
        archive.writestr("a/readme.txt", b"no picture")
    for folder in ("p", "q"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.png").write_bytes(GOOD)
    (tmp_path / "p" / "x.jpg").write_bytes(png(SCENE, "JPEG"))
    frames = [Image.fromarray(render(i, 0, size=40).image) for i in range(4)]
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:])
    out = tmp_path / "out"
    inputs = (tmp_path / "some.zip", f"{tmp_path}/[pq]/*.*", tmp_path / "film.gif")
    done = predict(finished, out, *inputs, "--every", "2")
    assert done.exit_code == 0, done.stderr
    names = {"a/x", "p/x", "p/x.png", "q/x", "film/frame-000000", "film/frame-000002"}
    assert {row["name"] for row in rows(out)} == names
    np.testing.assert_array_equal(read_mask(out / "masks/a/x.png"), read_mask(out / "masks/q/x.png"))


def test_pictures_of_all_sizes(finished: Path, tmp_path: Path):
    sizes = {"pixel": (1, 1), "line": (1, 150), "column": (150, 1), "large": (150, 210), "tile": (64, 64)}
    for name, (height, width) in sizes.items():
        Image.fromarray(render(1, 0, size=220).image[:height, :width]).save(tmp_path / f"{name}.png")
    done = predict(finished, tmp_path / "out", f"{tmp_path}/*.png")
    assert done.exit_code == 0, done.stderr
    for row in rows(tmp_path / "out"):
        assert (row["height"], row["width"]) == sizes[row["name"]]
        assert read_mask(tmp_path / "out" / "masks" / f"{row['name']}.png").shape == sizes[row["name"]]
        assert row["tiles"] > 1 or row["name"] not in ("line", "column", "large")
    shrunk = predict(
        finished, tmp_path / "small", tmp_path / "large.png", "--max-side", "60", "--crf", "more"
    )
    assert shrunk.exit_code == 0, shrunk.stderr
    (row,) = rows(tmp_path / "small")
    assert (row["tiles"], row["height"]) == (1, 150)


def declared(width: int, height: int) -> bytes:
    """A PNG of some bytes that declares any size."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def hostile(folder: Path) -> tuple[dict[str, str], set[str]]:
    """Thirty inputs and more: what must be named with why, and what must be predicted all the same."""
    noise = np.random.default_rng(0).bytes
    jpeg = png(SCENE, "JPEG")
    big = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    broken = {
        "empty.jpg": (b"", "0 bytes"),
        "text.jpg": (b"not a picture at all", "not a picture"),
        "noise.png": (noise(4000), "not a picture"),
        "page.png": (b"<html><body>404</body></html>", "not a picture"),
        "cut.png": (png(big)[:-4000], "cannot be decoded"),
        "cut.jpg": (png(big, "JPEG", quality=95)[:1500], "cannot be decoded"),
        "head.png": (GOOD[:20], ""),
        "magic.png": (b"\x89PNG\r\n\x1a\n", "not a picture"),
        "magic.jpg": (b"\xff\xd8\xff", "not a picture"),
        "bomb.png": (declared(100_000, 100_000), "declare"),
        "wide.png": (declared(2_000_000_000, 1), "declare"),
        "flat.png": (declared(0, 0), ""),
        "sixteen.png": (png(Image.fromarray(np.zeros((20, 20), np.uint16))), "8 bits"),
        "float.tif": (png(Image.fromarray(np.zeros((20, 20), np.float32)), "TIFF"), "8 bits"),
        "moving.gif": (_frames("GIF"), "several frames"),
        "moving.webp": (_frames("WEBP"), "several frames"),
        "pages.tif": (_frames("TIFF"), "several frames"),
        "cut.gif": (GIF[:30], ""),
        "cut.webp": (png(big, "WEBP", lossless=True)[:300], ""),
        "cut.bmp": (png(big, "BMP")[:200], "cannot be decoded"),
        "cut.tif": (png(big, "TIFF")[:100], ""),
        "zip.jpg": (b"PK\x03\x04" + noise(60), "not a picture"),
        "svg.png": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "not a picture"),
        "pickle.png": (b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x02os", "not a picture"),
        "video.mp4": (noise(3000), ""),
        "idat.png": (GOOD.replace(b"IDAT", b"IDAX"), ""),
        "crc.png": (_flipped(png(big), 3000), ""),
    }
    fine = {
        "cmyk.jpg": png(SCENE.convert("CMYK"), "JPEG"),
        "grey.png": png(SCENE.convert("L")),
        "palette.gif": png(SCENE, "GIF"),
        "bits.png": png(SCENE.convert("1")),
        "clear.png": png(SCENE.convert("RGBA")),
        "pixel.png": png(SCENE.crop((0, 0, 1, 1))),
        "really-a-jpeg.png": jpeg,
        "turned.jpg": png(SCENE.crop((0, 0, 30, 48)), "JPEG", exif=_turned()),
        "odd ' name; $(x) ü.png": GOOD,
        "tail.jpg": jpeg + noise(500),
    }
    for name, (content, _) in broken.items():
        (folder / name).write_bytes(content)
    for name, content in fine.items():
        (folder / name).write_bytes(content)
    (folder.parent / "secret.png").write_bytes(GOOD)
    (folder / "link-out.png").symlink_to(folder.parent / "secret.png")
    (folder / "link-none.png").symlink_to(folder / "nothing")
    (folder / "link-loop").symlink_to(folder)
    reasons = {name: reason for name, (_, reason) in broken.items()}
    reasons |= {"link-out.png": "leads out", "link-none.png": "link to nothing", "link-loop": "link"}
    return reasons, {Path(name).stem for name in fine}


def _frames(kind: str) -> bytes:
    frames = [Image.fromarray(render(i, 0, size=32).image) for i in range(3)]
    return png(frames[0], kind, save_all=True, append_images=frames[1:])


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def _flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


GIF = _frames("GIF")


def test_broken_and_hostile_inputs_are_each_named_once_and_stop_nothing(finished: Path, tmp_path: Path):
    folder = tmp_path / "in"
    folder.mkdir()
    reasons, fine = hostile(folder)
    with zipfile.ZipFile(tmp_path / "evil.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../escaped.png", GOOD)
        archive.writestr("/absolute.png", GOOD)
        archive.writestr("inside/good.png", GOOD)
        archive.writestr("inside/bad.png", b"")
    (tmp_path / "broken.zip").write_bytes(b"PK\x03\x04 no archive")
    out = tmp_path / "out"
    inputs = (folder, tmp_path / "evil.zip", tmp_path / "broken.zip", tmp_path / "nowhere.jpg")
    done = predict(finished, out, *inputs)
    with (out / "failed.csv").open() as file:
        failed = {row["source"]: row["reason"] for row in csv.DictReader(file)}
    zipped = {"../../escaped.png", "/absolute.png", "inside/bad.png"}
    expected = {str(folder / name) for name in reasons} | {f"{tmp_path}/evil.zip:{name}" for name in zipped}
    expected |= {str(tmp_path / "broken.zip"), str(tmp_path / "nowhere.jpg")}
    assert failed.keys() == expected
    assert len(expected) >= 30
    assert done.exit_code == 3
    for name, reason in reasons.items():
        assert reason in failed[str(folder / name)], name
    lines = [line for line in done.stderr.splitlines() if line.startswith("failed: ")]
    assert len(lines) == len(expected)
    for source in expected:
        assert (
            sum(
                line.startswith(f"failed: {source}") and not line[8 + len(source) :][:1].isalnum()
                for line in lines
            )
            == 1
        ), source
    assert "Traceback" not in done.stderr
    assert {row["name"] for row in rows(out)} == fine | {"inside/good"}
    assert read_mask(out / "masks" / "turned.png").shape == (30, 48)
    assert not list(tmp_path.parent.glob("escaped*"))
    assert not list(tmp_path.glob("escaped*"))


def test_settings_that_cannot_work_are_refused_before_anything_is_written(finished: Path, tmp_path: Path):
    (tmp_path / "a.png").write_bytes(GOOD)
    (tmp_path / "tags.csv").write_text("image,tags\na.png,dost\n")
    for more, message in (
        (("--tags", tmp_path / "tags.csv"), "Did you mean 'dots'"),
        (("--crf", "mor"), "Did you mean 'more'"),
        (("--set", "overlap=60"), "half of the tile"),
        (("--set", "tiles=3"), "tile"),
    ):
        done = predict(finished, tmp_path / "out", tmp_path / "a.png", *more)
        assert done.exit_code == 2
        assert message in done.stderr
        assert not (tmp_path / "out").exists()


def test_methods_without_segmentation_predict_from_their_maps(finished: Path, tmp_path: Path, monkeypatch):
    from tagmask.methods.more import MoRe

    monkeypatch.setattr(MoRe, "segments", False)
    (tmp_path / "a.png").write_bytes(GOOD)
    Image.fromarray(render(1, 0, size=100).image).save(tmp_path / "b.png")
    done = predict(finished, tmp_path / "out", f"{tmp_path}/?.png")
    assert done.exit_code == 0, done.stderr
    assert [(row["name"], row["tiles"], row["height"]) for row in rows(tmp_path / "out")] == [
        ("a", 1, 48),
        ("b", 1, 100),
    ]


def test_a_full_copy_of_the_toy_set_in_one_archive(finished: Path, toy: Path, tmp_path: Path):
    shutil.make_archive(str(tmp_path / "all"), "zip", toy / "images")
    done = predict(finished, tmp_path / "out", tmp_path / "all.zip", "--batch-size", "3")
    assert done.exit_code == 0, done.stderr
    assert len(rows(tmp_path / "out")) == len(list((toy / "images").iterdir()))
