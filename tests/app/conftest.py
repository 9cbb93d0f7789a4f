from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tagmask.app.desk import Desk
from tagmask.app.lab import Controls, Lab
from tagmask.app.library import Folders, Library
from tagmask.data import ClassTable, open_dataset
from tagmask.engine.runtime import Runtime
from tagmask.model import Model
from tagmask.models.trained import Trained, build_method
from tagmask.store.labels import write_mask
from tagmask.store.maps import save_maps
from tests.app.browser import Browser, served
from tests.cli import tagmask, train_args
from tests.toy import toy_root

BACKBONE = "vit:patch=8,dim=32,depth=2,heads=2,size=64"
QUEUE = ("00014", "00012", "00015")
CLASSES = ("stripes", "dots", "checker", "rings", "marble")
CONTROLS = Controls("cam")
ME = "m" * 43


@pytest.fixture(scope="session")
def model() -> Model:
    """The smallest MoRe, its weights random."""
    torch.manual_seed(0)
    values = {"backbone": BACKBONE, "weights": "none", "aux_block": -2, "scales": (1.0,)}
    method = build_method("more", values, len(CLASSES)).eval()
    return Model(Trained(method, "more", ClassTable(CLASSES), "", {}), Runtime.create("cpu", "fp32", None))


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_root(tmp_path_factory.mktemp("app-toy"))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with a mask, maps and a queue that names three of four images and one that is gone."""
    folder = tmp_path / "run"
    (folder / "review").mkdir(parents=True)
    lines = [
        f"{place},{name},0.{9 - place},why {name},dots" for place, name in enumerate(("gone", *QUEUE), 1)
    ]
    (folder / "review" / "queue.csv").write_text("\n".join(["place,name,score,why,classes", *lines]))
    mask = np.zeros((64, 64), np.uint8)
    mask[8:24, 8:24] = 3
    write_mask(folder / "masks" / "00012.png", mask)
    ramp = np.tile(np.linspace(0, 1, 64, dtype=np.float32), (64, 1))
    save_maps(
        folder / "maps" / "cam" / "00012.npz", np.stack([ramp, ramp[:, ::-1]]), np.array([1, 2]), (64, 64)
    )
    return folder


@pytest.fixture
def desk(model: Model, toy: Path, run: Path, tmp_path: Path) -> Desk:
    root = shutil.copytree(toy, tmp_path / "data")
    (tmp_path / "inbox").mkdir()
    library = Library(open_dataset(root, "folder", "val"), run, Folders.of([run, root]))
    return Desk(Lab(model, max_side=48), library, run, tmp_path / "inbox")


def picture(path: Path, size: tuple[int, int] = (40, 60)) -> Path:
    """A picture file of (height, width)."""
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with maps and masks of all images and a review queue."""
    folder = tmp_path_factory.mktemp("browser")
    out = folder / "run"
    for command in (
        train_args(toy_root(folder), out, 2, "--set=train.eval_every=0"),
        ("localize", out, "--set=localize.split=both"),
        ("segment", out, "--set=segment.split=both"),
        ("review", out, "--set=review.split=both"),
    ):
        done = tagmask(*command)
        assert done.exit_code == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def page(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Browser, str]]:
    """A browser, and the address at which that run is served."""
    with served(finished, "--upload-limit", "1") as url:
        browser = Browser(tmp_path_factory.mktemp("chromium") / "profile")
        try:
            yield browser, url
        finally:
            browser.driver.quit()
