"""``tagmask annotate``: masks to annotation tools and back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tagmask.cli.common import Classes, guarded, new_display, show_line
from tagmask.cli.manner import App
from tagmask.errors import ConfigError

if TYPE_CHECKING:
    from tagmask.annotations.read import Subjects

__all__ = ["app"]

app = App(help="Masks to annotation tools and back.")

Of = Annotated[
    Path, typer.Argument(help="Run folder, folder written by predict, or a folder of masks with --images.")
]
Images = Annotated[Path | None, typer.Option("--images", help="Folder of the images.")]
Format = Annotated[
    str | None,
    typer.Option("--format", help="coco, cvat, cvat-coco, label-studio, labelme, voc, yolo, native."),
]


@app.command("export")
@guarded
def export(
    of: Of,
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            help="coco, cvat, cvat-coco, label-studio, labelme, voc, yolo; native: GeoTIFF, NIfTI, DICOM "
            "or scan, as the images are, with their grid.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="A .zip, a .json or a folder.")],
    shapes: Annotated[str | None, typer.Option("--shapes", help="exact or polygons.")] = None,
    what: Annotated[str, typer.Option("--what", help="masks or labels of the run.")] = "masks",
    pictures: Annotated[
        Path | None,
        typer.Option("--pictures", help="Folder for PNGs of what tools do not open: 16 bits, slices, tiles."),
    ] = None,
    images: Images = None,
    classes: Classes = None,
) -> None:
    """Write masks in the format of an annotation tool."""
    from tagmask.annotations.exchange import export_masks, write_pictures

    masks = of / what if (of / what).is_dir() else of
    if format_ == "native":
        _native(of, masks, out, shapes)
        return
    subjects = _subjects(of, images, classes)
    figures = export_masks(masks, subjects, format_, out, shapes, new_display())
    without = f"; {figures['without']} without a mask" if figures["without"] else ""
    line = f"{out}: {figures['images']} images as {format_} ({figures['shapes']}){without}"
    if pictures is not None:
        figures["pictures"] = write_pictures(masks, subjects, pictures, new_display())
        line += f"; {figures['pictures']} pictures in {pictures}"
    show_line(line, out=out, **figures)


def _native(of: Path, masks: Path, out: Path, shapes: str | None) -> None:
    from tagmask.data.parts import open_part
    from tagmask.inference.native import write_native
    from tagmask.pipeline.config import read_config

    if not (of / "settings.yaml").is_file():
        raise ConfigError(f"{of} is no run folder; native masks are a run's, and predict writes them itself")
    if shapes is not None or out.suffix.lower() in (".zip", ".json"):
        raise ConfigError("native masks go to a folder, without --shapes: --out DIR")
    figures = write_native(masks, open_part(read_config(of).data, "both"), out, new_display())
    kinds = [(figures["geotiff"], "GeoTIFF"), (figures["nifti"], "NIfTI"), (figures["dicom"], "DICOM")]
    kinds.append((figures["slide"], "scans"))
    made = ", ".join(f"{count} {kind}" for count, kind in kinds if count)
    left = [(figures["plain"], "without a grid of their own"), (figures["without"], "without a mask")]
    rest = "".join(f"; {count} {why}" for count, why in left if count)
    show_line(f"{out}: masks of {figures['images']} images as {made}{rest}", out=out, **figures)


@app.command("import")
@guarded
def import_(
    source: Annotated[Path, typer.Argument(help="What the tool exported: a .zip, a .json or a folder.")],
    of: Of,
    out: Annotated[Path, typer.Option("--out", help="Folder for the masks.")],
    format_: Format = None,
    images: Images = None,
    classes: Classes = None,
    empty: Annotated[
        list[str] | None,
        typer.Option("--empty", help="An image with nothing to draw on it, or 'all'. May be repeated."),
    ] = None,
) -> None:
    """Turn what an annotation tool exported back into label images."""
    from tagmask.annotations.exchange import import_masks

    figures = import_masks(source, _subjects(of, images, classes), format_, out, new_display(), empty or ())
    left = f"; left out: {figures['left']}" if figures["left"] else ""
    show_line(f"{out}: masks of {figures['images']} images{left}", out=out, **figures)


def _subjects(of: Path, images: Path | None, classes: Path | None) -> Subjects:
    """The images that masks are about: those named, a run's, or those that were predicted."""
    from tagmask.annotations.read import Subjects, find_subjects, predicted_subjects
    from tagmask.data.classes import read_class_file
    from tagmask.data.parts import open_part
    from tagmask.pipeline.config import read_config

    if images is None and (of / "settings.yaml").is_file():
        return Subjects.of_dataset(open_part(read_config(of).data, "both"))
    if images is None and (of / "summary.jsonl").is_file():
        return predicted_subjects(of)
    names = next(
        (f for f in (classes, of / "classes.txt", of.parent / "classes.txt") if f and f.is_file()), None
    )
    if images is None or names is None:
        raise ConfigError(
            f"{of} is neither a run folder nor one that predict wrote; say where the pictures are (--images "
            "DIR) and what the classes are called (--classes FILE)"
        )
    return find_subjects(images, read_class_file(names))
