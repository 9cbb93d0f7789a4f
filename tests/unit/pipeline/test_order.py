"""The order of the steps is the order of their sections in the settings."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import tagmask.steps
from tagmask.errors import ConfigError
from tagmask.pipeline.config import RunConfig
from tagmask.pipeline.order import ALL_STEPS, STEPS, choose_steps
from tagmask.steps.base import Step


def test_steps_come_in_the_order_of_a_run():
    assert STEPS == (
        "train", "localize", "refine", "affinity", "walk", "student", "segment", "evaluate", "verdict",
        "report",
    )  # fmt: skip
    assert set(ALL_STEPS) - set(STEPS) == {"entropy", "review"}


def test_every_step_has_one_section_of_its_name():
    modules = [
        importlib.import_module(f"tagmask.steps.{m.name}")
        for m in pkgutil.iter_modules(tagmask.steps.__path__)
    ]
    described = {value.name: value for m in modules for value in vars(m).values() if isinstance(value, Step)}
    assert described == ALL_STEPS
    for name, info in RunConfig.model_fields.items():
        assert [step.name for step in info.metadata if isinstance(step, Step)] in ([], [name])


def test_part_of_a_run():
    assert choose_steps("refine", "localize") == ("localize", "refine")
    with pytest.raises(ConfigError, match="nothing to do from 'segment' until 'refine'"):
        choose_steps("refine", "segment")
    with pytest.raises(ConfigError, match=r"unknown step 'segmnt'.*segment"):
        choose_steps("segmnt")
