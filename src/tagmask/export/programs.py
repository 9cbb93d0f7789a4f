"""A model for QGIS' plugin Deepness and for X-AnyLabeling: an ONNX file, and what they want beside it.

What is written follows the two programs' own rules. Deepness reads class names and tiles from the file's
metadata, and one output of class probabilities. X-AnyLabeling reads a YAML file, and with the type
``rfdetr_seg`` boxes, logits and masks; here every class has one of each.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from pydantic import Field
from torch import Tensor, nn

from tagmask.config import Config
from tagmask.errors import CheckpointError, ConfigError, one_line
from tagmask.export.module import SMALLEST, TakeAway
from tagmask.export.write import metadata_of, need, quiet, run_onnx, write_onnx
from tagmask.models.trained import Trained
from tagmask.store.files import atomic_write

__all__ = ["ProgramConfig", "export_for"]

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_NEVER = -20.0
_TOLERANCE = 1e-3


class ProgramConfig(Config):
    """What a program shall get."""

    program: Literal["deepness", "x-anylabeling"]
    """The program."""
    side: int = Field(default=512, ge=SMALLEST, le=4096)
    """Side of the square pictures or tiles that the file takes, in pixels."""
    resolution: float | None = Field(default=None, gt=0)
    """Deepness: centimetres a pixel of the images that the model was trained on."""
    overlap: int = Field(default=15, ge=0, le=50)
    """Deepness: percent of a tile's side that neighbouring tiles share."""
    confidence: float = Field(default=0.3, ge=0, lt=1)
    """X-AnyLabeling: a class appears if its pixels are this sure on average."""


class _Probabilities(nn.Module):
    """RGB in [0, 1] to probabilities of background and classes, (1, K + 1, S, S)."""

    outputs = ("probabilities",)

    def __init__(self, model: TakeAway) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return (_scores(self.model, images).softmax(1),)


class _Shapes(nn.Module):
    """Normalised RGB to one box, one row of logits and one mask a class.

    Boxes are (centre x, centre y, width, height) as shares; the logits of a class that is not there are far
    below 0; masks are above 0 inside.
    """

    outputs = ("dets", "labels", "masks")

    def __init__(self, model: TakeAway) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        pixels = (images * self.get_buffer("std") + self.get_buffer("mean")).clamp(0, 1)
        probs = _scores(self.model, pixels).softmax(1)
        best = probs.argmax(1, keepdim=True)
        count = probs.shape[1] - 1
        inside = (best == torch.arange(1, count + 1).view(1, -1, 1, 1)).float()
        area = inside.sum((2, 3))
        sure = ((probs[:, 1:] * inside).sum((2, 3)) / area.clamp_min(1)).clamp(1e-4, 1 - 1e-4)
        there = torch.where(area > 0, (sure / (1 - sure)).log(), torch.full_like(sure, _NEVER))
        # Column 0 is nobody's: the program takes as many answers as there are classes, and wants more cells.
        cells = torch.cat([torch.zeros(count, 1), torch.eye(count)], 1)
        logits = torch.where(cells > 0, there.unsqueeze(2), torch.full((1, 1, 1), _NEVER))
        return _boxes(inside), logits, inside - 0.5


def _boxes(inside: Tensor) -> Tensor:
    """Boxes around masks (1, K, S, S) of 0 and 1, as shares of the side, (1, K, 4)."""
    side = inside.shape[-1]
    places = torch.arange(side, dtype=torch.float32)
    ends = []
    for axis in (2, 3):  # over rows: columns that are used, and the other way round
        used = inside.amax(axis)
        last = (used * (places + 1)).amax(2)
        first = side - (used * (side - places)).amax(2)
        ends.append((first, last))
    (left, right), (top, bottom) = ends
    return torch.stack([left + right, top + bottom, 2 * (right - left), 2 * (bottom - top)], 2) / (2 * side)


def _scores(model: TakeAway, images: Tensor) -> Tensor:
    scores: Tensor = dict(zip(model.outputs, model(images), strict=True))["scores"]
    return scores.float()


