"""Options of the segmentation views belong to methods; what older runs and recipes say is still read."""

from __future__ import annotations

import warnings

import pytest

from tagmask import methods, recipes
from tagmask.errors import ConfigError
from tagmask.inference.given_views import UNUSED, GivenViews, views_of
from tagmask.inference.use import remembered_use
from tagmask.methods.afa import AFA, AFAViews
from tagmask.methods.base import SegmentationViews
from tagmask.methods.more import MoRe
from tagmask.methods.segmenter import Segmenter, SegmenterViews
from tagmask.pipeline.config import read_config, write_settings
from tagmask.steps.base import plain
from tagmask.steps.segment import SEGMENT

COMMON = set(SegmentationViews.model_fields)


@pytest.mark.parametrize("name", recipes.names())
def test_a_recipe_holds_the_options_of_its_segmenter_and_no_others(name):
    config = read_config(name)
    kind = methods.get((config.student or config).method)
    kept = {key for key in config.segment.model_dump() if key in {*COMMON, *UNUSED}}
    assert not kind.segments or kept == set(kind.views_class.model_fields)
    assert config.segment.settled(kind) == config.segment


def test_settings_survive_a_run_folder(tmp_path):
    config = read_config("voc/weaktr", {"segment.window_batch": 2})
    write_settings(config, tmp_path)
    assert read_config(tmp_path) == config
    assert config.segment.of(Segmenter).plan((100, 200)).window == (480, 320, 2)


def test_settings_of_version_0_1_are_read_whatever_the_method():
    old = {**UNUSED, "size": None, "scales": [1.0], "flip": "sum"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("more", "afa"):
            config = read_config(None, {"method": name, "segment": old, "train.eval_segment": old})
            assert config.segment.flip == "sum"
            assert config.train.eval_segment.of(methods.get(name)) == config.segment.of(methods.get(name))
    assert "window" not in read_config(None, {"segment": old}).segment.model_dump()


def test_records_of_steps_are_those_of_version_0_1():
    config = read_config("small")
    noted = SEGMENT.decides(config.segment, config)
    assert {key: noted[key] for key in UNUSED} == UNUSED
    train = read_config("voc/weaktr").student.train
    assert plain(train)["eval_segment"].keys() == {*COMMON, *UNUSED}
    assert plain(train)["eval_segment"]["window"] == 480
    assert plain(train)["eval_segment"]["long_side"] is None


def test_options_of_another_method_still_work_and_warn():
    with pytest.warns(FutureWarning, match="long_side is now an option of AFAViews alone"):
        views = views_of(MoRe, {"long_side": 64, "scales": (1.0, 2.0)})
    assert views.plan((100, 50)).first == (64, 32)
    assert views.plan((100, 50)).sizes == ((64, 32), (128, 64))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"segment.scale": [1.0]}, "segment: unknown key 'scale'.*scales"),
        ({"segment.spilt": "val"}, "segment: unknown key 'spilt'.*split"),
        ({"train.eval_segment": {"sises": 64}}, "train.eval_segment: unknown key 'sises'"),
        ({"method": "afa", "segment.long_side": 3}, "segment: 'long_side'.*16"),
        ({"segment": {"long_side": 64, "window": 64}}, "segment: unknown key 'long_side'"),
    ],
)
def test_wrong_options_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        read_config(None, settings)


def test_windows_must_overlap():
    with pytest.raises(ConfigError, match="window_stride 65 leaves gaps; at most 64, the window"):
        GivenViews(window=64, window_stride=65).of(Segmenter)
    assert SegmenterViews(window=60).plan((100, 100)).window == (60, 40, 4)


def test_plans_say_what_the_papers_do():
    afa = AFAViews(long_side=512, scales=(1.0, 0.5), sampling="factors", merge_at="logits").plan((375, 500))
    assert (afa.first, afa.sizes) == ((384, 512), ((384, 512), (192, 256)))
    assert afa.factors == (1.0, 0.5)
    assert afa.at_logits
    weaktr = SegmenterViews(short_side=520, scales=(1.0, 0.5), sampling="opencv", exits=(0.8, 1.0))
    assert weaktr.plan((375, 500)).sizes == ((520, 693), (260, 347))
    assert weaktr.plan((375, 500)).exits == (0.8, 1.0)
    assert SegmentationViews(size=448, scales=(1.0, 1.25)).plan((375, 500)).sizes == ((448, 448), (560, 560))


def test_a_saved_model_remembers_its_own_views():
    header = {"method": "afa", "extra": {"use": {"segment": {**UNUSED, "long_side": 512, "split": "val"}}}}
    assert remembered_use(header).views == AFAViews(long_side=512)
    assert type(remembered_use({}).views) is SegmentationViews
    assert AFA.views_class is AFAViews
