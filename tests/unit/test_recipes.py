from __future__ import annotations

import pytest

from tagmask.errors import ConfigError
from tagmask.recipes import find_recipe, names
from tagmask.runconfig import RunConfig, read_config


@pytest.mark.parametrize("name", names())
def test_shipped_recipes_fit_their_method(name):
    config = read_config(name)
    assert isinstance(config, RunConfig)
    text = find_recipe(name).read_text(encoding="utf-8")
    assert text.startswith("# "), "a recipe begins by saying what it is"


def test_later_values_win():
    config = read_config("voc/more", {"train.iterations": 5, "train.size": None}, ["train.iterations=7"])
    assert config.train.iterations == 7
    assert config.train.size == 448
    assert config.model_dump()["data"]["kind"] == "voc"


def test_unknown_recipe_names_the_nearest():
    with pytest.raises(ConfigError, match="'voc/more'"):
        read_config("voc/mor")
