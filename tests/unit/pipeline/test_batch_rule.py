"""The rate of DeiT's descendants follows the batch, by their papers' rule rate x batch / 512."""

import pytest

from tagmask.methods import get
from tagmask.pipeline.config import read_config, write_settings


def rate(*where, **settings):
    config = read_config(*where, {"train." + key: value for key, value in settings.items()})
    return config.model.get("lr")


@pytest.mark.parametrize(
    ("recipe", "usual", "batch"),
    [("voc/mctformer", 6.25e-5, 64), ("voc/mctformer-plus", 3.125e-5, 32), ("voc/weaktr", 7.5e-5, 64),
     ("coco/weaktr", 2.5e-5, 64), ("voc/aream-mctformer", 6.25e-5, 64)],
)  # fmt: skip
def test_a_changed_batch_changes_the_rate(recipe, usual, batch, caplog):
    plain = read_config(recipe)
    assert plain.train.batch_size == batch
    assert not caplog.records
    assert rate(recipe, batch_size=16) == pytest.approx(usual * 16 / batch)
    assert "rate x batch / 512" in caplog.text
    method = get(plain.method)
    assert method.batch_rule(method.config_class(**plain.model)) == (pytest.approx(usual), batch)


def test_without_a_recipe_the_paper_s_batch_counts():
    given = {"method": "mctformer", "train.batch_size": 32}
    assert read_config(None, given).model["lr"] == pytest.approx(6.25e-5 / 2)
    assert "lr" not in read_config(None, {"method": "mctformer"}).model


@pytest.mark.parametrize("recipe", ["voc/more", "voc/afa", "voc/psa", "voc/transcam", "voc/aream-conformer"])
def test_papers_without_the_rule_keep_their_rate(recipe):
    before = read_config(recipe)
    after = read_config(recipe, {"train.batch_size": before.train.batch_size * 2})
    assert after.model == before.model


def test_a_rate_that_was_set_stays_and_a_run_goes_on_with_its_own(tmp_path):
    own = read_config("voc/mctformer", {"train.batch_size": 16, "model.lr": 1e-3})
    assert own.model["lr"] == 1e-3
    changed = read_config("voc/mctformer", {"train.batch_size": 16})
    write_settings(changed, tmp_path)
    again = read_config(tmp_path, {"train.batch_size": 16})
    assert again.model["lr"] == changed.model["lr"]
    assert read_config(tmp_path, {"train.batch_size": 32}).model["lr"] == pytest.approx(6.25e-5 / 2)
