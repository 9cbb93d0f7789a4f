"""A trained model as one file that needs no tagmask: ONNX or torch.export, checked against PyTorch."""

from __future__ import annotations

import json
import logging
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from tagmask import __version__
from tagmask.config import Config
from tagmask.errors import CheckpointError, ConfigError, one_line
from tagmask.export.module import SMALLEST, TakeAway
from tagmask.inference.predictor import remembered_use
from tagmask.models.trained import Trained
from tagmask.store.files import atomic_write

__all__ = [
    "ExportConfig",
    "export_model",
    "metadata_of",
    "need",
    "quiet",
    "read_metadata",
    "run_onnx",
    "write_onnx",
]

_SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}
_LARGEST = 16384
_EXAMPLE = (2, 72, 104)
_KEY = "tagmask"


class ExportConfig(Config):
    """What the file shall hold and how it is checked."""

    format: Literal["onnx", "torch"] = "onnx"
    """ONNX for any runtime, or torch.export's archive (.pt2) for PyTorch without tagmask."""
    maps: tuple[str, ...] | None = None
    """Kinds of class maps among the outputs; the method's first if not given, none if empty."""
    tolerance: float = Field(default=1e-4, gt=0)
    """Largest difference from PyTorch at which the file is kept, relative to the largest value above 1."""
    check_sizes: tuple[tuple[int, int], ...] = ((64, 64), (96, 64), (75, 130))
    """(height, width) of the random images the file is compared on; the first also as a batch of one."""


def export_model(config: ExportConfig, trained: Trained, out: Path) -> dict[str, Any]:
    """Write a model to a file, after comparing what the file says with what PyTorch says.

    Args:
        config: Format, outputs, check.
        trained: The model.
        out: The file; its ending is .onnx or .pt2.

    Returns:
        The metadata the file carries, with the largest difference of every output in "check".

    Raises:
        ConfigError: The ending is another one, the extra is missing, or there is nothing to export.
        CheckpointError: The model cannot be traced, or the file differs; nothing is left behind then.
    """
    if out.suffix != _SUFFIXES[config.format]:
        ending = _SUFFIXES[config.format]
        raise ConfigError(f"--out {out}: {config.format} files end in {ending}; rename it or give --format")
    if config.format == "onnx":
        need("onnx", "onnxscript", "onnxruntime")
    use = remembered_use(trained.meta)
    kinds = config.maps if config.maps is not None else (use.maps.kinds or trained.method.map_kinds)[:1]
    reading = trained.reading
    channels, ends = (3, None) if reading is None else (reading.channels, reading.fixed)
    model = TakeAway(trained.method, kinds, use.background, channels, ends).eval()
    metadata = metadata_of(trained, model)
    with atomic_write(out, CheckpointError) as target:
        write, run = (write_onnx, run_onnx) if config.format == "onnx" else (_write_torch, _run_torch)
        with quiet():
            try:
                write(_traced(model), model.outputs, {_KEY: json.dumps(metadata)}, target)
                check = _compare(model, run(target), config.check_sizes)
            except (RuntimeError, ValueError, TypeError, torch.onnx.errors.OnnxExporterError) as error:
                raise CheckpointError(
                    f"{trained.name} with this network cannot be exported to {config.format}: "
                    f"{one_line(error)}"
                ) from None
        differing = [found for found in check if not found.difference <= config.tolerance]
        if differing:
            # NaN, which compares with nothing, is the worst.
            worst = max(differing, key=lambda found: (found.difference != found.difference, found.difference))
            names = ", ".join(dict.fromkeys(found.output for found in differing))
            raise CheckpointError(
                f"the {config.format} file differs from PyTorch in {names}: '{worst.output}' by "
                f"{worst.difference:.2g} for {worst.batch} image{'s' * (worst.batch > 1)} of "
                f"{worst.size[0]} x {worst.size[1]} pixels, allowed is {config.tolerance:g}; it was not kept"
            )
    largest = {name: max(f.difference for f in check if f.output == name) for name in model.outputs}
    return {**metadata, "check": largest}


def read_metadata(path: Path) -> dict[str, Any]:
    """Classes, colours, settings and outputs that an exported file carries.

    Raises:
        CheckpointError: The file is damaged or was not written by `export_model`.
        ConfigError: Reading .onnx files needs the extra.
    """
    try:
        if path.suffix == ".onnx":
            need("onnxruntime")
            text = _session(path).get_modelmeta().custom_metadata_map.get(_KEY)
        else:  # a zip archive: building the whole program to read a note would take seconds
            with zipfile.ZipFile(path) as archive:
                (note,) = (name for name in archive.namelist() if name.endswith(f"/{_KEY}.json"))
                text = archive.read(note).decode()
        return dict(json.loads(text or ""))
    except ConfigError:
        raise
    except Exception as error:
        raise CheckpointError(f"{path} is no exported model of tagmask ({error})") from None


def need(*packages: str) -> None:
    """Refuse to continue without packages of the extra.

    Raises:
        ConfigError: One is missing.
    """
    import importlib.util

    if missing := [name for name in packages if importlib.util.find_spec(name) is None]:
        raise ConfigError(f"ONNX files need {', '.join(missing)}: pip install 'tagmask[onnx]'")


