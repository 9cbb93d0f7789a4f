"""Put the desk on the network: loopback unless told otherwise."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from tagmask.app.classroom import Classroom
from tagmask.app.desk import Desk
from tagmask.app.gate import Gate
from tagmask.app.lab import Lab
from tagmask.app.library import Folders, Library
from tagmask.app.routes import Routes
from tagmask.app.scales import tag_files
from tagmask.data import TagDataset
from tagmask.data.levels import Reading
from tagmask.data.parts import Parts
from tagmask.data.readers.regular import ALLOW, Inside
from tagmask.engine.compute import Compute
from tagmask.engine.listen import is_loopback, listen, shown_host
from tagmask.engine.runtime import Runtime
from tagmask.errors import ConfigError, UserError
from tagmask.inference.predictor import remembered_use
from tagmask.model import Model
from tagmask.models.trained import Trained
from tagmask.pipeline.config import RunConfig, check_exists, read_config
from tagmask.steps.models import Models
from tagmask.store.files import exclusive

__all__ = ["AppOptions", "serve"]


@dataclass(frozen=True)
class AppOptions:
    """How the page is served.

    Attributes:
        host: Address to listen on.
        port: Its port; 0 chooses a free port.
        allow: Further folders that images may lie in.
        upload_limit: Largest upload in megabytes.
        max_side: Images are shrunk to at most this longer side for the model.
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
    listener = listen(options.host, options.port)
    with ExitStack() as stack, listener, tempfile.TemporaryDirectory(prefix="tagmask-app-") as inbox:
        # Nothing is made before it is known that there is a model.
        lab, library, background, learner = _prepare(folder, options, say)
        stack.enter_context(exclusive(target / "reviewed"))
        desk = Desk(lab, library, target, Path(inbox))
        for decisions in (desk.decisions, desk.own):
            stack.callback(decisions.settle)
        token = None if is_loopback(options.host) else secrets.token_urlsafe(24)
        classroom = None if learner is None else Classroom(desk, *learner)
        stack.callback(classroom.close if classroom else lambda: None)
        files = _tag_files(library)
        app = application(desk, folder.resolve().name, background, options, token, classroom, files)
        port = listener.getsockname()[1]
        path = "" if token is None else f"/?token={token}"
        address = f"http://{shown_host(options.host)}:{port}{path}"
        say(f"open {address}  (decisions go to {target / 'reviewed'}; Ctrl-C ends)")
        if token is not None:
            say("whoever has this address can open the page and decide; it travels unencrypted")
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=3, access_log=False)
        uvicorn.Server(config).run(sockets=[listener])


def application(
    desk: Desk,
    title: str,
    background: float,
    options: AppOptions,
    token: str | None = None,
    classroom: Classroom | None = None,
    tags: tuple[Path, ...] = (),
) -> Gate:
    """The ASGI application for a desk; with a token, only for those who have it."""
    limit = options.upload_limit * 2**20
    behind = Routes(desk, title, background, classroom, tags, limit).application()
    hosts = ("localhost", "127.0.0.1", "[::1]", options.host) if is_loopback(options.host) else ()
    return Gate(behind, limit, hosts, token)


def _prepare(
    folder: Path, options: AppOptions, say: Callable[[str], None]
) -> tuple[Lab, Library, float, tuple[Trained, Compute] | None]:
    """The model, the images, the background score that it remembers, and what learns from corrections."""
    check_exists(folder)
    config = read_config(folder)
    runtime = Runtime.create(options.device or config.runtime.device, config.runtime.precision, seed=None)
    models = Models(config, folder, Parts(config.data))
    trained = models.get()
    model = Model(trained, runtime)
    marker = trained if config.student is None else models.segmenter()
    segmenter = model if config.student is None else Model(marker, runtime)
    roots = [folder, *options.allow, *Inside(()).roots]
    roots += [root for root in (config.data.root, config.data.val_root) if root is not None]
    dataset, parts = _images(config, trained.classes.names, say, trained.reading)
    library = Library(dataset, folder, Folders.of(roots), parts)
    for outside in library.elsewhere():
        say(f"the images are in {outside}, which this app may not read; start it with --allow {outside}")
    lab = Lab(model, segmenter, options.max_side)
    learner = (marker, runtime) if marker.method.segments else None
    return lab, library, remembered_use(trained.meta).background, learner


def _tag_files(library: Library) -> tuple[Path, ...]:
    """The tag files of the run that this app may write to."""
    if library.dataset is None:
        return ()
    splits = ("train", "val", "trainval", "test", library.dataset.split)
    return tuple(path for path in tag_files(library.dataset.about, splits) if library.folders.holds(path))


def _images(
    config: RunConfig,
    names: Sequence[str],
    say: Callable[[str], None],
    reading: Reading | None = None,
) -> tuple[TagDataset | None, dict[str, str]]:
    """The images of the run and the part each belongs to; without them uploads still work."""
    if config.data.root is None:
        return None, {}
    known = Parts(config.data.model_copy(update={"cache": "none"}), reading)
    try:
        dataset = known.open("both")
        if dataset.classes.names != names:
            raise ConfigError("the run's images have other classes than its model")
    except UserError as error:
        hint = "; or start the app with --allow and that folder" if ALLOW in str(error) else ""
        say(f"no queue, only uploads: {error}{hint}")
        return None, {}
    if known.find("auto") == "train":
        return dataset, {}
    taught = set(known.open("train").names)
    return dataset, {name: "train" if name in taught else "val" for name in dataset.names}
