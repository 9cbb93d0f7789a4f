"""Put the desk on the network: loopback unless told otherwise."""

from __future__ import annotations

import ipaddress
import os
import secrets
import socket
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import gradio as gr
import uvicorn
from fastapi import FastAPI

from tagmask.app.desk import Desk
from tagmask.app.gate import Gate
from tagmask.app.lab import Lab
from tagmask.app.library import Folders, Library
from tagmask.app.page import build
from tagmask.data import TagDataset
from tagmask.data.parts import Parts, open_part
from tagmask.engine.runtime import Runtime
from tagmask.errors import ConfigError, UserError
from tagmask.inference.predictor import remembered_use
from tagmask.model import Model
from tagmask.pipeline.config import RunConfig, read_config
from tagmask.steps.models import Models
from tagmask.store.files import exclusive

__all__ = ["AppOptions", "serve"]

_STATIC = Path(__file__).parent / "static"
_WAITING = 64
_VISITORS = 100


@dataclass(frozen=True)
class AppOptions:
    """How the page is served.

    Attributes:
        host: Address to listen on.
        port: Its port; 0 takes a free one.
        allow: Further folders that images may lie in.
        upload_limit: Most megabytes of one upload.
        max_side: Images are looked at with at most this longer side.
        device: Where to compute.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    allow: tuple[Path, ...] = ()
    upload_limit: int = 32
    max_side: int = 768
    device: str | None = None


def serve(folder: Path, out: Path | None, options: AppOptions, say: Callable[[str], None]) -> None:
    """Serve the page until it is interrupted.

    Args:
        folder: Run folder or model folder.
        out: Folder that gets ``reviewed/``; the run folder itself if None.
        options: How.
        say: Told the address once it answers.

    Raises:
        UserError: There is no model, the port is taken, or another app writes to the same folder.
    """
    is_run = (folder / "settings.yaml").is_file()
    target = out or (folder if is_run else Path("tagmask-app"))
    listener = _listen(options.host, options.port)
    with ExitStack() as stack, listener, tempfile.TemporaryDirectory(prefix="tagmask-app-") as inbox:
        # Nothing is made before it is known that there is a model.
        lab, library, background = _prepare(folder, options, say)
        stack.enter_context(exclusive(target / "reviewed"))
        # Gradio reads its folder for uploads from the environment; this one goes away with the program.
        os.environ["GRADIO_TEMP_DIR"] = inbox
        desk = Desk(lab, library, target, Path(inbox))
        token = None if _is_loopback(options.host) else secrets.token_urlsafe(24)
        app = application(desk, folder.resolve().name, background, options, token)
        port = listener.getsockname()[1]
        shown = f"[{options.host}]" if ":" in options.host else options.host
        path = "" if token is None else f"/?token={token}"
        say(f"open http://{shown}:{port}{path}  (decisions go to {target / 'reviewed'}; Ctrl-C ends)")
        if token is not None:
            say("whoever has this address can open the page and decide; it travels unencrypted")
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=3, access_log=False)
        uvicorn.Server(config).run(sockets=[listener])


def application(
    desk: Desk, title: str, background: float, options: AppOptions, token: str | None = None
) -> Gate:
    """The ASGI application for a desk; with a token, only for those who have it."""
    blocks = build(desk, title, background)
    blocks.state_session_capacity = _VISITORS
    limit = options.upload_limit * 2**20
    script = (_STATIC / "app.js").read_text(encoding="utf-8")
    app = gr.mount_gradio_app(
        FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        blocks,
        path="/",
        server_name=options.host,
        footer_links=[],
        run_history=False,
        max_file_size=limit,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        show_error=False,
        theme=_theme(),
        css=(_STATIC / "app.css").read_text(encoding="utf-8"),
        head=f"<script>{script}</script>",
    )
    hosts = ("localhost", "127.0.0.1", "[::1]", options.host) if _is_loopback(options.host) else ()
    # Gradio looks at the paths that a request names only of a page that it launched itself.
    blocks.has_launched = True
    # Several pictures and the envelope around them travel in one request.
    return Gate(app, limit + 2**20, hosts, token)


def _theme() -> gr.themes.Base:
    """Fonts of the system, and every text with a contrast of at least 4.5."""
    fonts = ["system-ui", "Segoe UI", "Roboto", "Helvetica", "Arial", "sans-serif"]
    theme = gr.themes.Base(primary_hue="blue", font=fonts, font_mono=["ui-monospace", "monospace"])
    return theme.set(
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600",
        block_label_text_color="*neutral_700",
        block_label_text_color_dark="*neutral_200",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_200",
        input_placeholder_color="*neutral_600",
        input_placeholder_color_dark="*neutral_300",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_hover_dark="*primary_800",
    )


def _prepare(folder: Path, options: AppOptions, say: Callable[[str], None]) -> tuple[Lab, Library, float]:
    """The model, the images, and the background score that the model remembers."""
    config = read_config(folder)
    runtime = Runtime.create(options.device or config.runtime.device, config.runtime.precision, seed=None)
    models = Models(config, folder, Parts(config.data))
    trained = models.get()
    model = Model(trained, runtime)
    segmenter = model if config.student is None else Model(models.segmenter(), runtime)
    roots = [folder, *options.allow]
    roots += [root for root in (config.data.root, config.data.val_root) if root is not None]
    dataset = _images(config, trained.classes.names, say)
    library = Library(dataset, folder, Folders.of(roots))
    lab = Lab(model, segmenter, options.max_side)
    return lab, library, remembered_use(trained.meta).background


def _images(config: RunConfig, names: Sequence[str], say: Callable[[str], None]) -> TagDataset | None:
    """The images of the run; without them uploads still work."""
    if config.data.root is None:
        return None
    try:
        dataset = open_part(config.data, config.review.split)
        if dataset.classes.names != names:
            raise ConfigError("the run's images have other classes than its model")
    except UserError as error:
        say(f"no queue, only uploads: {error}")
        return None
    return dataset


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_WAITING)  # who comes before the page is ready waits
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"cannot listen on {host}:{port} ({reason}); choose another --port or --host"
        ) from None
    return listener


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