def metadata_of(trained: Trained, model: TakeAway) -> dict[str, Any]:
    """What a file says about itself."""
    return {
        "tagmask": __version__,
        "method": trained.name,
        "classes": list(trained.classes.labels),
        "palette": trained.classes.palette[: trained.classes.num_classes + 1].tolist(),
        "ignore": trained.classes.ignore_index,
        "background": model.background,
        "smallest_side": SMALLEST,
        "input": f"images: {_values(model)}, float32, (batch, {model.channels}, height, width)",
        "pixels": None if trained.reading is None else trained.reading.as_values(),
        "outputs": list(model.outputs),
        "settings": trained.method.config_values(),
        "metrics": dict(trained.meta.get("metrics", {})),
        "weights_sha256": trained.checksum,
    }


def _values(model: TakeAway) -> str:
    if model.levels is not None:
        return "numbers of the bands as they are in the file, NaN without data"
    return "RGB in [0, 1]" if model.channels == 3 else "levels of the bands in [0, 1]"


def _traced(model: TakeAway) -> torch.export.ExportedProgram:
    names = (("batch", 1, 1024), ("height", SMALLEST, _LARGEST), ("width", SMALLEST, _LARGEST))
    batch, height, width = (torch.export.Dim(name, min=low, max=high) for name, low, high in names)
    example = model.sample(*_EXAMPLE, torch.Generator().manual_seed(0))
    # With gradients on, parts of the graph that turn them off become graphs of their own.
    with torch.no_grad():
        program = torch.export.export(
            model,
            (example,),
            dynamic_shapes={"images": {0: batch, 2: height, 3: width}},
            strict=False,
            prefer_deferred_runtime_asserts_over_guards=True,
        )
    # The tracer notes what it took for granted about the example's size, such as that padding makes a tensor
    # larger; some of it does not hold for other sizes, and nothing depends on it: the comparison shows that.
    for node in list(program.graph.nodes):
        if node.target is torch.ops.aten._assert_scalar.default:
            program.graph.erase_node(node)
    program.graph.eliminate_dead_code()
    program.graph_module.recompile()
    return program


def write_onnx(
    program: torch.export.ExportedProgram, outputs: Sequence[str], notes: Mapping[str, str], path: Path
) -> None:
    """Write a traced module.

    Args:
        program: The module.
        outputs: Names of its outputs; its input is "images".
        notes: Metadata of the file.
        path: The file.
    """
    made = torch.onnx.export(
        program,
        (),
        dynamo=True,
        input_names=["images"],
        output_names=list(outputs),
        verbose=False,
        optimize=False,  # runtimes do that themselves, and in a fraction of the time
    )
    if made is None:
        raise RuntimeError("the exporter gave nothing")
    made.model.metadata_props.update(notes)
    made.save(path, external_data=False)


def _write_torch(
    program: torch.export.ExportedProgram, outputs: Sequence[str], notes: Mapping[str, str], path: Path
) -> None:
    torch.export.save(program, path, extra_files={f"{key}.json": text for key, text in notes.items()})


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run_onnx(path: Path) -> Callable[[Tensor], list[Tensor]]:
    """A function that runs an ONNX file on images."""
    session = _session(path)
    return lambda images: [torch.from_numpy(x) for x in session.run(None, {"images": images.numpy()})]


def _run_torch(path: Path) -> Callable[[Tensor], list[Tensor]]:
    module = torch.export.load(path).module()
    return lambda images: list(module(images))


class _Found(NamedTuple):
    """How far a file is from PyTorch in one output for some images."""

    output: str
    batch: int
    size: tuple[int, int]
    difference: float


@torch.no_grad()
def _compare(
    model: TakeAway, run: Callable[[Tensor], list[Tensor]], sizes: Sequence[tuple[int, int]]
) -> list[_Found]:
    """Difference of every output at every size, see `ExportConfig.tolerance`.

    Of labels it is the share of pixels that differ, 0 up to a thousandth: a pixel whose two best scores are
    equal up to rounding may fall either way.
    """
    generator = torch.Generator().manual_seed(1)
    check: list[_Found] = []
    for batch, size in [(1, sizes[0]), *((2, size) for size in sizes)]:
        images = model.sample(batch, *size, generator)
        want, got = model(images), run(images)
        for name, first, second in zip(model.outputs, want, got, strict=True):
            if first.shape != second.shape or first.dtype != second.dtype:
                raise ValueError(
                    f"for {size[0]} x {size[1]} pixels {name} is {second.dtype} {tuple(second.shape)}, not "
                    f"{tuple(first.shape)}"
                )
            if name == "labels":
                found = float((first != second).float().mean())
                found = found if found > 1e-3 else 0.0
            else:
                # Logits far above 1 have rounding errors to match.
                found = float((first - second).abs().max() / first.abs().max().clamp_min(1))
            check.append(_Found(name, batch, size, found))
    return check


@contextmanager
def quiet() -> Iterator[None]:
    """The exporters' chatter is about their own insides."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            for logger, level in zip(loggers, before, strict=True):
                logger.setLevel(level)
