"""The page on reproducing papers tells schedules, and what one and two GPUs see, as the recipes have them."""

from __future__ import annotations

import json

import pytest

from tagmask import methods
from tagmask.config import validate
from tagmask.pipeline.config import read_config
from tests.docs.blocks import ROOT, Block, command_blocks, commands

PAGE = "docs/guide/reproduce-a-paper.md"


def trainings(recipe: str) -> list[list[str]]:
    """The commands of the page that train a recipe."""
    blocks: list[Block] = [block for block in command_blocks() if block.page == PAGE]
    found = [words for block in blocks for words in commands(block)]
    return [words for words in found if recipe in words and "--checkpoint" not in words]


def images_at_once(words: list[str]) -> int:
    """Images in a micro-batch of a command."""
    processes = next((int(word.split("=")[1]) for word in words if word.startswith("--nproc-per-node=")), 1)
    settings = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
    recipe = next(word for word in words if word.startswith("voc/"))
    train = read_config(recipe, {}, settings).train
    assert train.batch_size % (processes * train.accumulate) == 0
    return train.batch_size // (processes * train.accumulate)


def test_afa_sees_two_images_at_once_on_one_gpu_and_on_two():
    found = trainings("voc/afa")
    assert len(found) == 2
    assert [images_at_once(words) for words in found] == [2, 2]


def test_more_on_one_gpu_is_one_batch_of_four():
    assert [images_at_once(words) for words in trainings("voc/more")] == [4, 2]


@pytest.mark.parametrize(("recipe", "setting", "told"), [("voc/more", "seg_from", "2,001")])
def test_schedules_are_those_of_the_recipes(recipe, setting, told):
    config = read_config(recipe)
    settings = validate(methods.get(config.method).config_class, config.model)
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    assert f"update {told} (`model.{setting}`)" in text
    assert getattr(settings, setting) == int(told.replace(",", ""))


def test_memory_is_counted_for_the_recipes_of_the_page():
    record = json.loads((ROOT / "benchmarks/results/training_memory.json").read_text(encoding="utf-8"))
    for row in record["rows"]:
        train = read_config(row["recipe"]).train
        assert row["size"] == train.size
        assert row["images"] in (train.batch_size, train.batch_size // 2)
        parts = row["weights_gradients_optimiser_gib"] + row["kept_for_the_gradient_gib"]
        assert row["sum_gib"] == pytest.approx(parts, abs=0.011)
    assert {row["recipe"] for row in record["rows"]} == {"voc/more", "voc/afa"}
