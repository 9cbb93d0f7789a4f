"""The command line. Heavy imports happen inside commands: ``--help`` and ``list`` load no PyTorch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from tagmask import __version__, _cli_data, _cli_film
from tagmask._cli_common import (
    Backbone,
    BatchSize,
    Checkpoint,
    Classes,
    Data,
    Device,
    Iterations,
    Kind,
    Masks,
    MethodName,
    Out,
    Precision,
    Recipe,
    Seed,
    Set,
    Size,
    Split,
    Tags,
    Weights,
    as_text,
    compute_flags,
    data_flags,
    guarded,
    print_scores,
    show_line,
    split_flags,
)
from tagmask.errors import ConfigError

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Image tags into pixel masks: weakly supervised semantic segmentation.",
)
app.add_typer(_cli_data.app, name="data")
app.command()(_cli_film.animate)

RunFolder = Annotated[Path, typer.Argument(help="Run folder, or a model folder together with --out.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an unfinished training.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a training in the run folder.")]


@app.command()
@guarded
def train(
    data: Data = None,
    tags: Tags = None,
    classes: Classes = None,
    masks: Masks = None,
    kind: Kind = None,
    split: Split = None,
    method: MethodName = None,
    backbone: Backbone = None,
    weights: Weights = None,
    size: Size = None,
    iterations: Iterations = None,
    batch_size: BatchSize = None,
    device: Device = None,
    precision: Precision = None,
    seed: Seed = None,
    recipe: Recipe = None,
    out: Out = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    settings: Set = None,
) -> None:
    """Learn from images and their tags."""
    flags = data_flags(data, tags, classes, masks, kind) | compute_flags(device, precision, seed)
    flags |= {"data.split": split, "method": method, "model.backbone": backbone, "model.weights": weights}
    flags |= {"train.size": size, "train.iterations": iterations, "train.batch_size": batch_size}
    base = recipe or (str(out) if resume and out is not None else None)
    folder = _go(base, flags, settings, out, ("train",), resume=resume, overwrite=overwrite)
    show_line(f"model: {folder / 'model'}")


@app.command()
@guarded
def localize(
    run: RunFolder,
    data: Data = None,
    tags: Tags = None,
    classes: Classes = None,
    kind: Kind = None,
    split: Split = None,
    maps: Annotated[str | None, typer.Option("--maps", help="Kinds of maps, separated by commas.")] = None,
    size: Annotated[int | None, typer.Option("--size", help="Side of the square images become.")] = None,
    device: Device = None,
    precision: Precision = None,
    out: Out = None,
    settings: Set = None,
) -> None:
    """Images and tags to class maps on disk."""
    flags = data_flags(data, tags, classes, None, kind) | compute_flags(device, precision, None)
    flags |= {"localize.size": size, "localize.kinds": maps.split(",") if maps else None}
    flags |= split_flags(split, "localize")
    folder = _go(str(run), flags, settings, out, ("localize",))
    show_line(f"maps: {folder / 'maps'}")


@app.command()
@guarded
def refine(
    run: RunFolder,
    method: Annotated[str | None, typer.Option("--method", help="par, crf or none.")] = None,
    maps: Annotated[str | None, typer.Option("--maps", help="Kind of maps to start from.")] = None,
    background: Annotated[float | None, typer.Option("--background", help="One threshold.")] = None,
    crf: Annotated[str | None, typer.Option("--crf", help="Parameters of the CRF by name.")] = None,
    data: Data = None,
    kind: Kind = None,
    split: Split = None,
    device: Device = None,
    settings: Set = None,
) -> None:
    """Class maps on disk to pseudo labels on disk."""
    flags = data_flags(data, None, None, None, kind) | compute_flags(device, None, None)
    flags |= {
        "refine.method": method,
        "refine.maps": maps,
        "refine.background": background,
        "refine.crf": crf,
    }
    folder = _go(str(run), flags | split_flags(split, "refine"), settings, None, ("refine",))
    show_line(f"labels: {folder / 'labels'}")


@app.command()
@guarded
def segment(
    run: RunFolder,
    data: Data = None,
    kind: Kind = None,
    split: Split = None,
    tags: Tags = None,
    classes: Classes = None,
    size: Annotated[int | None, typer.Option("--size", help="Side of the square images become.")] = None,
    scales: Annotated[str | None, typer.Option("--scales", help="Resize factors, with commas.")] = None,
    flip: Annotated[bool, typer.Option("--flip", help="Add the mirrored view.")] = False,
    crf: Annotated[str | None, typer.Option("--crf", help="Clean masks by this CRF.")] = None,
    device: Device = None,
    precision: Precision = None,
    out: Out = None,
    settings: Set = None,
) -> None:
    """Images to masks."""
    flags = data_flags(data, tags, classes, None, kind) | compute_flags(device, precision, None)
    flags |= {
        "segment.size": size,
        "segment.scales": scales.split(",") if scales else None,
        "segment.crf": crf,
    }
    flags |= {"segment.flip": "sum" if flip else None, **split_flags(split, "segment")}
    folder = _go(str(run), flags, settings, out, ("segment",))
    show_line(f"masks: {folder / 'masks'}")


@app.command()
@guarded
def evaluate(
    run: RunFolder,
    what: Annotated[str | None, typer.Option("--what", help="cam, lam, fused, label, ...")] = None,
    background: Annotated[
        str | None, typer.Option("--background", help="Threshold of the maps, or 'best' (an oracle).")
    ] = None,
    data: Data = None,
    masks: Masks = None,
    kind: Kind = None,
    split: Split = None,
    settings: Set = None,
) -> None:
    """Score maps, labels and masks on disk against true masks."""
    flags = data_flags(data, None, None, masks, kind) | split_flags(split, "evaluate")
    flags |= {"evaluate.what": what.split(",") if what else None, "evaluate.background": background}
    _go(str(run), flags, settings, None, ("evaluate",))


@app.command()
@guarded
def report(run: RunFolder, settings: Set = None) -> None:
    """Write one page about a run."""
    folder = _go(str(run), {}, settings, None, ("report",))
    show_line(f"report: {folder / 'report.html'}")


@app.command()
@guarded
def run(
    recipe: Annotated[str, typer.Argument(help="Shipped recipe, a YAML file, or a run folder.")],
    data: Data = None,
    tags: Tags = None,
    classes: Classes = None,
    masks: Masks = None,
    kind: Kind = None,
    backbone: Backbone = None,
    weights: Weights = None,
    checkpoint: Checkpoint = None,
    iterations: Iterations = None,
    batch_size: BatchSize = None,
    size: Size = None,
    device: Device = None,
    precision: Precision = None,
    seed: Seed = None,
    out: Out = None,
    until: Annotated[str | None, typer.Option("--until", help="Last step to do.")] = None,
    first: Annotated[str | None, typer.Option("--from", help="First step to do.")] = None,
    overwrite: Overwrite = False,
    settings: Set = None,
) -> None:
    """The whole journey, from train to report. Steps that are done are not done again."""
    from tagmask.pipeline import choose_steps

    flags = data_flags(data, tags, classes, masks, kind) | compute_flags(device, precision, seed)
    flags |= {"model.backbone": backbone, "model.weights": weights, "checkpoint": as_text(checkpoint)}
    flags |= {"train.size": size, "train.iterations": iterations, "train.batch_size": batch_size}
    folder = _go(recipe, flags, settings, out, choose_steps(until, first), overwrite=overwrite)
    if (folder / "report.html").exists():
        show_line(f"report: {folder / 'report.html'}")


@app.command()
@guarded
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for data and run.")] = Path("tagmask-demo"),
    device: Device = None,
    seed: Seed = None,
    settings: Set = None,
) -> None:
    """The journey on generated scenes: no download, no GPU, a few minutes."""
    from tagmask.pipeline import STEPS
    from tagmask.stages.scenes import make_scenes

    images = make_scenes(out / "data")
    flags = {"data.root": str(images)} | compute_flags(device, None, seed)
    folder = _go("demo", flags, settings, out / "run", STEPS)
    show_line(f"report: {(folder / 'report.html').resolve()}")


@app.command("list")
@guarded
def list_all() -> None:
    """Methods, kinds of data, recipes."""
    from tagmask import data, methods, recipes

    for title, names in (
        ("methods", methods.names()),
        ("kinds of data", data.names()),
        ("recipes", recipes.names()),
    ):
        show_line(f"{title}: {', '.join(names)}")


@app.command()
@guarded
def show(name: Annotated[str, typer.Argument(help="A method, a recipe, or 'settings'.")]) -> None:
    """Explain a method and its settings, print a recipe, or list every setting of a run."""
    from tagmask._cli_show import describe

    show_line(describe(name))


@app.command()
@guarded
def version() -> None:
    """Versions of tagmask and of what it stands on."""
    from importlib.metadata import version as installed

    show_line(f"tagmask {__version__}")
    for package in ("torch", "torchvision", "timm", "accelerate"):
        show_line(f"{package} {installed(package)}")


def main() -> None:
    """Entry point of the ``tagmask`` command."""
    app()


def _go(
    base: str | None,
    flags: dict[str, Any],
    settings: list[str] | None,
    out: Path | None,
    steps: tuple[str, ...],
    resume: bool = True,
    overwrite: bool = False,
) -> Path:
    """Settings from everywhere, then the steps, then their scores."""
    from tagmask.engine.log import Display
    from tagmask.pipeline import run as run_steps
    from tagmask.runconfig import read_config

    config = read_config(base, flags, settings or ())
    folder = out or _default_folder(base, config.method)
    result = run_steps(config, folder, steps, resume=resume, overwrite=overwrite, display=Display())
    if "evaluate" in result.results:
        files = sorted((folder / "scores").glob("*.json"))
        print_scores(result.scores, [json.loads(file.read_text(encoding="utf-8")) for file in files])
    return folder


def _default_folder(base: str | None, method: str) -> Path:
    if base is not None and (Path(base) / "settings.yaml").is_file():
        return Path(base)
    if base is not None and Path(base).is_dir():
        raise ConfigError(f"{base} is a model folder; say where the results go: --out DIR")
    name = method if base is None else Path(base).with_suffix("").as_posix().strip("./").replace("/", "-")
    return Path("runs") / name
