"""A model learns from corrected masks: what is computed once, what learns, and when the result is given."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tagmask.engine.compute import Compute
from tagmask.errors import ConfigError, DataError
from tagmask.methods import create_method
from tagmask.models.trained import Trained, from_module, load_trained
from tagmask.models.versions import newest_version, save_version
from tagmask.store.labels import write_mask
from tagmask.training.lessons import Lesson, TeachConfig
from tagmask.training.teach import teach
from tagmask.training.tokens import Cut, TokenStore
from tests.contract.test_methods import BEIT

VIT = "vit:patch=8,dim=24,depth=4,heads=2,size=48"
CPU = Compute.choose("cpu")
QUICK = TeachConfig(updates=25, epochs=40, lr=3e-3, lr_heads=1e-2, views=2)


def model(name: str = "segmenter", num_classes: int = 2, **settings: object) -> Trained:
    torch.manual_seed(0)
    method = create_method(name, num_classes, weights="none", **({"backbone": VIT} | settings))
    return from_module(method, [f"class {k}" for k in range(num_classes)])


def lessons(count: int, unknown: bool = False) -> list[Lesson]:
    """A red or a green half, left or right, on grey."""
    found = []
    for index in range(count):
        image, mask = np.full((40, 48, 3), 128, np.uint8), np.zeros((40, 48), np.uint8)
        half = slice(0, 24) if index % 3 else slice(24, 48)
        image[:, half] = (220, 30, 30) if index % 2 else (30, 200, 30)
        mask[:, half] = 1 + index % 2
        found.append(Lesson(f"i{index}", image, np.full_like(mask, 255) if unknown else mask))
    return found


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("more", {}),
        ("segmenter", {}),
        ("segmenter", {"backbone": "mask:" + VIT, "position_size": 48}),
        ("more", {"backbone": BEIT}),
        ("afa", {"backbone": "mit_b0"}),
    ],
)
def test_what_is_kept_gives_the_same_masks_as_the_whole_network(name, settings):
    method = model(name, **settings).method.eval()
    names, views = list(method.state_dict()), torch.rand(2, 3, 48, 48)
    with torch.no_grad():
        whole = method.segment(views)
        cut = Cut(method, 2, CPU)
        kept = cut.lower(views)
        cut.skip()
        assert torch.allclose(cut.upon(method.segment, kept, 48), whole, atol=1e-5)
        assert torch.equal(cut.close().segment(views), whole)
    assert list(method.state_dict()) == names


def test_the_store_keeps_tokens_in_a_file_where_they_are_many(monkeypatch):
    monkeypatch.setattr("tagmask.training.tokens._IN_MEMORY", 1)
    store, tokens = TokenStore(3, (5, 4), 2), torch.rand(2, 5, 4)
    labels = np.array([[[0, 1], [2, 255]], [[1, 1], [0, 0]]], np.uint8)
    assert store.add(tokens, labels) == [0, 1]
    found, read = store.get([1, 0], torch.device("cpu"))
    assert torch.allclose(found, tokens[[1, 0]], atol=1e-3)
    assert read.tolist() == labels[[1, 0]].tolist()
    store.close()


@pytest.mark.parametrize("count", [6, 24])
def test_a_better_model_is_given_and_the_old_one_stays(count):
    old = model()
    before = {name: value.clone() for name, value in old.method.state_dict().items()}
    told: list[str] = []
    taught = teach(
        old,
        lessons(count),
        others=lessons(30)[count:],
        compute=CPU,
        config=QUICK,
        progress=lambda what, share: told.append(what),
    )
    assert taught.trained is not None
    assert taught.after > taught.before + 0.2
    assert taught.held == (6 if count == 6 else 4)
    assert set(told) == {"reading", "learning", "checking"}
    new = taught.trained.method.state_dict()
    assert all(torch.equal(value, before[name]) for name, value in old.method.state_dict().items())
    changed = {name for name in before if not torch.equal(new[name], before[name])}
    # Three blocks, the last norm and the decoder learned; what lies below is the same.
    assert any(name.startswith("network.backbone.blocks.3.") for name in changed)
    lower = ("network.backbone.blocks.0.", "network.backbone.patch_embed", "network.backbone.pos_embed")
    assert not any(name.startswith(lower) for name in changed)


def test_weights_move_only_as_far_as_serves_corrections_held_back(monkeypatch):
    def shares(count: int) -> list[float]:
        seen: list[float] = []
        go = Cut.go
        monkeypatch.setattr(Cut, "go", lambda cut, *weights: (seen.append(weights[2]), go(cut, *weights))[1])
        old = model()
        taught = teach(old, lessons(count), seconds=600, compute=CPU, config=QUICK)
        monkeypatch.undo()
        assert taught.trained is not None
        return seen

    # Each half is tried at every share; then all corrections go as far as was best.
    few = shares(8)
    assert few[:8] == [1.0, 0.5, 0.25, 0.0] * 2
    assert len(few) == 9
    assert few[8] in (1.0, 0.5, 0.25)
    many = shares(24)
    assert many[:4] == [1.0, 0.5, 0.25, 0.0]
    assert len(many) == 5
    assert many[4] in (1.0, 0.5, 0.25)
    cut = Cut(model().method.eval(), 2, CPU)
    start = cut.weights()
    cut.go(start, {key: value + 1 for key, value in start.items()}, 0.25)
    assert all(torch.allclose(value, start[key] + 0.25) for key, value in cut.weights().items())


def test_the_same_call_gives_the_same_model():
    found = [teach(model(), lessons(6), seconds=600, compute=CPU, config=QUICK) for _ in range(2)]
    first, second = (taught.trained.method.state_dict() for taught in found)
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_unknown_pixels_teach_nothing_and_no_better_model_is_given():
    taught = teach(model(), lessons(4, unknown=True), compute=CPU, config=QUICK)
    assert taught.trained is None
    assert np.isnan(taught.after)
    assert "stays as it was" in taught.text


def test_a_method_with_a_classifier_goes_on_saying_what_it_said(monkeypatch):
    old = model("more", decoder_width=16)
    views = torch.stack([torch.from_numpy(one.image).permute(2, 0, 1) / 255 for one in lessons(8)])

    def moved() -> float:
        taught = teach(old, lessons(24), compute=CPU, config=QUICK)
        assert taught.trained is not None
        with torch.no_grad():
            said, says = (one.method.eval().classify(views).sigmoid() for one in (old, taught.trained))
        return float((said - says).abs().mean())

    kept = moved()
    monkeypatch.setattr("tagmask.training.teach._chances", lambda work, cut: None)
    assert kept < 0.5 * moved()


def test_stop_ends_the_work_without_a_model():
    calls = iter([False] * 5 + [True] * 100)
    taught = teach(model(), lessons(4), compute=CPU, config=QUICK, stop=lambda: next(calls))
    assert taught.stopped
    assert taught.trained is None
    assert "stopped" in taught.text


def test_what_cannot_teach_is_refused():
    with pytest.raises(ConfigError, match="does not segment"):
        teach(model("weaktr"), lessons(4))
    with pytest.raises(DataError, match="at least 2 corrected images"):
        teach(model(), lessons(1))
    with pytest.raises(DataError, match="same name"):
        teach(model(), lessons(2) * 2)
    with pytest.raises(ConfigError, match="positive number of seconds"):
        teach(model(), lessons(4), seconds=0)
    wrong = Lesson("big", np.zeros((8, 8, 3), np.uint8), np.full((8, 8), 7, np.uint8))
    with pytest.raises(DataError, match="'big' holds label 7"):
        teach(model(), [*lessons(2), wrong], compute=CPU)
    small = Lesson("small", np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9), np.uint8))
    with pytest.raises(DataError, match="match pixel by pixel"):
        teach(model(), [*lessons(2), small], compute=CPU)


def test_versions_follow_one_another_and_load(tmp_path):
    assert newest_version(tmp_path) is None
    trained = model()
    assert save_version(tmp_path / "taught", trained).name == "v1"
    second = save_version(tmp_path / "taught", trained)
    (tmp_path / "taught" / "v7").mkdir()  # somebody else is writing this one
    assert (second.name, newest_version(tmp_path / "taught")) == ("v2", second)
    assert save_version(tmp_path / "taught", trained).name == "v8"
    views, loaded = torch.rand(1, 3, 48, 48), load_trained(second).method
    with torch.no_grad():
        assert torch.equal(loaded.segment(views), trained.method.eval().segment(views))


def test_lessons_are_read_from_files(tmp_path):
    write_mask(tmp_path / "mask.png", np.ones((8, 8), np.uint8))
    image, mask = Lesson("x", np.zeros((8, 8, 3), np.uint8), tmp_path / "mask.png").read(1)
    assert image.shape == (8, 8, 3)
    assert mask.tolist() == np.ones((8, 8)).tolist()
