from __future__ import annotations

import pytest

from tagmask.errors import ConfigError
from tagmask.pipeline.config import RunConfig, read_config
from tagmask.recipes import find_recipe, names


@pytest.mark.parametrize("name", names())
def test_shipped_recipes_fit_their_method(name):
    config = read_config(name)
    assert isinstance(config, RunConfig)
    text = find_recipe(name).read_text(encoding="utf-8")
    assert text.startswith("# "), "a recipe begins by saying what it is"


def test_later_values_win():
    config = read_config("voc/more", {"train.iterations": 5}, ["train.iterations=7"])
    assert config.train.iterations == 7
    assert config.train.size == 448
    assert config.model_dump()["data"]["kind"] == "voc"


def test_unknown_recipe_names_the_nearest():
    with pytest.raises(ConfigError, match="'voc/more'"):
        read_config("voc/mor")


def test_a_folder_that_bears_a_recipes_name_by_chance_is_not_in_the_way(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small").mkdir()
    (tmp_path / "other").mkdir()
    assert read_config("small") == read_config(find_recipe("small"))
    with pytest.raises(ConfigError, match="other is neither a run folder"):
        read_config("other")
