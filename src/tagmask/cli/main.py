"""The command line. Heavy imports happen inside commands: ``--help`` and ``list`` load no PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tagmask import __version__
from tagmask.cli import animate, annotate, data, export, predict, serve, steps
from tagmask.cli import app as app_command
from tagmask.cli.common import (
    Backbone,
    BatchSize,
    Checkpoint,
    Classes,
    Data,
    Device,
    Holdout,
    Iterations,
    Kind,
    Masks,
    MethodName,
    Out,
    Overwrite,
    Precision,
    Recipe,
    Seed,
    Set,
    Size,
    Split,
    Tags,
    Tracker,
    Weights,
    as_text,
    compute_flags,
    data_flags,
    guarded,
    holdout_flags,
    show_line,
)
from tagmask.cli.complete import known_recipes, things
from tagmask.cli.manner import HELP, App, considerate
from tagmask.cli.run import do_steps
from tagmask.cli.teach import teach

__all__ = ["app", "main"]

app = App(
    pretty_exceptions_enable=False,
    help="Image tags into pixel masks: weakly supervised semantic segmentation.",
    epilog=HELP,
)
for _name, _group in {"data": data, "annotate": annotate, "serve": serve}.items():
    app.add_typer(_group.app, name=_name)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"tagmask {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option("--version", "-V", help="Print the version.", is_eager=True, callback=_show_version),
    ] = False,
) -> None:
    """Image tags into pixel masks: weakly supervised semantic segmentation."""


LabelFolder = Annotated[
    Path | None, typer.Option("--labels", help="Folder of label images to learn from, NAME.png each.")
]
Resume = Annotated[bool, typer.Option("--resume/--no-resume", help="Resume an unfinished training.")]


@app.command()
@guarded
def train(
    data: Data = None,
    tags: Tags = None,
    classes: Classes = None,
    masks: Masks = None,
    kind: Kind = None,
    split: Split = None,
    holdout: Holdout = None,
    method: MethodName = None,
    backbone: Backbone = None,
    weights: Weights = None,
    labels: LabelFolder = None,
    size: Size = None,
    iterations: Iterations = None,
    batch_size: BatchSize = None,
    device: Device = None,
    precision: Precision = None,
    seed: Seed = None,
    recipe: Recipe = None,
    out: Out = None,
    corrections: Annotated[
        Path | None, typer.Option("--corrections", help="Corrected masks: folder, .zip or .json.")
    ] = None,
    start: Annotated[
        Path | None, typer.Option("--start", help="Run or model to continue from, instead of a backbone.")
    ] = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    tracker: Tracker = None,
    settings: Set = None,
) -> None:
    """Learn from images and their tags, or from label images (--labels); also from corrected masks."""
    from tagmask.pipeline.config import training_base

    flags = data_flags(data, tags, classes, masks, kind) | compute_flags(device, precision, seed)
    flags |= {"data.split": split, "method": method, "model.backbone": backbone, "model.weights": weights}
    flags |= {"train.size": size, "train.iterations": iterations, "train.batch_size": batch_size}
    flags |= {"train.labels": as_text(labels), "train.corrections": as_text(corrections)}
    flags |= {"train.start": as_text(start)} | holdout_flags(holdout)
    base = training_base(recipe, method, resume, out)
    how: dict[str, Any] = {"resume": resume, "overwrite": overwrite, "trackers": tracker or ()}
    folder = do_steps(base, flags, settings, out, ("train",), **how)
    show_line(f"model: {folder / 'model'}", model=folder / "model")


for command in (
    steps.localize,
    steps.refine,
    steps.affinity,
    steps.walk,
    steps.student,
    steps.segment,
    steps.evaluate,
    steps.report,
    steps.review,
    teach,
    steps.entropy,
    predict.predict,
    animate.animate,
    export.export,
):
    app.command()(command)
app.command("app")(app_command.app_page)


@app.command()
@guarded
def run(
    recipe: Annotated[
        str | None,
        typer.Argument(
            help="Folder of images or hf:DATA (recipe auto), shipped recipe, YAML file or run folder.",
            autocompletion=known_recipes,
        ),
    ] = None,
    data: Data = None,
    tags: Tags = None,
    classes: Classes = None,
    masks: Masks = None,
    kind: Kind = None,
    holdout: Holdout = None,
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
    until: Annotated[str | None, typer.Option("--until", help="Last step to run.")] = None,
    first: Annotated[str | None, typer.Option("--from", help="First step to run.")] = None,
    time: Annotated[
        str | None, typer.Option("--time", help="How long recipe auto may take: 90s, 10m, 1h.")
    ] = None,
    has_background: Annotated[
        bool | None,
        typer.Option("--background/--no-background", help="Whether some pixels belong to no class."),
    ] = None,
    overwrite: Overwrite = False,
    tracker: Tracker = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run/--no-dry-run", help="Print the steps and about how long they take; write nothing."
        ),
    ] = False,
    settings: Set = None,
) -> None:
    """Run all steps, from train to report; completed steps are skipped.

    With a folder of images alone, recipe auto chooses its settings from images, tags and machine.
    """
    from tagmask.pipeline.flags import background_settings, data_first
    from tagmask.pipeline.order import choose_steps

    recipe, data = data_first(recipe, data)
    flags = data_flags(data, tags, classes, masks, kind) | compute_flags(device, precision, seed)
    flags |= {"model.backbone": backbone, "model.weights": weights, "checkpoint": as_text(checkpoint)}
    flags |= holdout_flags(holdout)
    flags |= {"train.size": size, "train.iterations": iterations, "train.batch_size": batch_size}
    flags |= background_settings(has_background)
    how: dict[str, Any] = {"overwrite": overwrite, "budget": time, "trackers": tracker or (), "dry": dry_run}
    folder = do_steps(recipe, flags, settings, out, choose_steps(until, first), **how)
    if not dry_run and (folder / "report.html").exists():
        show_line(f"report: {folder / 'report.html'}")


@app.command()
@guarded
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for data and run.")] = Path("tagmask-demo"),
    device: Device = None,
    seed: Seed = None,
    settings: Set = None,
) -> None:
    """All steps on generated scenes: no download, no GPU, first masks in a minute, all in a few."""
    from tagmask.pipeline.demo import FirstLook, make_scenes
    from tagmask.pipeline.order import STEPS
    from tagmask.recipes import find_recipe

    images = make_scenes(out / "data")
    flags = {"data.root": str(images)} | compute_flags(device, None, seed)
    shown = [images / "images" / path.name for path in sorted((images / "masks").iterdir())[:6]]
    look = FirstLook(shown, out.resolve() / "first.png", show_line)
    folder = do_steps(str(find_recipe("demo")), flags, settings, out / "run", STEPS, callbacks=(look,))
    show_line(f"report: {(folder / 'report.html').resolve()}")


@app.command("set")
@guarded
def set_values(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    values: Annotated[list[str], typer.Argument(metavar="A.B=C...", help="Settings and their new values.")],
) -> None:
    """Change settings of a run permanently; the flags of a single step count for that call only."""
    from tagmask.pipeline.settings import change_settings

    for line in change_settings(run, values):
        show_line(line)


@app.command()
@guarded
def check(run: Annotated[Path, typer.Argument(help="Run folder.")]) -> None:
    """Check that everything a run's steps made is there and unchanged; exit code 3 if not."""
    from tagmask.pipeline.changes import check_run
    from tagmask.pipeline.config import check_exists, read_config

    check_exists(run)
    for line in (problems := check_run(run, read_config(run))):
        show_line(line)
    show_line(f"{run}: {f'{len(problems)} problems' if problems else 'whole'}")
    if problems:
        raise typer.Exit(3)


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
        show_line(f"{title}: {', '.join(names)}", **dict[str, Any]({title.replace(" ", "_"): names}))


@app.command()
@guarded
def show(
    name: Annotated[str, typer.Argument(help="A method, a recipe, or 'settings'.", autocompletion=things)],
) -> None:
    """Explain a method and its settings, print a recipe, or list every setting of a run."""
    from tagmask.cli.show import describe

    show_line(describe(name))


@app.command()
@guarded
def version() -> None:
    """Versions of tagmask and its main dependencies."""
    from importlib.metadata import version as installed

    show_line(f"tagmask {__version__}", tagmask=__version__)
    for package in ("torch", "torchvision", "timm", "accelerate"):
        show_line(f"{package} {installed(package)}", **dict[str, Any]({package: installed(package)}))


def main() -> None:
    """Entry point of the ``tagmask`` command."""
    considerate()
    app()
