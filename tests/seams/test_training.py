"""Every method with every view that a recipe gives it: what the network is shown while it learns."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tagmask import methods
from tagmask.config import validate
from tagmask.data import open_dataset
from tagmask.data.loader import train_batches
from tagmask.data.transforms.base import make_view
from tagmask.methods.afa import AFA, AFAConfig
from tagmask.pipeline.config import read_config
from tagmask.recipes import names
from tests.contract.test_methods import STEP, TINY, VIT
from tests.seams.pictures import (
    HALF,
    IMAGENET,
    entering,
    figures,
    grey_levels,
    photograph,
    stripes,
    tied,
    write_folder,
)
from tests.seams.test_views import CROPS, SQUARE, STILL, WIDE

MASK_VIT = "mask:vit:patch=16,dim=24,depth=2,heads=2,size=64"


def network(method, model):
    """Tiny settings of a recipe's method on the same kind of backbone, and what the network subtracts."""
    backbone = str(model.get("backbone", methods.get(method).config_class().backbone))
    if method == "segmenter" and backbone.startswith("mask:"):
        return {"backbone": MASK_VIT, "position_size": 64, "clip_patch": 32}, HALF
    if method in ("segmenter", "affinity_net") and backbone != "resnet38":
        return {"backbone": VIT} | ({"feature_width": 4} if method == "affinity_net" else {}), HALF
    if method == "aream" and backbone.startswith("conformer"):
        tiny = {"backbone": "conformer:dim=24,depth=3,heads=2,ratio=1,base=8", "affinity_from": 0}
        return tiny | {"train_scales": (1.0,)}, IMAGENET
    tiny = dict(TINY[method])
    if "version" in model:
        tiny["version"] = model["version"]
    return tiny, IMAGENET


def pairs():
    """(method, settings as a sorted tuple, view) of all recipes, each once, with the recipe that has it."""
    found = {}
    for recipe in names():
        config = read_config(recipe)
        for part in (config, config.affinity, config.student):
            if part is not None:
                tiny, expected = network(part.method, part.model)
                kept = {
                    k: v for k, v in part.train.view_settings.items() if k in ("resample", "padding_label")
                }
                key = (part.method, str(tiny), part.train.view, str(kept))
                found.setdefault(key, (recipe, part.method, tiny, expected, part.train.view, kept))
    return list(found.values())


PAIRS = pairs()


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    made = {size: tmp_path_factory.mktemp("photographs") for size in (SQUARE, WIDE)}
    for size, root in made.items():
        write_folder(root, size)
    return made


def test_every_method_that_learns_is_in_a_recipe():
    # The package's own: another test may have registered a method of its own in this process.
    files = {path.stem for path in Path(methods.__file__).parent.glob("*.py")}
    own = files - {"__init__", "base"}
    assert {method for _, method, *_ in PAIRS} == own


@pytest.mark.parametrize(
    ("method", "tiny", "expected", "view", "kept"),
    [pair[1:] for pair in PAIRS],
    ids=[f"{recipe}-{method}-{view}" for recipe, method, _, _, view, _ in PAIRS],
)
def test_the_network_learns_from_the_photographs_own_colours(roots, method, tiny, expected, view, kept):
    size = SQUARE if view in CROPS else WIDE
    side = 96 if method == "affinity_net" else 64  # whose pairs need nine cells
    labels = roots[size] / "masks" if method in ("segmenter", "affinity_net") else None
    made = make_view(view, side, **(kept | STILL[view]))
    batch = next(train_batches(open_dataset(roots[size], "folder"), made, 2, seed=1, labels=labels))
    torch.manual_seed(0)
    kind = methods.get(method)
    module = kind(validate(kind.config_class, tiny), 3).train()
    with entering(module, expected) as seen:
        module(batch, STEP)
    assert seen
    boxes = [[0, side, 0, side]] * 2 if batch.boxes is None else batch.boxes.tolist()
    first = seen[0]
    assert first.shape == batch.images.shape
    for i, light in enumerate(batch.names):
        top, bottom, left, right = boxes[i]
        assert (bottom - top, right - left) == size
        reference = figures(photograph(light, size).reshape(-1, 3).astype(np.float64))
        inside = grey_levels(first[i])[top:bottom, left:right]
        assert np.abs(figures(inside.reshape(-1, 3)) - reference).max() <= 2
        share = (bottom - top) * (right - left) / side**2
        for again in seen[1:]:  # views at other scales, mirror images
            assert again.shape[0] % 2 == 0
            for view_of in again[i::2]:
                levels = grey_levels(view_of)
                kept_colours = tied(levels, light)
                assert kept_colours.mean() >= 0.75 * share
                assert np.abs(levels[kept_colours].mean(0) - reference[0]).max() <= 6


