"""The sweep over backbone names tells a trained step, a refusal and a crash apart."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from tests.docs.blocks import ROOT


@pytest.fixture(scope="module")
def sweep():
    spec = importlib.util.spec_from_file_location("sweep_backbones", ROOT / "tools" / "sweep_backbones.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.mark.parametrize(
    ("name", "end", "said"),
    [
        ("test_vit", "trained", ""),
        ("vit:patch=8,dim=24,depth=1,heads=1,size=8", "trained", ""),
        ("test_vit_relpos", "refused", "it is a VisionTransformerRelPos"),
        ("test_vitt", "refused", "Did you mean"),
        ("", "refused", "no backbone named"),
    ],
)
def test_a_name_ends_in_a_step_or_a_line(sweep, name, end, said):
    found = sweep.ending(name, "any", "mctformer")
    assert found.end == end, found.said
    assert said in found.said


def test_a_crash_is_no_refusal(sweep, monkeypatch):
    monkeypatch.setattr(sweep, "create_method", lambda *args, **settings: [][0])
    found = sweep.ending("test_vit", "beit", "more")
    assert (found.end, found.said) == ("crashed", "IndexError: list index out of range")
    assert sweep.table([found])["beit"] == {"trained": 0, "refused": 0, "crashed": 1}


def test_two_of_every_kind_of_name_are_taken(sweep):
    assert sweep.kind("vit_small_patch16_224") == sweep.kind("vit_base_patch8_224")
    assert sweep.kind("vit_base_patch16_siglip_224") != sweep.kind("vit_base_patch16_224")
