"""``tagmask export``: a trained model as one file that needs no tagmask."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from tagmask.cli.common import Set, guarded, show_line

__all__ = ["export"]

Format = Literal["onnx", "torch"]
Program = Literal["deepness", "x-anylabeling"]


@guarded
def export(
    model: Annotated[Path, typer.Argument(help="Run folder or model folder.")],
    out: Annotated[Path, typer.Option("--out", help="File to write: .onnx, or .pt2 for torch.")],
    kind: Annotated[
        Format | None,
        typer.Option("--format", help="onnx or torch; decided by the ending of --out if not given."),
    ] = None,
    maps: Annotated[
        str | None, typer.Option("--maps", help="Kinds of class maps to include, with commas.")
    ] = None,
    program: Annotated[
        Program | None,
        typer.Option("--for", help="Write what this program reads: deepness or x-anylabeling."),
    ] = None,
    settings: Set = None,
) -> None:
    """The model as one ONNX or torch.export file, compared with PyTorch before it is kept."""
    from tagmask.config import apply_overrides, validate
    from tagmask.errors import ConfigError

    if program is not None:
        if kind == "torch" or maps is not None:
            raise ConfigError(
                f"--for {program} decides about format and outputs; leave out --format and --maps"
            )
        _for_program(program, model, out, settings or ())
        return
    from tagmask.export.write import ExportConfig, export_model
    from tagmask.models.trained import load_trained

    given: dict[str, Any] = {"format": kind or ("torch" if out.suffix == ".pt2" else "onnx")}
    given |= {"maps": maps.split(",")} if maps else {}
    config = validate(ExportConfig, apply_overrides(given, settings or ()), "export")
    found = export_model(config, load_trained(model), out)
    show_line(f"{out}: {out.stat().st_size / 2**20:.1f} MiB, outputs {', '.join(found['outputs'])}")
    sizes = ", ".join(f"{height} x {width}" for height, width in config.check_sizes)
    worst = ", ".join(f"{name} {value:.1g}" for name, value in found["check"].items())
    show_line(f"largest difference from PyTorch at {sizes}: {worst}")


def _for_program(program: str, model: Path, out: Path, settings: Sequence[str]) -> None:
    from tagmask.config import apply_overrides, validate
    from tagmask.export.programs import ProgramConfig, export_for
    from tagmask.models.trained import load_trained

    config = validate(
        ProgramConfig, apply_overrides({"program": program}, settings), f"export --for {program}"
    )
    found = export_for(config, load_trained(model), out)
    for file in found["files"]:
        show_line(f"{file}: {file.stat().st_size / 2**20:.1f} MiB")
    show_line(
        f"pictures of {config.side} x {config.side}; largest difference from PyTorch {found['check']:.1g}",
        files=[str(file) for file in found["files"]],
    )
