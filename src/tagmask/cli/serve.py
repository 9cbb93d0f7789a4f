"""``tagmask serve``: a model behind the tools that people already have open."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tagmask.cli.common import Device, guarded, show_line
from tagmask.cli.manner import App

__all__ = ["app"]

app = App(help="Serve a model to annotation tools.")


@app.callback()
def common() -> None:
    """Serve a model to annotation tools."""


@app.command("label-studio")
@guarded
def label_studio(
    folder: Annotated[Path, typer.Argument(help="Run folder or model folder.")],
    url: Annotated[
        str, typer.Option("--url", help="Address of Label Studio; images are fetched from it alone.")
    ] = "http://localhost:8080",
    token: Annotated[
        str | None,
        typer.Option(
            "--token",
            envvar="LABEL_STUDIO_API_KEY",
            help="Its personal access token, if the one it sends is refused.",
        ),
    ] = None,
    images_from: Annotated[
        list[str] | None,
        typer.Option(
            "--images-from", help="A further address that images may be fetched from. May be repeated."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Folder that gets label-studio/; the run folder itself, or ./tagmask-serve."
        ),
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="0 chooses a free port.")] = 9090,
    fit_after: Annotated[
        int,
        typer.Option("--fit-after", min=0, help="New corrections that start a training; 0: only on request."),
    ] = 10,
    fit_seconds: Annotated[
        float, typer.Option("--fit-seconds", min=1, help="Time that a training may take.")
    ] = 50,
    device: Device = None,
) -> None:
    """A machine learning backend for Label Studio: predicts, and learns from corrections."""
    from tagmask.errors import ConfigError

    try:
        from tagmask.integrations.label_studio.server import ServeOptions, serve
    except ModuleNotFoundError as error:
        if error.name not in ("uvicorn", "starlette"):
            raise
        raise ConfigError(
            "serving needs its packages; install them with: pip install 'tagmask[label-studio]'"
        ) from None
    options = ServeOptions(url, token, tuple(images_from or ()), host, port, fit_after, fit_seconds, device)
    serve(folder, out, options, show_line)
