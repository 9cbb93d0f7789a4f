"""Python and the command line are one: the same words, the same defaults, the same settings."""

from __future__ import annotations

import inspect
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer

import tagmask
from tagmask import api
from tagmask.cli.main import app
from tagmask.methods import name_of
from tagmask.pipeline import single
from tagmask.pipeline.run import Run
from tests.cli import tagmask as command
from tests.toy import toy_root

COMMANDS = typer.main.get_command(app).commands
STEPS = ("localize", "refine", "affinity", "walk", "student", "segment", "evaluate", "entropy")
FUNCTIONS: dict[str, Any] = {name: getattr(tagmask, name) for name in ("train", "run", *STEPS)}
FUNCTIONS |= {"report": tagmask.write_report, "review": tagmask.write_review}
VALUES: dict[str, Any] = {
    "data": "pictures", "tags": "tags.csv", "classes": "names.txt", "masks": "truth", "kind": "folder",
    "split": "val", "method": "more", "backbone": "vit_tiny_patch16_224", "weights": "none",
    "labels": "seeds", "seed": 5, "size": 64,
    "iterations": 7, "batch_size": 3, "device": "cpu", "precision": "bf16", "corrections": "fixed",
    "start": "before", "checkpoint": "model", "maps": "cam,lam", "resize": 80, "refinement": "crf",
    "map_kind": "lam", "background": 0.3, "crf": "more", "scales": "1,0.5", "flip": True, "what": "cam,label",
    "recipe": "demo", "holdout": False, "has_background": False,
}  # fmt: skip
NO_SETTING = {
    "settings",
    "progress",
    "callbacks",
    "loggers",
    "out",
    "resume",
    "overwrite",
    "until",
    "first",
    "run",
    "time",
}


@pytest.fixture
def asked(monkeypatch):
    """What would be done, instead of doing it."""
    calls: list[tuple[Any, ...]] = []

    def record(config, folder, steps, **how):
        how.pop("display")
        calls.append((config, Path(folder), tuple(steps), how))
        if tuple(steps) == ("entropy",):  # what the command reads afterwards
            Path(folder).mkdir(parents=True, exist_ok=True)
            (Path(folder) / "entropy.json").write_text('{"entropy": [1.0], "weights": [1.0]}')
        return Run(Path(folder), {})

    import tagmask.pipeline.run

    for module in (api, single):
        monkeypatch.setattr(module, "run_steps", record)
    monkeypatch.setattr(tagmask.pipeline.run, "run", record)
    monkeypatch.setattr(api, "load", lambda *args, **kwargs: None)
    return calls


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_words_are_the_same(name):
    terminal = ("help", "tracker", "dry_run")
    words = {param.name for param in COMMANDS[name].params if param.name not in terminal}
    arguments = set(inspect.signature(FUNCTIONS[name]).parameters) - {"progress", "callbacks", "loggers"}
    assert words == arguments


def flags_of(name: str) -> dict[str, str]:
    return {p.name: p.opts[0] for p in COMMANDS[name].params if p.opts[0].startswith("--")}


