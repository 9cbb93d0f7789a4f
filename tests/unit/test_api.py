from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import tagmask
from tagmask.store.labels import read_mask
from tagmask.store.maps import load_maps
from tests.toy import toy_root

SETTINGS = {
    "model.backbone": "vit:patch=8,dim=32,depth=2,heads=2,size=64",
    "model.weights": "none",
    "model.aux_block": -2,
    "model.scales": [1.0],
    "train.size": 64,
    "train.iterations": 2,
    "train.batch_size": 2,
    "train.eval_every": 0,
    "train.tensorboard": False,
    "localize.kinds": ["cam", "lam"],
    "runtime.device": "cpu",
    "runtime.threads": 1,
}


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return toy_root(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory, toy):
    out = tmp_path_factory.mktemp("api") / "run"
    tagmask.train(toy, out=out, method="more", settings=SETTINGS, progress=False)
    return out


@pytest.fixture(scope="module")
def model(run_folder):
    return tagmask.load(run_folder, device="cpu")


def test_train_gives_a_model_of_the_data_sets_classes(model):
    assert model.classes == ("stripes", "dots", "checker", "rings", "marble")


@pytest.mark.parametrize("kind", ["path", "pillow", "pixels"])
def test_predict_takes_files_pictures_and_pixels(model, toy, kind):
    path = toy / "images" / "00012.png"
    image = {"path": path, "pillow": Image.open(path), "pixels": np.array(Image.open(path))}[kind]
    result = model.predict(image, tags=["rings", "dots"])
    assert result.mask.shape == (64, 64)
    assert result.mask.dtype == np.uint8
    assert result.map_classes == ("dots", "rings")
    assert set(result.present) <= {"dots", "rings"}
    assert set(result.maps) == {"cam", "lam"}
    assert all(maps.shape == (2, 64, 64) for maps in result.maps.values())


def test_predict_is_what_the_stages_write(model, run_folder, toy):
    run = tagmask.run(run_folder, out=run_folder, until="segment", progress=False)
    result = model.predict(toy / "images" / "00013.png")
    assert np.array_equal(result.mask, read_mask(run.folder / "masks" / "00013.png"))
    for path in sorted((run.folder / "maps" / "cam").iterdir()):
        stored = load_maps(path)
        image = toy / "images" / f"{path.stem}.png"
        tagged = model.predict(image, tags=[model.classes[k] for k in stored.keys])
        assert np.abs(tagged.maps["cam"] - stored.maps).max(initial=0) < 3e-4


def test_no_tags_means_no_class_and_wrong_ones_are_said(model, toy):
    path = toy / "images" / "00012.png"
    nothing = model.predict(path, tags=[])
    assert nothing.present == ()
    assert nothing.maps["cam"].shape == (0, 64, 64)
    with pytest.raises(tagmask.DataError, match="'stripes'"):
        model.predict(path, tags=["strypes"])
    with pytest.raises(tagmask.DataError, match="list of class names"):
        model.predict(path, tags="stripes")
    with pytest.raises(tagmask.DataError, match="does not exist"):
        model.predict(toy / "nowhere.png")
    with pytest.raises(tagmask.DataError, match="uint8"):
        model.predict(np.zeros((4, 4, 3)))


def test_any_size_of_image(model):
    for height, width in ((40, 100), (64, 17), (129, 64)):
        result = model.predict(np.zeros((height, width, 3), np.uint8))
        assert result.mask.shape == (height, width)


def test_results_are_drawn_and_saved(model, toy, tmp_path):
    result = model.predict(toy / "images" / "00012.png", tags=["rings"])
    result.plot().savefig(tmp_path / "plot.png")
    assert Image.open(tmp_path / "plot.png").width > 400
    assert np.array_equal(read_mask(result.save(tmp_path / "m.png")), result.mask)
    folder = result.save(tmp_path / "all")
    assert sorted(p.name for p in folder.iterdir()) == ["cam.npz", "lam.npz", "mask.png", "overlay.png"]


def test_loading_leaves_the_random_streams_alone(run_folder):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    tagmask.load(run_folder, device="cpu")
    assert torch.equal(torch.rand(3), expected)


def test_single_steps_from_python(run_folder, tmp_path):
    import shutil

    run = shutil.copytree(run_folder, tmp_path / "run")
    tagmask.localize(run, {"localize.kinds": ["cam"]}, progress=False)
    tagmask.refine(run, {"refine.method": "none", "refine.background": 0.5}, progress=False)
    tagmask.segment(run, progress=False)
    scores = tagmask.evaluate(run, progress=False).scores
    assert set(scores) == {"cam", "label", "segmentation"}
    assert scores["label"] == pytest.approx(scores["cam"], abs=1e-3)
    tagmask.write_report(run, progress=False)
    assert (run / "report.html").stat().st_size > 10_000
