"""A run that an older version finished is still known to be done."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tagmask.data.parts import Parts
from tagmask.engine.log import Display
from tagmask.pipeline.config import read_config, with_absolute_paths
from tagmask.pipeline.order import ALL_STEPS
from tagmask.steps.base import Context, data_checksum
from tagmask.steps.models import Models
from tests.toy import toy_root

OLDER = Path(__file__).parent / "older"
"""Settings and manifest of a run of version 0.1.0, commit 3700d61, on the toy data set."""


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    folder = tmp_path_factory.mktemp("older")
    data = toy_root(folder)
    for path in data.rglob("*"):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    run = folder / "run"
    run.mkdir()
    shutil.copy(OLDER / "run.json", run)
    text = (OLDER / "settings.yaml").read_text().replace("DATA", str(data))
    (run / "settings.yaml").write_text(text)
    config = with_absolute_paths(read_config(run))
    parts = Parts(config.data)
    runtime = config.runtime.create()
    return Context(run, runtime, Display(quiet=True), parts, config, Models(config, run, parts), out=run)


def asked(context, name):
    step = ALL_STEPS[name]
    section = getattr(context.settings, name)
    inputs = dict(context.manifest.steps[name]["inputs"])
    # The files themselves are not kept here, but the data is the same.
    if "data" in inputs:
        inputs["data"] = data_checksum(context, getattr(section, "split", "train"))
    if "truth" in inputs:
        inputs["truth"] = data_checksum(context, section.split, masks=True)
    usual = type(section)()
    settings, defaults = (step.decides(part, context.settings) for part in (section, usual))
    return name, settings, inputs, defaults, step.free


@pytest.mark.parametrize("name", ["train", "localize", "refine", "segment", "evaluate", "report"])
def test_settings_and_data_of_an_older_run_are_the_same(context, name):
    manifest = context.manifest
    assert manifest.steps[name]["status"] == "done"
    assert manifest.same_work(*asked(context, name))
    name, settings, *rest = asked(context, name)
    assert not manifest.same_work(name, {**settings, "other": 1}, *rest)


def test_outputs_of_an_older_run_are_known_as_wholes(context, tmp_path):
    run = shutil.copytree(context.folder, tmp_path / "run")
    from tagmask.store.manifest import Manifest

    assert Manifest(run).differences("refine") == {"labels": "missing"}
    (run / "labels").mkdir()
    (run / "labels" / "00012.png").write_bytes(b"other")
    assert Manifest(run).differences("refine") == {"labels": "changed"}
    assert Manifest(run).on_disk("maps") is None
