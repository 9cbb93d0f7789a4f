from __future__ import annotations

import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from tagmask.data.classes import ClassTable
from tagmask.data.datasets.scenes import CLASSES, render
from tagmask.engine.log import Display
from tagmask.engine.runtime import Runtime
from tagmask.errors import ConfigError, DataError
from tagmask.inference.animate import AnimateConfig, animate
from tagmask.inference.video import open_frames, write_frames
from tagmask.methods.afa import AFA, AFAConfig
from tagmask.models.trained import Trained


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    method = AFA(AFAConfig(backbone="mit_b0", head_width=16, scales=(1.0,)), len(CLASSES)).eval()
    return Trained(method, "afa", ClassTable(CLASSES), "", {})


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frames")
    for index in range(11):
        if index not in (4, 5, 6):
            Image.fromarray(render(index, 0, size=48).image).save(folder / f"shot{index}.png")
    return folder


def _animate(config, trained, source, output):
    runtime = Runtime.create("cpu")
    return animate(AnimateConfig(**config), trained, runtime, Display(quiet=True), source, output)


def _pictures(count, size=(10, 12)):
    return [(f"f{i}", np.full((*size, 3), 40 * i, np.uint8)) for i in range(count)]


def test_folder_of_frames_to_gif(trained, frames, tmp_path):
    figures = _animate({"rate": 5, "limit": 3}, trained, frames, tmp_path / "film.gif")
    assert figures == {"frames": 3, "rate": 5, "panels": ["map", "mask"]}
    with Image.open(tmp_path / "film.gif") as film:
        assert film.size == (2 * 48 + 3 * 2, 48 + 2 * 2)
        assert film.n_frames == 3
        assert film.info["duration"] == 200


def test_folder_to_folder_keeps_names_and_every_other_frame(trained, frames, tmp_path):
    settings = {"every": 2, "panels": ("image",), "max_side": 32}
    _animate(settings, trained, frames, tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [f"shot{i}.png" for i in (0, 2, 7, 9)]
    with Image.open(tmp_path / "out" / "shot0.png") as picture:
        assert picture.size == (36, 36)


def test_tags_can_be_given_and_are_checked(trained, frames, tmp_path):
    settings = {"panels": ("image", "map", "mask"), "limit": 1, "tags": ("dots",)}
    assert _animate(settings, trained, frames, tmp_path / "a")["frames"] == 1
    with pytest.raises(ConfigError, match="Did you mean 'dots'"):
        _animate({"tags": ("dotz",)}, trained, frames, tmp_path / "b")


def test_method_without_maps_still_shows_its_mask(trained, frames, tmp_path, monkeypatch):
    monkeypatch.setattr(AFA, "map_kinds", ())
    assert _animate({"limit": 1}, trained, frames, tmp_path / "a")["panels"] == ["mask"]
    with pytest.raises(ConfigError, match="no map"):
        _animate({"panels": ("map",)}, trained, frames, tmp_path / "a")


def test_method_without_segmentation_cuts_its_maps(trained, frames, tmp_path, monkeypatch):
    monkeypatch.setattr(AFA, "segments", False)
    assert _animate({"limit": 1}, trained, frames, tmp_path / "a")["panels"] == ["map", "mask"]


def test_gif_round_trip(tmp_path):
    assert write_frames(tmp_path / "a.gif", _pictures(3), rate=20) == 3
    film = open_frames(tmp_path / "a.gif", max_side=6)
    assert (film.rate, film.count) == (20, 3)
    pictures = list(film.pictures)
    assert [name for name, _ in pictures] == [f"frame-{i:06d}" for i in range(3)]
    assert all(p.shape == (5, 6, 3) for _, p in pictures)
    with Image.open(tmp_path / "a.gif") as image:
        assert len(list(ImageSequence.Iterator(image))) == 3


def test_sources_and_targets_that_cannot_be_used_are_named(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        open_frames(tmp_path / "none.mp4")
    with pytest.raises(DataError, match="no pictures"):
        open_frames(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match="neither"):
        open_frames(tmp_path / "notes.txt")
    (tmp_path / "bad.gif").write_text("x")
    with pytest.raises(DataError, match="readable GIF"):
        open_frames(tmp_path / "bad.gif")
    with pytest.raises(DataError, match=r"cannot write a video as '.flv'.*\.gif.*without an ending"):
        write_frames(tmp_path / "film.flv", [], 10)
    assert not (tmp_path / "film.flv").exists()
    with pytest.raises(DataError, match="single picture"):
        write_frames(tmp_path / "film.png", _pictures(1), 10)
    with pytest.raises(DataError, match="no frame"):
        write_frames(tmp_path / "film.gif", [], 10)
    with pytest.raises(DataError, match="one size"):
        write_frames(tmp_path / "film.gif", _pictures(1) + _pictures(1, (8, 8)), 10)
    assert not (tmp_path / "film.gif").exists()


def test_video_without_its_package_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    (tmp_path / "a.mp4").write_bytes(b"x")
    for attempt in (
        lambda: open_frames(tmp_path / "a.mp4"),
        lambda: write_frames(tmp_path / "b.mp4", _pictures(1), 10),
    ):
        with pytest.raises(DataError, match=r"pip install 'tagmask\[video\]'"):
            attempt()


def test_video_goes_through_the_package(tmp_path, monkeypatch):
    written = {}

    def write(path, size, **options):
        written.update(size=size, options=options, data=[])
        open(path, "wb").close()
        yield
        while True:
            written["data"].append((yield))

    def read(path, pix_fmt):
        yield {"size": written["size"], "fps": 25.0, "duration": 0.08}
        yield from written["data"][:-1]

    def started(*args, **options):
        generator = write(*args, **options)
        next(generator)
        return generator

    package = types.SimpleNamespace(write_frames=started, read_frames=read)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", package)
    assert write_frames(tmp_path / "a.mp4", _pictures(2, (9, 11)), 25) == 2
    assert written["size"] == (12, 10)
    assert written["options"]["fps"] == 25


def test_real_video_round_trip(tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    assert write_frames(tmp_path / "a.mp4", _pictures(4, (33, 47)), 10) == 4
    film = open_frames(tmp_path / "a.mp4")
    assert (film.rate, film.count) == (10, 4)
    pictures = [picture for _, picture in film.pictures]
    assert len(pictures) == 4
    assert pictures[0].shape == (34, 48, 3)
    assert abs(int(pictures[3].mean()) - 120) < 8
    (tmp_path / "bad.mp4").write_bytes(b"nothing")
    with pytest.raises(DataError, match="not a readable video"):
        open_frames(tmp_path / "bad.mp4")
