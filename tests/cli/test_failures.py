"""Whatever is wrong: one line on stderr, an exit code, nothing half-written."""

from __future__ import annotations

import shutil

import pytest

from tests.cli import TINY, tagmask, train_args


def fails(result, *words):
    assert result.exit_code == 2, result.stdout + result.stderr
    *notes, text = result.stderr.strip().splitlines()
    assert text.startswith("error: ")
    assert not any("error" in note for note in notes)
    assert "Traceback" not in result.output
    for word in words:
        assert word in text, text


def test_recipe_with_an_unknown_key_names_the_nearest(tmp_path, toy):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("train:\n  iteratons: 5\n")
    fails(tagmask("run", recipe, "--data", toy, "--out", tmp_path / "o"), "train.iteratons", "'iterations'")
    recipe.write_text("model:\n  temprature: 5\n")
    fails(tagmask("run", recipe, "--data", toy, "--out", tmp_path / "o"), "temprature", "'temperature'")
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1, 2]", "key: value"),
        ("a: [", "not valid YAML"),
        ("!!python/object/apply:os.system ['true']", "not valid YAML"),
        ("train: 5", "train"),
        ("runtime: {precision: fp8}", "precision"),
        ("method: moore", "'more'"),
    ],
)
def test_recipes_that_make_no_sense(tmp_path, toy, text, words):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(text)
    fails(tagmask("run", recipe, "--data", toy, "--out", tmp_path / "o"), words)


def test_unknown_recipe_step_method_and_setting(tmp_path, toy):
    fails(tagmask("run", "voc/mroe", "--data", toy), "unknown recipe 'voc/mroe'")
    fails(tagmask("show", "moore"), "'more'")
    flags = ("--data", toy, "--out", tmp_path / "o")
    fails(tagmask("train", *flags, "--method", "moer"), "'more'")
    fails(tagmask("train", *flags, "--set", "train.sizes=3"), "'size'")
    fails(tagmask("train", *flags, "--set", "train.size"), "key=value")
    fails(tagmask("train", *flags, "--device", "cuda:99"), "cuda:99")
    fails(tagmask("run", tmp_path / "none.yaml"), "no recipe file")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("run", "PLACE"), "a folder of images"),
        (("run", "some/where"), "a folder of images"),
        *(((name, "PLACE"), "the folder of a run") for name in ("review", "report", "localize", "app")),
        *(((name, "PLACE"), "the folder of a run") for name in ("teach", "check")),
    ],
)
def test_a_folder_that_is_not_there_is_no_unknown_recipe(tmp_path, monkeypatch, command, words):
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "nowhere"
    done = tagmask(*(str(place) if part == "PLACE" else part for part in command))
    fails(done, "does not exist")
    assert words in done.stderr
    assert "unknown recipe" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_data_that_is_not_there(tmp_path, toy):
    fails(tagmask("train", "--out", tmp_path / "o"), "--data DIR")
    fails(tagmask(*train_args(tmp_path / "nowhere", tmp_path / "o")), "does not exist")
    (tmp_path / "empty").mkdir()
    fails(tagmask(*train_args(tmp_path / "empty", tmp_path / "o")), "tag file")
    assert not (tmp_path / "o" / "model").exists()


def test_a_tag_that_is_no_class_and_a_missing_image(tmp_path, toy):
    data = shutil.copytree(toy, tmp_path / "data")
    rows = (data / "tags.csv").read_text().splitlines()
    (data / "tags.csv").write_text("\n".join([*rows, "00000.png,dots,train", "x.png,strypes,train"]) + "\n")
    fails(tagmask(*train_args(data, tmp_path / "o")), "x.png", "duplicate row")


def test_truncated_images_are_stepped_over_and_then_stop(tmp_path, toy):
    data = shutil.copytree(toy, tmp_path / "data")
    for i in range(6):
        path = data / "images" / f"{i:05d}.png"
        path.write_bytes(path.read_bytes()[:200])
    skipped = tagmask(*train_args(data, tmp_path / "a", 2))
    assert skipped.exit_code == 0, skipped.stderr
    fails(tagmask(*train_args(data, tmp_path / "b", 9, "--set=train.broken_limit=1")), "could not be read")
    for run in ("a", "b"):
        head, *rows = (tmp_path / run / "train" / "quarantine.csv").read_text().splitlines()
        assert head == "image,reason"
        assert all(row.split(",")[0] in {f"{i:05d}" for i in range(6)} for row in rows)
        assert rows


def test_memory_that_runs_out_names_the_setting(finished, tmp_path, monkeypatch):
    import torch

    from tagmask.inference.predictor import Predictor

    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    run = shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(run / "masks")
    monkeypatch.setattr(Predictor, "predict", fail)
    fails(tagmask("segment", run), "memory ran out in segment", "Lower segment.size")


def test_images_of_updates_that_are_not_finite_are_listed(tmp_path, toy):
    steep = (
        "--set=model.lr=100",
        "--set=train.rate=1e28",
        *(f"--set=model.{phase}_from=20" for phase in ("mct", "ptc", "lir", "seg")),
        "--set=model.warmup=0",
        "--set=train.max_bad=3",
        "--set=train.log_every=1",
    )
    fails(
        tagmask(*train_args(toy, tmp_path / "o", 20, *steep)), "3 updates in a row", "Images of the last ones"
    )
    head, *rows = (tmp_path / "o" / "train" / "skipped.csv").read_text().splitlines()
    assert head == "step,images"
    assert len(rows) == 3
    assert all(name.isdigit() for row in rows for name in row.split(",")[1].split())


