from __future__ import annotations

import logging

from tagmask.pipeline.config import read_config


def test_a_shorter_run_keeps_the_share_of_each_phase(caplog):
    full = read_config("demo")
    with caplog.at_level(logging.INFO, "tagmask"):
        short = read_config("demo", {"train.iterations": full.train.iterations // 10})
    assert short.model["seg_from"] == full.model["seg_from"] // 10
    assert "model.seg_from" in caplog.text
    afa = read_config("voc/afa", {"train.iterations": 200}).model
    assert (afa["tags_until"], afa["walk_after"], afa["warmup"]) == (20, 60, 15)


def test_what_was_set_and_what_grows_stays():
    assert read_config("demo", {"train.iterations": 10}, ["model.seg_from=7"]).model["seg_from"] == 7
    longer = read_config("demo", {"train.iterations": 100000})
    assert longer.model == read_config("demo").model
