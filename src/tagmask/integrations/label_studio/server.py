"""Put the backend on the network: loopback unless told otherwise."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tagmask.data.parts import Parts
from tagmask.engine.compute import Compute
from tagmask.engine.listen import is_loopback, listen, shown_host
from tagmask.errors import UserError, one_line, printable
from tagmask.integrations.door import Door, read_object
from tagmask.integrations.label_studio.backend import Backend, Unknown
from tagmask.integrations.label_studio.images import Images
from tagmask.integrations.label_studio.shelf import Shelf
from tagmask.integrations.label_studio.teaching import Busy
from tagmask.models.trained import Trained, load_trained
from tagmask.pipeline.config import read_config
from tagmask.steps.models import Models
from tagmask.store.files import exclusive

__all__ = ["ServeOptions", "application", "serve"]

_LIMIT = 32 << 20
_LOG = logging.getLogger("tagmask")


@dataclass(frozen=True)
class ServeOptions:
    """How the backend is served.

    Attributes:
        url: Address of Label Studio, the only one that pictures are fetched from.
        token: Its access token; None for the one that it sends when it adds the backend.
        allow: Further addresses that pictures may be fetched from.
        host: Address to listen on.
        port: Its port; 0 chooses a free port.
        after: New corrections after which a training begins by itself; 0 for never.
        seconds: Time of one training.
        device: Where to compute.
    """

    url: str = "http://localhost:8080"
    token: str | None = None
    allow: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    port: int = 9090
    after: int = 10
    seconds: float = 50
    device: str | None = None


def serve(folder: Path, out: Path | None, options: ServeOptions, say: Callable[[str], None]) -> None:
    """Serve a model to Label Studio until it is interrupted.

    Args:
        folder: Run folder or model folder.
        out: Folder that gets ``label-studio/``; the run folder itself, or ``./tagmask-serve``, if None.
        options: How.
        say: Told the address once it answers, and how trainings end.

    Raises:
        UserError: There is no model, the port is taken, or another program serves from the same folder.
    """
    images = Images(options.url, options.token, options.allow)
    listener = listen(options.host, options.port)
    with ExitStack() as stack, listener:
        # Nothing is made before it is known that there is a model.
        trained, device = _segmenter(folder)
        compute = Compute.choose(options.device or device)
        target = (out or (folder if _is_run(folder) else Path("tagmask-serve"))) / "label-studio"
        stack.enter_context(exclusive(target))
        backend = Backend(trained, compute, Shelf(target), images, options.seconds, options.after, say)
        stack.callback(backend.teacher.stop)
        token = None if is_loopback(options.host) else secrets.token_urlsafe(24)
        place = f"{shown_host(options.host)}:{listener.getsockname()[1]}"
        say(f"add http://{place} to a project of {options.url} (Settings, Model); Ctrl-C ends")
        say(
            f"model {backend.version}, classes {', '.join(backend.classes.names)}; corrections go to {target}"
        )
        if token is not None:
            say(f"user tagmask, password {token}; both travel unencrypted")
            say(f"or all in one, which the webhook needs: http://tagmask:{token}@{place}")
        backend.teacher.consider()
        app = application(backend, options.host, token)
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=3, access_log=False)
        uvicorn.Server(config).run(sockets=[listener])


def application(backend: Backend, host: str = "127.0.0.1", token: str | None = None) -> Door:
    """The ASGI application for a backend; with a token, only for those who have it."""
    asked: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
        "/setup": backend.setup,
        "/predict": backend.predict,
        "/webhook": backend.hook,
        "/fit": backend.fit,
        "/train": backend.fit,
    }
    plain = {"/": backend.health, "/health": backend.health, "/versions": backend.versions}
    routes = [Route(path, _posted(answer), methods=["POST"]) for path, answer in asked.items()]
    routes += [Route(path, _got(answer), methods=["GET"]) for path, answer in plain.items()]
    app = Starlette(routes=routes, exception_handlers={404: _no_such, 405: _no_such})
    hosts = ("localhost", "127.0.0.1", "[::1]", host) if is_loopback(host) else ()
    return Door(app, _LIMIT, hosts, token)


def _posted(answer: Callable[[Mapping[str, Any]], dict[str, Any]]) -> Any:
    async def endpoint(request: Request) -> JSONResponse:
        try:
            asked = read_object(await request.body())
        except ValueError as error:
            return _error(400, str(error))
        return await run_in_threadpool(_answered, answer, asked)

    return endpoint


def _got(answer: Callable[[], dict[str, Any]]) -> Any:
    async def endpoint(request: Request) -> JSONResponse:
        return JSONResponse(answer())

    return endpoint


def _answered(
    answer: Callable[[Mapping[str, Any]], dict[str, Any]], asked: Mapping[str, Any]
) -> JSONResponse:
    """One answer, whatever happens; what is refused is also said in the log."""
    try:
        return JSONResponse(answer(asked))
    except Unknown as error:
        return _error(404, str(error))
    except Busy as error:
        return _error(409, str(error))
    except UserError as error:
        return _error(400, one_line(error))
    except Exception as error:
        _LOG.exception("a request of Label Studio failed")
        return _error(500, f"a fault of tagmask: {type(error).__name__}; its terminal says more")


async def _no_such(request: Request, error: Exception) -> JSONResponse:
    status = int(getattr(error, "status_code", 404))
    return _error(status, f"{request.method} {request.url.path[:80]} is no part of Label Studio's protocol")


def _error(status: int, reason: str) -> JSONResponse:
    reason = printable(reason)  # it may quote what was sent
    _LOG.warning("refused: %s", reason)
    return JSONResponse({"error": reason}, status)


def _is_run(folder: Path) -> bool:
    return (folder / "settings.yaml").is_file()


def _segmenter(folder: Path) -> tuple[Trained, str]:
    """Who segments in a run, or the model of a model folder; and the run's device."""
    if not _is_run(folder):
        return load_trained(folder), "auto"
    config = read_config(folder)
    return Models(config, folder, Parts(config.data)).segmenter(), config.runtime.device