def test_maps_that_leave_the_finite_numbers_end_in_one_line(tmp_path, toy):
    steep = "--set=model.lr=100", "--set=train.rate=1e28", "--set=model.warmup=0"
    fails(tagmask(*train_args(toy, tmp_path / "o", 20, *steep)), "left the finite numbers", "learning rate")
    assert not (tmp_path / "o" / "model").exists()


def test_weights_of_another_shape_or_missing(tmp_path, toy):
    import torch

    torch.save({"cls_token": torch.zeros(1, 1, 7)}, tmp_path / "w.pth")
    args = [a for a in TINY if not str(a).startswith("--weights")]
    base = ("train", "--data", toy, "--out", tmp_path / "o", "--iterations=1", *args)
    fails(tagmask(*base, "--weights", tmp_path / "w.pth"), "w.pth")
    fails(tagmask(*base, "--weights", tmp_path / "none.pth"), "none.pth")


def test_hostile_checkpoint_is_refused_and_runs_nothing(tmp_path, toy):
    import os

    import torch

    class Hostile:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "mark"),))

    torch.save({"model": Hostile()}, tmp_path / "w.pth")
    flags = ("--data", toy, "--out", tmp_path / "o", "--checkpoint", tmp_path / "w.pth", "--from", "localize")
    recipe = tmp_path / "r.yaml"
    backbone = "vit:patch=8,dim=32,depth=2,heads=2,size=64"
    recipe.write_text(f"method: more\nmodel: {{backbone: '{backbone}', aux_block: -2}}\n")
    fails(tagmask("run", recipe, *flags), "w.pth")
    assert not (tmp_path / "mark").exists()


def test_masks_of_another_size(finished, tmp_path, toy):
    from PIL import Image

    data = shutil.copytree(toy, tmp_path / "data")
    run = shutil.copytree(finished, tmp_path / "run")
    mask = data / "masks" / "00013.png"
    with Image.open(mask) as picture:
        picture.resize((32, 32)).save(mask)
    fails(tagmask("evaluate", run, "--data", data), "00013", "must match")


def test_steps_before_their_time(finished, tmp_path, toy):
    run = shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(run / "maps")
    fails(tagmask("refine", run), "no maps of kind 'cam'")
    shutil.rmtree(run / "model")
    fails(tagmask("localize", run), "no saved weights")
    fails(tagmask("localize", tmp_path / "nothing"), "nothing")


def test_damaged_run_folder(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    (run / "run.json").write_text("{")
    fails(tagmask("segment", run), "run.json is damaged")
    weights = run / "model" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    (run / "run.json").unlink()
    fails(tagmask("segment", run), "damaged")


def test_two_programs_in_one_folder(finished, tmp_path):
    from tagmask.store.files import exclusive

    run = shutil.copytree(finished, tmp_path / "run")
    with exclusive(run):
        fails(tagmask("segment", run), "another tagmask is working")


def test_bugs_are_one_line_too(monkeypatch):
    from tagmask import methods

    monkeypatch.setattr(methods, "names", lambda: 1 / 0)
    result = tagmask("list")
    assert result.exit_code == 1
    assert result.stderr.startswith("internal error: ZeroDivisionError")
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        RuntimeError("can't start new thread"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=repr,
)
def test_too_little_memory_or_address_space_is_one_line_that_says_what_to_raise(monkeypatch, error):
    def short(*_):
        raise error

    monkeypatch.setattr("tagmask.cli.show.describe", short)
    done = tagmask("show", "more")
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("error: memory ran out (")
    assert "ulimit -v" in done.stderr


@pytest.mark.parametrize(
    ("limit", "error", "code"),
    [
        (1 << 62, ValueError("x"), 1), (1 << 62, SystemError("returned NULL"), 2),
        (1 << 20, ValueError("x"), 2), (-1, SystemError("returned NULL"), 1),
    ],
)  # fmt: skip
def test_what_fails_near_a_limit_of_the_address_space_fails_by_it(monkeypatch, limit, error, code):
    resource = pytest.importorskip("resource")

    def short(*_):
        raise error

    monkeypatch.setattr("tagmask.cli.show.describe", short)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    done = tagmask("show", "more")
    assert done.exit_code == code
    assert ("ulimit -v" in done.stderr) == (code == 2)


def test_a_seed_that_no_generator_takes_is_a_setting_error(tmp_path, toy):
    done = tagmask(*train_args(toy, tmp_path / "o", 1, "--seed=18446744073709551621"))
    fails(done, "runtime.seed", "9223372036854775807")


def test_what_ran_out_of_memory_is_said_without_memory(monkeypatch, capfd):
    def none_left(*_args, **_how):
        raise MemoryError

    monkeypatch.setattr("tagmask.methods.names", none_left)
    fails(tagmask("list"), "memory ran out", "ulimit -v")
    monkeypatch.setattr("tagmask.cli.common.near_limit", none_left)
    assert tagmask("list").exit_code == 2
    monkeypatch.undo()
    monkeypatch.setattr("tagmask.methods.names", none_left)
    monkeypatch.setattr("tagmask.cli.common.show_line", none_left)
    assert tagmask("list").exit_code == 2
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("error: memory ran out; ") and "ulimit -v" in line for line in lines)


def test_a_system_that_gives_no_memory_is_no_broken_disk(monkeypatch):
    def refuses():
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr("tagmask.methods.names", refuses)
    fails(tagmask("list"), "Cannot allocate memory", "ulimit -v")
