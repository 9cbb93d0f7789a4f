"""``tagmask app``: the local web page."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from tagmask.cli.common import Device, guarded, show_line

__all__ = ["app_page"]

Folder = Annotated[Path, typer.Argument(help="Run folder or model folder.")]
Target = Annotated[
    Path | None,
    typer.Option("--out", help="Folder that gets reviewed/; the run folder itself, or ./tagmask-app."),
]
Allowed = Annotated[
    list[Path] | None,
    typer.Option("--allow", help="A further folder that images may be in. May be repeated."),
]


@guarded
def app_page(
    folder: Folder,
    out: Target = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="0 chooses a free port.")] = 7860,
    allow: Allowed = None,
    upload_limit: Annotated[
        int, typer.Option("--upload-limit", min=1, max=1024, help="Largest upload in megabytes.")
    ] = 32,
    max_side: Annotated[
        int,
        typer.Option(
            "--max-side", min=64, help="Images are shrunk to at most this longer side for the model."
        ),
    ] = 768,
    device: Device = None,
) -> None:
    """A page on this machine: look at maps and masks, move thresholds, accept, reject and correct."""
    from tagmask.data.readers.regular import ALLOW
    from tagmask.errors import ConfigError

    try:
        from tagmask.app.server import AppOptions, serve
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        raise ConfigError(
            "the page needs a web server; install it with: pip install 'tagmask[app]'"
        ) from None
    if allow:
        # The data set is opened by what every command goes by.
        known = os.environ.get(ALLOW, "")
        os.environ[ALLOW] = os.pathsep.join([*map(str, allow), *filter(None, [known])])
    options = AppOptions(host, port, tuple(allow or ()), upload_limit, max_side, device)
    serve(folder, out, options, show_line)