def export_for(config: ProgramConfig, trained: Trained, out: Path) -> dict[str, Any]:
    """Write a model for one of the programs, after comparing the file with PyTorch.

    Args:
        config: For which, and how.
        trained: The model; its method segments.
        out: The ONNX file; for X-AnyLabeling a YAML file of the same name appears beside it.

    Returns:
        "files" that were written, "outputs", and the largest difference as "check".

    Raises:
        ConfigError: The ending is another one, the extra is missing, or the method does not segment.
        CheckpointError: The model cannot be exported, or the file differs; nothing is left behind then.
    """
    if out.suffix != ".onnx":
        raise ConfigError(f"--out {out}: {config.program} reads .onnx files; rename it")
    need("onnx", "onnxscript", "onnxruntime")
    if not trained.method.segments:
        raise ConfigError(
            f"{config.program} needs scores of every pixel's class, and {trained.name} does not segment; "
            "export the segmenter that was trained on its labels"
        )
    if trained.reading is not None and trained.reading.channels != 3:
        raise ConfigError(
            f"{config.program} gives red, green and blue, and {trained.name} wants "
            f"{trained.reading.channels} bands; leave out --for and run the file yourself"
        )
    core = TakeAway(trained.method, (), 0.5).eval()
    model = (_Probabilities(core) if config.program == "deepness" else _Shapes(core)).eval()
    notes = _deepness(config, trained) if config.program == "deepness" else {}
    notes["tagmask"] = json.dumps({**metadata_of(trained, core), "outputs": list(model.outputs)})
    with atomic_write(out, CheckpointError) as target, quiet():
        try:
            example = torch.rand(1, 3, config.side, config.side, generator=torch.Generator().manual_seed(0))
            program = torch.export.export(model, (example,), strict=False)
            write_onnx(program, model.outputs, notes, target)
            check = _difference(model, run_onnx(target), config.side)
        except (RuntimeError, ValueError, TypeError, torch.onnx.errors.OnnxExporterError) as error:
            raise CheckpointError(
                f"{trained.name} with this network cannot be exported at {config.side} pixels: "
                f"{one_line(error)}"
            ) from None
        if not check <= _TOLERANCE:
            raise CheckpointError(f"the file differs from PyTorch by {check:.2g}; it was not kept")
    files = [out]
    if config.program == "x-anylabeling":
        files.append(out.with_suffix(".yaml"))
        with atomic_write(files[-1], CheckpointError) as target:
            text = yaml.safe_dump(_x_anylabeling(config, trained, out), sort_keys=False, allow_unicode=True)
            target.write_text(text, encoding="utf-8")
    return {"files": files, "outputs": model.outputs, "check": check}


def _deepness(config: ProgramConfig, trained: Trained) -> dict[str, str]:
    """Metadata as the plugin reads them: JSON texts, classes by their channel without a gap."""
    labels = trained.classes.labels[: trained.classes.num_classes + 1]
    values: dict[str, Any] = {
        "model_type": "Segmentor",
        "class_names": {str(number): name for number, name in enumerate(labels)},
        "tile_size": config.side,
        "tiles_overlap": config.overlap,
        "seg_thresh": 0.0,
        "seg_small_segment": 0,
    }
    values |= {} if config.resolution is None else {"resolution": config.resolution}
    return {name: json.dumps(value) for name, value in values.items()}


def _x_anylabeling(config: ProgramConfig, trained: Trained, out: Path) -> Mapping[str, Any]:
    names = trained.classes.names
    return {
        "type": "rfdetr_seg",
        "name": f"tagmask-{out.stem}",
        "provider": "tagmask",
        "display_name": f"tagmask {out.stem}",
        "model_path": out.name,
        "conf_threshold": config.confidence,
        "num_select": len(names),
        "input_width": config.side,
        "input_height": config.side,
        "show_boxes": False,
        "classes": dict(enumerate(names, start=1)),
    }


@torch.no_grad()
def _difference(model: nn.Module, run: Callable[[Tensor], list[Tensor]], side: int) -> float:
    """Largest difference between the file and PyTorch; of what depends on single pixels their share."""
    images = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(1))
    worst = 0.0
    for want, got in zip(model(images), run(images), strict=True):
        if want.shape != got.shape:
            raise ValueError(f"an output is {tuple(got.shape)}, not {tuple(want.shape)}")
        shares = want.dim() == 4 and isinstance(model, _Shapes)
        away = (want != got).float().mean() if shares else (want - got).abs().max()
        # One pixel that falls the other way moves a box by a pixel.
        slack = 2 / side if want.dim() == 3 else 0.0
        worst = max(worst, float(away) - slack)
    return max(worst, 0.0)
