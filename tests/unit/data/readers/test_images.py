"""What is read, what is converted, what is refused: every case of broken or unusual picture files."""

from __future__ import annotations

import struct
import zlib
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image

from tagmask.data.readers import images
from tagmask.data.readers.images import MAX_PIXELS, read_image, read_indices, read_size
from tagmask.errors import DataError

RAMP = np.arange(40 * 60 * 3, dtype=np.uint32).reshape(40, 60, 3).astype(np.uint8)


def _save(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


def test_exif_rotation_is_applied_to_pixels_and_size(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn a quarter clockwise
    path = tmp_path / "phone.png"
    Image.fromarray(RAMP).save(path, exif=exif)
    assert read_size(path) == (60, 40)
    np.testing.assert_array_equal(read_image(path), np.rot90(RAMP, -1))


def test_grey_palette_transparent_and_cmyk_become_rgb(tmp_path):
    grey = read_image(_save(tmp_path / "grey.png", RAMP[..., 0]))
    np.testing.assert_array_equal(grey, np.repeat(RAMP[..., :1], 3, axis=2))
    palette = Image.fromarray(RAMP[..., 0] % 2)
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    palette.save(tmp_path / "palette.png")
    assert read_image(tmp_path / "palette.png")[0, 1].tolist() == [0, 255, 0]
    rgba = np.dstack([RAMP, np.where(np.arange(60) < 30, 0, 255)[None].repeat(40, 0).astype(np.uint8)])
    clear = read_image(_save(tmp_path / "rgba.png", rgba))
    assert clear[:, :30].max() == 0
    np.testing.assert_array_equal(clear[:, 30:], RAMP[:, 30:])
    Image.fromarray(RAMP).convert("CMYK").save(tmp_path / "print.tif")
    assert np.abs(read_image(tmp_path / "print.tif").astype(int) - RAMP).max() <= 1


def test_a_wrong_ending_does_not_matter(tmp_path):
    path = tmp_path / "really_a_png.jpg"
    Image.fromarray(RAMP).save(path, format="PNG")
    np.testing.assert_array_equal(read_image(path), RAMP)


def _raw_png(path, side, depth, colour):
    """A PNG put together here: 16-bit colour, which Pillow does not write, or a size only declared."""
    rows = b"".join(b"\0" + bytes(4 * 6) for _ in range(4))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, depth, colour, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    return path


def test_16_bit_grey_and_colour_are_refused(tmp_path):
    deep = _save(tmp_path / "deep.png", RAMP[..., 0].astype(np.uint16) * 200)
    for path in (deep, _raw_png(tmp_path / "deep_rgb.png", 4, 16, 2)):
        with pytest.raises(DataError, match=rf"{path.name} has more than 8 bits"):
            read_image(path)


def test_broken_files_are_named(tmp_path):
    whole = _save(tmp_path / "whole.jpg", np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    truncated = tmp_path / "truncated.jpg"
    truncated.write_bytes(whole.read_bytes()[:900])
    empty, text = tmp_path / "empty.png", tmp_path / "text.jpg"
    empty.touch()
    text.write_text("not a picture")
    cases = {
        truncated: "truncated",
        empty: "0 bytes",
        text: "not a picture",
        tmp_path / "gone.jpg": "not exist",
    }
    for path, says in cases.items():
        with pytest.raises(DataError, match=says) as caught:
            read_image(path)
        assert path.name in str(caught.value)
    with pytest.raises(DataError):
        read_image(tmp_path)


def test_declared_size_is_checked_before_decoding(tmp_path):
    for side in (9_000, 30_000):
        with pytest.raises(DataError, match=rf"bomb{side}\.png declares"):
            read_image(_raw_png(tmp_path / f"bomb{side}.png", side, 8, 0))
    with pytest.raises(DataError, match=r"declares 60 x 40 .* tiles"):
        read_image(_save(tmp_path / "ramp.png", RAMP), max_pixels=2000)
    assert MAX_PIXELS < Image.MAX_IMAGE_PIXELS


def test_animations_are_refused(tmp_path):
    frames = [Image.new("RGB", (8, 8), (80 * i, 0, 0)) for i in range(3)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match="several frames"):
        read_image(tmp_path / "moving.gif")


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_max_side_shrinks_the_longer_side(tmp_path, ending):
    big = np.repeat(np.repeat(RAMP, 10, 0), 10, 1)
    path = _save(tmp_path / f"big.{ending}", big)
    assert read_image(path, max_side=75).shape == (50, 75, 3)
    assert read_image(path, max_side=5000).shape == big.shape


def test_masks_keep_their_numbers(tmp_path):
    labels = (RAMP[..., 0] % 7).astype(np.uint8)
    labels[0, 0] = 255
    palette = Image.fromarray(labels)
    palette.putpalette([7] * 768)
    palette.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_indices(tmp_path / "palette.png"), labels)
    np.testing.assert_array_equal(read_indices(_save(tmp_path / "grey.png", labels)), labels)
    small = _save(tmp_path / "deep.png", labels.astype(np.uint16))
    np.testing.assert_array_equal(read_indices(small), labels)


def test_colour_or_too_large_numbers_are_no_mask(tmp_path):
    with pytest.raises(DataError, match="one channel"):
        read_indices(_save(tmp_path / "colour.png", RAMP))
    with pytest.raises(DataError, match="label 300"):
        read_indices(_save(tmp_path / "deep.png", np.full((4, 4), 300, np.uint16)))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("form", "mode"), [("JPEG", "RGB"), ("PNG", "P"), ("TIFF", "RGB"), ("WEBP", "RGB")])
def test_any_damage_is_a_picture_or_a_data_error(tmp_path, form, mode):
    rng, path = np.random.default_rng(0), tmp_path / "damaged"
    Image.fromarray(RAMP).convert(mode).save(path, format=form)
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    for turn in range(60):
        bytes_now = whole.copy()
        bytes_now[rng.integers(0, min(len(whole), 300), 3)] = rng.integers(0, 256, 3)
        path.write_bytes(bytes_now[: rng.integers(len(whole))].tobytes() if turn % 2 else bytes_now.tobytes())
        for reader in (read_image, read_indices, read_size):
            with suppress(DataError):
                reader(path)


@pytest.mark.parametrize(("kind", "ending"), [("AVIF", ".avif"), ("HEIF", ".heic")])
def test_pictures_of_telephones_are_read_upright(tmp_path, kind, ending):
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    elif ending not in images.IMAGE_SUFFIXES:
        pytest.skip("this Pillow reads no AVIF")
    wide = np.full((40, 64, 3), (200, 30, 20), np.uint8)
    wide[:, 40:] = (20, 200, 30)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / f"a{ending}"
    Image.fromarray(wide).save(path, kind, quality=95, exif=exif)
    found = read_image(path)
    assert read_size(path) == found.shape[:2]
    if kind == "AVIF":  # the other plugin's writer turns the picture itself
        assert found.shape == (64, 40, 3)
        assert np.abs(found[:30].astype(int) - (200, 30, 20)).max() < 12
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=f"a{ending}"):
        read_image(path)


def test_a_missing_plugin_is_asked_for_by_its_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "_HAS_HEIF", False)
    monkeypatch.setattr(images, "FOREIGN_SUFFIXES", images.FOREIGN_SUFFIXES | {".heic"})
    path = tmp_path / "a.HEIC"
    path.write_bytes(b"\0\0\0\x1cftypheic\0\0\0\0mif1heic" + bytes(99))
    with pytest.raises(DataError, match=r"needs pillow_heif to be read: pip install 'tagmask\[heif\]'"):
        read_image(path)
    (tmp_path / "a.jp2").write_bytes(b"\0\0\0\x0cjP  \r\n\x87\n")
    with pytest.raises(DataError, match="format that is not read here"):
        read_image(tmp_path / "a.jp2")
