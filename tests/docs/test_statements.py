"""Sentences that were wrong once, each tied to what it speaks of."""

from __future__ import annotations

import json
import re

import pytest
import yaml
from PIL import Image

import tagmask
from tagmask import recipes
from tagmask.data.parts import DataConfig, Parts
from tagmask.errors import UserError
from tagmask.models.trained import build_method
from tagmask.pipeline.config import read_config
from tests.cli.bad_inputs import CASES
from tests.docs.blocks import PAGES, ROOT, command_blocks, commands, site_pages

RESULTS = ROOT / "benchmarks" / "results"
RECIPES = ROOT / "src" / "tagmask" / "recipes"
PLAIN_VIT = {"backbone": "vit:patch=16,dim=32,depth=3,heads=2,size=64", "weights": "none"}


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def minutes(name: str) -> float:
    """What a recipe took, by the record of a run."""
    seconds = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))["seconds"]
    return sum(seconds.get("recipe", seconds).values()) / 60


def trains(name: str) -> list[list[str]]:
    """The commands of a page that train on corrections."""
    found = [words for block in command_blocks() if block.page == name for words in commands(block)]
    return [words for words in found if "--corrections" in words and words[1] == "train"]


@pytest.mark.parametrize("layout", ["images/{}", "{}"])
def test_a_folder_per_class_is_read_where_the_pages_put_it(tmp_path, layout):
    for name in ("cat", "dog"):
        folder = tmp_path / layout.format(name)
        folder.mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(folder / "001.jpg")
    assert tagmask.open_dataset(tmp_path).classes.names == ("cat", "dog")


@pytest.mark.parametrize("recipe", ["small", "small-weaktr", "small-stages"])
def test_a_run_gives_a_mask_for_every_image(recipe):
    assert read_config(recipe).segment.split == "both"


def test_a_run_of_auto_gives_a_mask_for_every_image_unless_the_data_name_some_to_score_on(tmp_path):
    (tmp_path / "images").mkdir()
    for number in range(60):
        Image.new("RGB", (32, 32)).save(tmp_path / "images" / f"{number:02}.png")
    rows = [f"{number:02}.png,{'cat' if number % 2 else 'dog'}" for number in range(60)]
    part = read_config("auto").segment.split
    (tmp_path / "tags.csv").write_text("\n".join(["image,tags", *rows]))
    assert len(Parts(DataConfig(root=tmp_path)).open(part)) == 60
    (tmp_path / "tags.csv").unlink()
    (tmp_path / "tags_train.csv").write_text("\n".join(["image,tags", *rows[:50]]))
    (tmp_path / "tags_val.csv").write_text("\n".join(["image,tags", *rows[50:]]))
    assert len(Parts(DataConfig(root=tmp_path)).open(part)) == 10


def test_labels_that_a_command_trains_on_are_of_the_images_to_learn_from():
    """Labels of the validation images have no name in common with what a segmenter learns from."""
    checked = 0
    for block in command_blocks():
        made = {}
        for words in commands(block):
            if "--labels" in words and (source := words[words.index("--labels") + 1]).startswith("runs/"):
                recipe, settings = made[source.removesuffix("/labels")]
                assert read_config(recipe, {}, settings).refine.split in ("train", "both"), block
                checked += 1
            if words[:2] == ["tagmask", "run"] and "--out" in words:
                settings = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
                made[words[words.index("--out") + 1]] = (words[2], settings)
    assert checked > 0


def test_the_readme_installs_what_its_commands_need():
    block = next(block for block in command_blocks() if block.page == "README.md" and ".mp4" in block.text)
    lines = block.text.splitlines()
    extras = re.search(r'pip install "\.\[(.+?)\]"', block.text)
    assert extras is not None
    needed = {"app": "tagmask app", "video": ".mp4", "onnx": "tagmask export"}
    used = {extra for extra, word in needed.items() if any(word in line for line in lines)}
    assert set(extras[1].split(",")) == used


@pytest.mark.parametrize("method", ["afa", "transcam", "psa"])
def test_methods_with_a_network_of_their_own_take_no_plain_vit(method):
    with pytest.raises(UserError):
        build_method(method, PLAIN_VIT, 3)


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "docs" / "methods").glob("*.md")))
def test_published_numbers_are_said_not_to_be_repeated(name):
    part = page(f"docs/methods/{name}").partition("\n## Published numbers")[2].partition("\n## ")[0]
    assert not part or re.search(r"tagmask has not repeated", " ".join(part.split()))


