"""What a notebook shows of a model and of a run."""

from __future__ import annotations

from pathlib import Path

from tagmask.methods import create_method
from tagmask.model import Model
from tagmask.pipeline.outcome import Run


def test_a_model_says_what_it_is():
    shape = "vit:patch=8,dim=32,depth=2,heads=2,size=64"
    method = create_method("more", num_classes=2, backbone=shape, aux_block=-2, scales=[1.0])
    model = Model.from_method(method, ["cat", "<dog>"])
    assert repr(model) == "Model(more, 2 classes, cpu)"
    text = model._repr_html_()
    assert "&lt;dog&gt;" in text
    assert "<dog>" not in text
    assert "more" in text


def test_a_run_says_what_it_did(tmp_path):
    told = {"level": "usable", "lines": ["a < b"], "advice": "take masks/", "next": "tagmask review r"}
    results = {
        "train": {"iterations": 3, "loss": 0.123456},
        "evaluate": {"segmentation": 0.6},
        "verdict": told,
    }
    run = Run(Path(tmp_path), results)
    assert repr(run).endswith("train, evaluate, verdict, segmentation 60.0 mIoU)")
    text = run._repr_html_()
    assert "usable" in text
    assert "a &lt; b" in text
    assert "loss 0.1235" in text
    assert "Report" not in text
    (tmp_path / "report.html").write_text("x")
    assert "report.html" in run._repr_html_()
