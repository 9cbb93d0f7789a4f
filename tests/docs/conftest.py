from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import tagmask
from tagmask.data import ClassTable
from tagmask.models.trained import build_method, save_method
from tagmask.store.maps import save_maps
from tests.toy import toy_root

VIT = "vit:patch=16,dim=32,depth=3,heads=2,size=64"


@pytest.fixture(scope="session")
def _made(tmp_path_factory):
    """A folder as the documentation's reader has it: images with tags, and an (untrained) run."""
    root = tmp_path_factory.mktemp("reader")
    toy = toy_root(root, num_train=3, num_val=1)
    images = root / "mydata" / "images"
    images.mkdir(parents=True)
    names = ("cat_001.jpg", "dog_007.jpg", "empty.jpg")
    for name, file in zip(names, sorted((toy / "images").rglob("*.png")), strict=False):
        Image.open(file).convert("RGB").save(images / name)
    rows = ["image,tags", f"{names[0]},cat sofa", f"{names[1]},dog", f"{names[2]},"]
    (root / "mydata" / "tags.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    torch.manual_seed(0)
    settings = {"backbone": VIT, "weights": "none", "decoder_width": 16}
    method = build_method("more", settings, 3).eval()
    run = root / "runs" / "first"
    save_method(run / "model", method, "more", ClassTable(("cat", "dog", "sofa")), {}, {})
    result = tagmask.load(run).predict(images / names[0], tags=["cat"])
    result.save(run / "masks" / "cat_001.png")
    keys = np.asarray(result.keys, np.int64)
    save_maps(run / "maps" / "cam" / "cat_001.npz", result.maps["cam"], keys, result.mask.shape)
    return root


@pytest.fixture
def workplace(_made, tmp_path):
    return shutil.copytree(_made, tmp_path / "reader")