@pytest.mark.parametrize(
    ("recipe", "record"),
    [("small-weaktr", "weaktr_small_animals"), ("small-stages", "aream_small_animals")],
)
def test_recipes_say_how_long_they_take(recipe, record):
    head = (RECIPES / f"{recipe}.yaml").read_text(encoding="utf-8").splitlines()[0]
    told = re.search(r"about (\d+) minutes", head)
    assert told is not None
    assert float(told[1]) == pytest.approx(minutes(record), abs=1)


def test_the_small_recipe_says_how_long_it_trains():
    seconds = json.loads((RESULTS / "more_small_animals_bf16.json").read_text(encoding="utf-8"))["seconds"]
    told = re.search(r"trains for about (\d+) minutes", (RECIPES / "small.yaml").read_text(encoding="utf-8"))
    assert told is not None
    assert float(told[1]) == round(seconds["train"] / 60)


def test_every_small_recipe_was_measured_on_photographs_as_the_choice_of_a_method_says():
    first = page("docs/guide/choose-a-method.md").partition("\n| you have")[0]
    assert "(../evidence/benchmarks.md#photographs-of-six-animal-classes)" in first
    table = site_pages().filled("<!-- table: animals -->")
    small = {name for name in recipes.names() if name.startswith("small")}
    assert small == set(re.findall(r"`(small[\w-]*)`", first)) == set(re.findall(r"^\| `(.+?)`", table, re.M))


def test_a_crf_takes_about_as_long_as_par_in_refine():
    """On the same 927 photographs."""
    assert "about PAR's in `refine`" in page("docs/concepts/refinement.md")
    seconds = {}
    for name in ("aream_small_animals", "weaktr_small_animals"):
        found = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))["seconds"]
        seconds[name] = found.get("recipe", found)["refine"]
    assert 0.7 < seconds["weaktr_small_animals"] / seconds["aream_small_animals"] < 1.4


def test_the_error_messages_are_those_of_the_cases():
    rows = [
        line.strip("|").split(" | ")
        for line in page("docs/reference/errors.md").splitlines()
        if re.match(r"\| `.+` \|", line)
    ]
    told = [(command.strip(" `"), came, int(code)) for command, came, code, *_ in rows]
    assert told == [(case.command, case.came, case.code) for case in CASES]
    for case, (*_, answer) in zip(CASES, rows, strict=True):
        if case.code == 2 and not answer.rstrip().endswith("..."):
            assert all(word in answer.replace("&lt;", "<") for word in case.words), case.came


def test_the_tour_says_how_long_the_demo_is():
    demo = yaml.safe_load((RECIPES / "demo.yaml").read_text(encoding="utf-8"))
    tour = page("examples/from_tags_to_masks.py")
    assert f"1000 scenes and {demo['train']['iterations']} updates" in tour


@pytest.mark.parametrize("name", ["README.md", "docs/guide/review-and-correct.md"])
def test_the_command_for_corrections_is_the_measured_one(name):
    record = json.loads((RESULTS / "corrections.json").read_text(encoding="utf-8"))
    (words,) = trains(name)
    assert int(words[words.index("--iterations") + 1]) == record["iterations"]
    assert int(words[words.index("--batch-size") + 1]) == record["batch_size"]
    assert f"train.corrections_batch={record['corrections_batch']}" in words
    assert f"train.rate {words[words.index('--set') + 1].removeprefix('train.rate=')}" in record["miou"]


def test_afa_on_one_gpu_sees_what_the_authors_gpus_saw():
    text = page("docs/methods/afa.md")
    command = next(line for line in text.splitlines() if line.startswith("tagmask run voc/afa --data"))
    assert "--set train.accumulate=2" in command
    assert read_config("voc/afa").train.batch_size == 4


def test_no_page_promises_minutes_that_no_file_holds():
    """Times in words are those of commands that the tests run, or stand beside the file they come from."""
    promises = re.compile(r"\b(two|three|four|five|ten|twenty|some) minutes\b")
    told = {
        file.relative_to(ROOT).as_posix(): found
        for file in PAGES
        if (found := promises.findall(file.read_text(encoding="utf-8")))
    }
    assert set(told) <= {"docs/start/install.md", "docs/guide/millions-of-images.md"}, told