@pytest.mark.parametrize(
    ("name", "word"),
    [(n, w) for n, fn in FUNCTIONS.items() for w in inspect.signature(fn).parameters if w not in NO_SETTING],
)
def test_a_word_does_the_same(name, word, asked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = () if name == "train" else ("demo",)
    if (name, word) == ("run", "recipe"):
        return
    value = "label_50_5" if (name, word) == ("walk", "crf") else VALUES[word]
    FUNCTIONS[name](*base, **{word: value}, progress=False)
    shutil.rmtree("runs", ignore_errors=True)
    flag = flags_of(name)[word]
    given = {True: [flag], False: [flag.replace("--", "--no-", 1)]}.get(value, [flag, str(value)])
    said = command(name, *base, *given)
    assert said.exit_code == 0, said.stderr
    python, shell = asked
    assert python[:3] == shell[:3]
    assert python[0] != tagmask.read_config("demo" if base else "small") or word in ("method", "weights")


def test_without_a_recipe_it_is_the_small_one_and_a_folder_of_that_name(asked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tagmask.train("mydata", progress=False)
    said = command("train", "--data", "mydata")
    assert said.exit_code == 0, said.stderr
    assert [call[1] for call in asked] == [Path("runs/small"), Path("runs/small")]
    assert asked[0][0] == asked[1][0] == tagmask.read_config("small", {"data.root": "mydata"})


def test_another_training_gets_the_next_folder_and_the_same_one_its_own(tmp_path, monkeypatch):
    from tagmask.pipeline.config import default_folder, write_settings

    monkeypatch.chdir(tmp_path)
    first, other = (tagmask.read_config("small", {"train.iterations": n}) for n in (5, 6))
    folders = []
    for config in (first, other, first, other):
        folders.append(default_folder("small", config).as_posix())
        Path(folders[-1]).mkdir(parents=True, exist_ok=True)
        write_settings(config, Path(folders[-1]))
    assert folders == ["runs/small", "runs/small-2", "runs/small", "runs/small-2"]
    assert default_folder("small", other, overwrite=True) == Path("runs/small")
    # What comes after the training may change in the same folder.
    later = tagmask.read_config("small", {"train.iterations": 5, "segment.crf": "more"})
    assert default_folder("small", later) == Path("runs/small")


def test_settings_that_were_read_can_still_be_changed(asked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = tagmask.read_config("small", {"train.iterations": 5})
    tagmask.run(
        config,
        "pictures",
        tags="t.csv",
        classes=["cat"],
        masks="truth",
        settings={"train.size": 64},
        progress=False,
    )
    changed = asked[0][0]
    assert (changed.train.iterations, changed.train.size) == (5, 64)
    assert (str(changed.data.root), changed.data.tags, str(changed.data.masks)) == (
        "pictures",
        "t.csv",
        "truth",
    )
    assert changed.data.classes == ("cat",)


def test_a_nested_mapping_changes_what_it_names_and_leaves_the_rest():
    plain = tagmask.read_config("small")
    for given in ({"train": {"iterations": 5}}, {"train.iterations": 5}):
        changed = tagmask.read_config("small", given)
        assert changed.train.iterations == 5
        assert changed.train.model_copy(update={"iterations": plain.train.iterations}) == plain.train
    deep = tagmask.read_config("small", {"train": {"eval_maps": {"size": 96}}, "model": {"lr": 0.5}})
    assert (deep.train.eval_maps.size, deep.train.size) == (96, plain.train.size)
    assert deep.model == {**plain.model, "lr": 0.5}
    values = tagmask.read_config("small", {"data.mask_values": {8: "cat"}})
    again = tagmask.read_config(values, {"data.mask_values": {9: "dog"}})
    assert again.data.mask_values == {9: "dog"}


def test_none_is_null_as_on_the_command_line():
    recipe = tagmask.read_config("small-weaktr")
    assert recipe.student is not None
    for changed in (
        tagmask.read_config("small-weaktr", {"student": None}),
        tagmask.read_config("small-weaktr", overrides=["student=null"]),
    ):
        assert changed.student is None
    filled = tagmask.read_config("small", {"student": None, "student.method": "segmenter"})
    assert filled.student is not None


@pytest.mark.parametrize("given", [{"method.x": 1}, {"train.size.x": 1}])
def test_a_setting_below_a_value_is_refused(given):
    with pytest.raises(tagmask.ConfigError, match="not a group of settings"):
        tagmask.read_config("small", given)


def test_the_old_name_of_settings_warns():
    with pytest.warns(FutureWarning, match="flags= of read_config"):
        assert tagmask.read_config("small", flags={"train.iterations": 5}).train.iterations == 5


TINY = {
    "model.backbone": "vit:patch=8,dim=32,depth=2,heads=2,size=64", "model.weights": "none",
    "model.aux_block": -2, "model.scales": [1.0], "train.size": 64, "train.batch_size": 2,
    "train.eval_every": 0,
    "train.tensorboard": False, "localize.kinds": ["cam"], "runtime.threads": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return toy_root(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, toy):
    out = tmp_path_factory.mktemp("trained") / "run"
    tagmask.train(toy, out=out, method="more", iterations=1, device="cpu", settings=TINY, progress=False)
    return out


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


@pytest.mark.parametrize("step", ["localize", "segment", "review", "entropy"])
def test_nothing_is_written_into_a_model_folder(step, trained, toy, tmp_path):
    model = Path(shutil.copytree(trained / "model", tmp_path / "published"))
    before = files(model)
    with pytest.raises(tagmask.ConfigError, match="is a model folder; say where the results go: out=DIR"):
        FUNCTIONS[step](model, data=toy, tags={"a.png": ["dots"]}, progress=False)
    assert files(model) == before


def test_resuming_needs_no_data(trained):
    before = files(trained)
    assert tagmask.train(out=trained, resume=True, progress=False).classes[0] == "stripes"
    assert files(trained) == before


def test_tags_of_a_program_are_kept_with_the_run(toy, tmp_path):
    opened = tagmask.open_dataset(toy, split="train")
    names = opened.classes.names
    tags = {item.image.name: [names[k] for k in item.tags or ()][:1] for item in opened.items}
    out = tmp_path / "run"
    for _ in range(2):  # the second call finds its own work
        model = tagmask.train(
            toy, tags=tags, out=out, method="more", iterations=1, device="cpu", settings=TINY, progress=False
        )
    assert set(model.classes) <= set(names)
    kept = list(out.glob("tags-*.jsonl"))
    assert len(kept) == 1
    assert tagmask.read_config(out).data.tags == str(kept[0])


def test_a_method_class_is_a_method(toy, tmp_path, monkeypatch):
    from tagmask import methods
    from tests.api.test_parts import Gap

    monkeypatch.setattr(methods, "_REGISTERED", {})
    settings = {"train.size": 32, "train.batch_size": 2, "train.eval_every": 0, "train.tensorboard": False}
    model = tagmask.train(
        toy, out=tmp_path / "run", method=Gap, iterations=2, settings=settings, progress=False
    )
    assert name_of(Gap) == "gap"
    assert model.predict(toy / "images" / "00000.png").mask.shape == (64, 64)
    assert tagmask.load(tmp_path / "run").classes == model.classes


@pytest.mark.parametrize(("device", "name"), [(0, "cuda:0"), ("cpu", "cpu"), ("torch", "cpu")])
def test_devices_as_others_say_them(device, name, asked, tmp_path):
    import torch

    given = torch.device("cpu") if device == "torch" else device
    tagmask.train("mydata", out=tmp_path, device=given, progress=False)
    assert asked[0][0].runtime.device == name


def test_the_number_of_failed_inputs_is_no_exit_code(trained, toy, tmp_path):
    for number, inputs in enumerate((["a.png"], ["a.png", "b.png"], [toy / "images" / "00000.png", "a.png"])):
        said = command("predict", trained, *inputs, "--out", tmp_path / str(number), "--device=cpu")
        assert (
            said.exit_code,
            f"{min(len(inputs), 2 if number == 1 else 1)} input" in said.stderr,
        ) == (3, True)
