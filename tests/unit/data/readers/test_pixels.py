"""Pictures of more than 8 bits, more than three bands, and what is wrong with some of them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tagmask.data.levels import Reading, choose_reading
from tagmask.data.readers.images import read_image
from tagmask.data.readers.pixels import file_kind, is_photograph, pixel_size, read_pixels
from tagmask.errors import ConfigError, DataError

tifffile = pytest.importorskip("tifffile")
RNG = np.random.default_rng(0)
GREY = {"photometric": "minisblack", "planarconfig": "contig"}
RGB = RNG.integers(0, 256, (12, 10, 3), np.uint8)


def tiff(path, values, **options):
    tifffile.imwrite(path, values, **options)
    return path


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("dtype", ["uint16", "int16", "uint32", "float32", "float64"])
def test_every_number_comes_back(tmp_path, byteorder, dtype):
    values = (RNG.random((5, 7)) * 1000 - 100 * ("u" not in dtype)).astype(dtype)
    path = tiff(
        tmp_path / "a.tif", values.astype(np.dtype(dtype).newbyteorder(byteorder)), byteorder=byteorder
    )
    pixels, info = read_pixels(path)
    assert pixels.dtype == np.float32
    np.testing.assert_array_equal(pixels[0], values.astype(np.float32))
    assert (info.bands, info.full is None) == (1, dtype.startswith("float"))
    assert pixel_size(path) == (5, 7)


@pytest.mark.parametrize("planes", ["contig", "separate"])
def test_bands_come_first_however_the_file_keeps_them(tmp_path, planes):
    values = RNG.integers(0, 60000, (5, 6, 7), np.uint16)
    stored = values if planes == "separate" else values.transpose(1, 2, 0)
    path = tiff(tmp_path / "a.tif", stored, planarconfig=planes, photometric="minisblack")
    np.testing.assert_array_equal(read_pixels(path)[0], values)


def test_16_bit_png_keeps_its_low_byte(tmp_path):
    codecs = pytest.importorskip("imagecodecs")
    values = RNG.integers(0, 60000, (4, 5, 3), np.uint16)
    (tmp_path / "rgb.png").write_bytes(codecs.png_encode(values))
    Image.fromarray(values[..., 0]).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_pixels(tmp_path / "rgb.png")[0], values.transpose(2, 0, 1))
    np.testing.assert_array_equal(read_pixels(tmp_path / "grey.png")[0][0], values[..., 0])


def test_photographs_are_told_from_measurements(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.png")
    Image.fromarray(RGB).save(tmp_path / "a.tif")
    assert is_photograph(tmp_path / "a.png")
    assert is_photograph(tmp_path / "a.tif")
    for name, values in (("b", RGB.astype(np.uint16)), ("c", RGB.astype(np.float32)), ("d", RGB[..., :2])):
        assert not is_photograph(tiff(tmp_path / f"{name}.tif", values, **GREY))
    files = [(tmp_path / name, None) for name in ("a.png", "a.tif")]
    assert choose_reading(files, None, None) is None


def test_12_bits_in_16_become_the_levels_of_the_8_bit_original(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.png")
    deep = np.round(RGB * (4095 / 255)).astype(np.uint16)
    path = tiff(tmp_path / "a.tif", deep, photometric="rgb")
    for reading in (Reading(None, ((0, 4095),), True), choose_reading([(path, None)], None, (0, 4095))):
        np.testing.assert_array_equal(reading.picture(path), read_image(tmp_path / "a.png"))


def test_range_is_taken_from_percentiles_of_all_images(tmp_path):
    files = []
    for number in range(3):
        values = np.linspace(1000 * number, 1000 * number + 999, 10_000).reshape(100, 100).astype(np.uint16)
        files.append((tiff(tmp_path / f"{number}.tif", values), None))
    reading = choose_reading(files, None, None)
    ((low, high),) = reading.ranges
    assert 0 < low < 10
    assert 2990 < high < 2999
    assert reading.picture(files[0][0]).max() < 90 < 160 < reading.picture(files[2][0]).min()
    assert Reading.from_values(reading.as_values()) == reading


def test_each_band_has_a_range_and_people_see_the_first_three(tmp_path):
    values = np.stack([np.full((4, 4), band) for band in range(5)]) * 100.0
    values[:, 0, 0] += 50
    path = tiff(
        tmp_path / "a.tif", values.astype(np.float32), planarconfig="separate", photometric="minisblack"
    )
    reading = choose_reading([(path, None)], (5, 1, 2, 3), None)
    assert reading.channels == 4
    assert reading.picture(path).shape == (4, 4, 4)
    assert reading.ranges[0][0] == pytest.approx(400, abs=1)
    assert choose_reading([(path, None)], "all", None).bands == (1, 2, 3, 4, 5)
    fixed = Reading((2, 3), ((0, 510),), True)
    np.testing.assert_array_equal(fixed.picture(path)[1, 1], [50, 100, 50])


def test_nan_and_infinity_are_no_data(tmp_path):
    values = np.full((4, 4), 5.0, np.float32)
    values[0, 0], values[1, 1], values[2, 2] = np.nan, np.inf, 9
    path = tiff(tmp_path / "a.tif", values)
    pixels, _ = read_pixels(path)
    assert np.isnan(pixels[0]).sum() == 2
    levels = choose_reading([(path, None)], None, (4, 9)).picture(path)
    assert levels[0, 0, 0] == levels[1, 1, 0] == 0
    assert levels[3, 3, 0] == 51
    with pytest.raises(DataError, match="no valid pixel"):
        read_pixels(tiff(tmp_path / "b.tif", np.full((3, 3), np.nan, np.float32)))


def _cut(path):
    tiff(path, RNG.integers(0, 9, (64, 64), np.uint16), rowsperstrip=8)
    path.write_bytes(path.read_bytes()[:-2000])


BAD = {
    "four bands": (lambda p: tiff(p, RNG.integers(0, 9, (8, 8, 4), np.uint16), **GREY), "4 bands"),
    "cut off": (_cut, "cut off: part"),
    "palette": (
        lambda p: tiff(
            p, np.zeros((4, 4), np.uint16), photometric="palette", colormap=np.zeros((3, 65536), np.uint16)
        ),
        "palette",
    ),
    "complex": (lambda p: tiff(p, np.zeros((4, 4), np.complex64)), "complex64"),
    "pages": (lambda p: tiff(p, np.zeros((3, 4, 4), np.uint16), photometric="minisblack"), "slices of a"),
    "no tiff": (lambda p: p.write_bytes(b"II*\0" + b"\xff" * 40), "a.tif"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_said_in_one_line(tmp_path, case):
    make, words = BAD[case]
    make(tmp_path / "a.tif")
    with pytest.raises(DataError, match=words) as caught:
        Reading(None, ((0, 9),), True).picture(tmp_path / "a.tif")
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "a.tif") in str(caught.value)


def test_ranges_and_bands_that_cannot_be(tmp_path):
    path = tiff(tmp_path / "a.tif", np.ones((4, 4), np.float32))
    with pytest.raises(ConfigError, match="must rise"):
        choose_reading([(path, None)], None, (5, 5))
    with pytest.raises(DataError, match="no end"):
        Reading(None, "full").picture(path)
    with pytest.raises(DataError, match="no window"):
        Reading(None, "file").picture(path)
    with pytest.raises(DataError, match="needed is band 3"):
        Reading((1, 3), "full").picture(path)
    with pytest.raises(ValueError, match="'pixels'"):
        Reading.from_values({"bands": [0], "ranges": "full"})


def test_a_missing_decoder_is_asked_for_by_its_extra(tmp_path, monkeypatch):
    path = tiff(tmp_path / "a.tif", np.ones((4, 4, 5), np.uint16), **GREY)
    monkeypatch.setitem(__import__("sys").modules, "tifffile", None)
    with pytest.raises(DataError, match=r"needs tifffile to be read: pip install 'tagmask\[tiff\]'"):
        read_pixels(path)


def test_files_of_any_length_that_are_read_by_parts_are_told(tmp_path):
    pytest.importorskip("rasterio")
    path = tiff(tmp_path / "a.tif", RGB, extratags=[(42113, "s", 0, "0", True)])
    with path.open("r+b") as file:
        file.truncate(3 << 30)  # a hole, which takes no space
    assert file_kind(path) == "geotiff"


def test_8_bits_of_volumes_keep_0_to_255(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    values = RNG.integers(0, 256, (6, 5, 2), np.uint8)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "a.nii")
    reading = choose_reading([(tmp_path / "a.nii", part) for part in range(2)], None, None)
    levels = reading.picture(tmp_path / "a.nii", 1)
    np.testing.assert_array_equal(levels[..., 0], values[:, :, 1].T)