def test_afa_changes_phase_after_the_updates_it_names(roots):
    torch.manual_seed(0)
    settings = {**TINY["afa"], "tags_until": 3, "walk_after": 5}
    method = AFA(validate(AFAConfig, settings), 3).train()
    view = make_view("scale_crop", 64)
    batch = next(train_batches(open_dataset(roots[WIDE], "folder"), view, 2, seed=0))
    calls = []
    method.attn_proj.register_forward_hook(lambda *_: calls.append(1))
    found = {}
    for step in (3, 4, 5, 6):
        calls.clear()
        logs = method(batch, step).logs
        found[step] = ("seg" in logs, len(calls))
    # The affinity is computed once to be taught, and once more where the walk uses it.
    assert found == {3: (False, 0), 4: (True, 1), 5: (True, 1), 6: (True, 2)}


@pytest.mark.parametrize(
    ("name", "settings", "term"),
    [
        ("more", {"mct_from": 4, "ptc_from": 9, "lir_from": 9, "seg_from": 9}, "mct"),
        ("more", {"mct_from": 9, "ptc_from": 4, "lir_from": 9, "seg_from": 9}, "ptc"),
        ("more", {"mct_from": 9, "ptc_from": 9, "lir_from": 9, "seg_from": 4}, "seg"),
        ("aream", {"affinity_from": 4}, None),
    ],
)
def test_terms_begin_with_the_update_they_name(roots, name, settings, term):
    torch.manual_seed(0)
    kind = methods.get(name)
    method = kind(validate(kind.config_class, {**TINY[name], **settings}), 3).train()
    batch = next(
        train_batches(open_dataset(roots[SQUARE], "folder"), make_view("resized_crop", 64), 2, seed=0)
    )
    before, at = (dict(method(batch, step).logs) for step in (3, 4))

    def there(logs):
        return logs if term is None else [key for key in logs if term in key and float(logs[key]) != 0]

    assert len(there(at)) > len(there(before))


def test_what_a_batch_is_tagged_with_follows_the_order_of_the_classes(tmp_path):
    write_folder(tmp_path, SQUARE)
    (tmp_path / "tags.csv").write_text("image,tags\nbright.png,third;first\ndark.png,second\n")
    batches = train_batches(open_dataset(tmp_path, "folder"), make_view("resized_crop", 64), 2, seed=0)
    for batch in islice(batches, 4):
        tags = dict(zip(batch.names, batch.tags.tolist(), strict=True))
        assert tags == {"bright": [1, 0, 1], "dark": [0, 1, 0]}


def test_labels_written_by_refine_teach_a_segmenter_what_they_mean(roots, tmp_path):
    """255 teaches nothing, 0 is the background's channel, k + 1 is class k's."""
    from tagmask.store.labels import write_mask

    palette = open_dataset(roots[WIDE], "folder").classes.palette
    kind = methods.get("segmenter")
    torch.manual_seed(0)
    method = kind(validate(kind.config_class, {"width": 4}), 3).train()
    for value in (0, 2, 255):
        for light in ("bright", "dark"):
            label = np.where(stripes(light, WIDE) == 255, value, 255).astype(np.uint8)
            write_mask(tmp_path / str(value) / f"{light}.png", label, palette)
            assert np.asarray(Image.open(tmp_path / str(value) / f"{light}.png")).max() == 255
        batch = next(
            train_batches(
                open_dataset(roots[WIDE], "folder"),
                make_view("short_side_crop", 64, scale=(1, 1), short_side=48, jitter=0),
                2,
                seed=0,
                labels=tmp_path / str(value),
            )
        )
        method.zero_grad()
        loss = method(batch, 0).loss
        loss.backward()
        bias = method.network.fc8_seg_conv2.bias.grad
        if value == 255:
            assert loss == 0
            assert not bias.any()
        else:
            # Only the channel that is right gets pulled up.
            assert (bias < 0).nonzero().flatten().tolist() == [value]
