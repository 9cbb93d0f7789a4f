"""What recipe "auto" decides from data, tags and time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from tagmask.data.parts import Parts
from tagmask.errors import ConfigError
from tagmask.models.trained import build_method
from tagmask.pipeline import auto
from tagmask.pipeline.flags import AUTO, data_first
from tagmask.pipeline.speed import Speed
from tagmask.types import Batch


def folder(root, tags, size=(60, 80)):
    (root / "images").mkdir(parents=True)
    rows = ["image,tags"]
    for number, text in enumerate(tags):
        name = f"{number:03}.png"
        Image.fromarray(np.full((*size, 3), number % 255, np.uint8)).save(root / "images" / name)
        rows.append(f"{name},{text}")
    (root / "tags.csv").write_text("\n".join(rows) + "\n")
    (root / "classes.txt").write_text("a\nb\nc\nd\n")
    return root


@pytest.fixture
def things(tmp_path):
    return folder(tmp_path / "things", ["a", "b", "c;d", ""] * 6, (240, 300))


def values(settled):
    return {line.split(" = ")[0].removeprefix("auto: ") for line in settled.lines}


def test_sizes_and_updates_follow_the_data_and_are_kept_in_the_settings(things):
    settled = auto.settle({"data.root": str(things)})
    config = settled.config
    assert config.localize.size == config.segment.size == 320
    assert (config.train.iterations, config.student.train.iterations) == (100, 200)
    assert config.refine.fit
    assert {"localize.size", "segment.size", "train.iterations"} <= set(config.decided)
    assert "300 pixels" in config.decided["localize.size"]


@pytest.mark.parametrize(("side", "shrink"), [(40, 2), (640, 2), (1300, 4)])
def test_labels_of_large_images_are_refined_at_a_bounded_size(tmp_path, side, shrink):
    root = folder(tmp_path / "large", ["a", "b", "c;d", ""] * 3, (side // 2, side))
    assert auto.settle({"data.root": str(root)}).config.refine.shrink == shrink


def test_what_the_user_gives_is_not_decided(things):
    given = {"data.root": str(things), "train.iterations": 7}
    settled = auto.settle(given, ["localize.size=128"])
    assert settled.config.train.iterations == settled.config.student.train.iterations == 7
    assert settled.config.localize.size == 128
    assert not {"train.iterations", "localize.size"} & values(settled)


def test_many_tags_on_every_image_mean_that_there_is_no_background(tmp_path):
    root = folder(tmp_path / "land", ["a;b", "b;c;d", "a;c;d"] * 8)
    config = auto.settle({"data.root": str(root)}).config
    assert (config.refine.fit, config.refine.background, config.refine.method) == (False, 0.0, "none")
    with_background = auto.settle({"data.root": str(root), "refine.fit": True, "refine.background": None})
    assert with_background.config.refine.fit
    assert with_background.config.refine.background is None


@pytest.mark.parametrize(
    ("tags", "most"),
    [
        (["a", "b", "c", "d"], "one"),
        (["a", "b", "c", ""], "at_most_one"),
        (["a", "b", "c;d", ""], None),
        (["a", "a", "", ""], "at_most_one"),
    ],
)
def test_masks_show_one_class_where_no_image_has_two_tags(tmp_path, tags, most):
    config = auto.settle({"data.root": str(folder(tmp_path / "things", tags * 6))}).config
    assert ("student.model.classes_per_image" in config.decided) is (most is not None)
    assert config.student.model.get("classes_per_image") == most


def test_one_image_without_a_tag_is_a_background(tmp_path):
    root = folder(tmp_path / "land", ["a;b", "b;c;d", "a;c;d", ""] * 6)
    assert auto.settle({"data.root": str(root)}).config.refine.fit


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("1.5h", 5400), ("2 min", 120), ("5", 300)]
)
def test_times_are_read_as_people_write_them(text, seconds):
    assert auto.parse_time(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-5m", "0", "5 parsecs"])
def test_other_times_are_refused(text):
    with pytest.raises(ConfigError, match="90s, 10m or"):
        auto.parse_time(text)


def test_a_short_time_means_fewer_updates_then_fewer_images_then_a_refusal(things, monkeypatch):
    monkeypatch.setattr(auto, "measure", lambda *_: Speed(start=10, update=0.5, maps=1.0, mask=0.5))
    given = {"data.root": str(things)}
    wide = auto.settle(given, budget=400).config
    assert wide.localize.split == "both"
    spent = 10 + 24 * 1.5 + 2 * 0.5 * wide.train.iterations
    assert 0.9 * 400 < spent <= 400
    tight = auto.settle(given, budget=100).config
    assert tight.localize.split == "both"
    assert tight.train.iterations < wide.train.iterations
    with pytest.raises(ConfigError, match="too short for"):
        auto.settle(given, budget=40)


def test_the_same_command_goes_on_with_what_was_decided(things, tmp_path, monkeypatch):
    from tagmask.pipeline.config import with_absolute_paths, write_settings

    out = tmp_path / "run"
    out.mkdir()
    monkeypatch.setattr(auto, "measure", lambda *_: Speed(start=10, update=0.5, maps=1.0, mask=0.5))
    first = auto.settle({"data.root": str(things)}, budget=400, out=out)
    write_settings(with_absolute_paths(first.config), out)
    monkeypatch.setattr(auto, "measure", lambda *_: Speed(start=10, update=0.9, maps=1.0, mask=0.5))
    again = auto.settle({"data.root": str(things)}, budget=400, out=out)
    assert again.lines == ()
    assert again.config == first.config
    assert auto.settle({"data.root": str(things)}, budget=200, out=out).lines


def test_a_folder_of_images_in_the_place_of_a_recipe_is_data(things):
    assert data_first(str(things), None) == (AUTO, str(things))
    assert data_first(None, things) == (AUTO, things)
    assert data_first("small", things) == ("small", things)
    assert data_first("small", None) == ("small", None)


@pytest.mark.parametrize(("depth", "block", "learning"), [(1, 0, 1), (2, 0, 1), (6, 3, 2), (24, 17, 8)])
def test_another_backbone_is_read_and_learns_at_the_same_share_of_its_depth(things, depth, block, learning):
    given = {"data.root": str(things), "model.backbone": f"vit:patch=16,dim=16,depth={depth},heads=2,size=64"}
    config = auto.settle(given).config
    assert (config.model["aux_block"], config.student.model["train_blocks"]) == (block, learning)
    own = auto.settle(given | {"model.aux_block": -1}).config
    assert (own.model["aux_block"], own.student.model["train_blocks"]) == (-1, learning)
    assert not {"model.aux_block", "student.model.train_blocks"} & set(
        auto.settle({"data.root": str(things)}).config.decided
    )


@pytest.mark.parametrize(
    ("name", "colours"),
    [
        ("vit_small_patch14_dinov2.lvd142m", (0.485, 0.456, 0.406)),
        ("vit_small_patch16_dinov3.lvd1689m", (0.485, 0.456, 0.406)),
        ("eva02_tiny_patch14_224.mim_in22k", (0.4815, 0.4578, 0.4082)),
        ("vit_base_patch16_clip_224.openai", (0.4815, 0.4578, 0.4082)),
        ("vit_base_patch16_siglip_224.webli", (0.5, 0.5, 0.5)),
    ],
)
def test_strong_backbones_go_through_both_networks_of_the_recipe(things, name, colours):
    config = auto.settle({"data.root": str(things), "model.backbone": name, "model.weights": "none"}).config
    first = build_method(config.method, config.model, 4).eval()
    torch.testing.assert_close(first.encoder.mean.flatten(), torch.tensor(colours), atol=1e-3, rtol=0)
    images = torch.rand(1, 3, 112, 112)
    with torch.no_grad():
        for head, tokens in first.head_tokens(images).items():
            assert tokens.shape[:2] == (1, (112 // first.encoder.patch_size) ** 2)
            first.set_head(head, torch.randn(4, tokens.shape[2]), torch.zeros(4))
        assert torch.isfinite(first.view_maps(images, ("attention_cam",))["attention_cam"]).all()
    second = build_method(config.method, {**config.model, **config.student.model}, 4).train()
    labels = torch.randint(0, 5, (1, 112, 112))
    second(Batch(images, torch.ones(1, 4), ("a",), labels=labels), 0).loss.backward()
    learned = [any(p.grad is not None for p in block.parameters()) for block in second.encoder.blocks]
    assert learned == [False] * 8 + [True] * 4


def test_speed_is_measured_without_weights_and_without_a_word(things, recwarn):
    from tagmask.pipeline.speed import measure

    tiny = {"model.backbone": "vit:patch=16,dim=32,depth=2,heads=2,size=64", "model.aux_block": -2}
    small = {"train.size": 64, "train.batch_size": 2, "localize.size": 64, "segment.size": 64}
    config = auto.settle({"data.root": str(things), **tiny, **small, "runtime.device": "cpu"}).config
    speed = measure(config, Parts(config.data).open("train"))
    assert min(speed.update, speed.maps, speed.mask) > 0
    assert not recwarn.list


def test_what_was_decided_about_other_data_is_not_taken_over(things, tmp_path):
    from tagmask.pipeline.config import with_absolute_paths, write_settings

    land = folder(tmp_path / "land", ["a;b", "b;c;d", "a;c;d"] * 8)
    out = tmp_path / "run"
    out.mkdir()
    write_settings(with_absolute_paths(auto.settle({"data.root": str(land)}, out=out).config), out)
    config = auto.settle({"data.root": str(things)}, out=out).config
    assert config.refine.fit
    assert config.localize.size == 320
