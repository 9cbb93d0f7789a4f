"""The masks of `predict` for millions of pictures: Ray Data runs the workers, notes say what is done."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import Field

from tagmask.config import Config
from tagmask.data.classes import class_file
from tagmask.data.tables import csv_text
from tagmask.engine.config import RuntimeConfig
from tagmask.engine.log import Display
from tagmask.engine.signals import StopSignal
from tagmask.errors import ConfigError, DataError, one_line, printable
from tagmask.inference.pictures import Broken
from tagmask.inference.place import Place
from tagmask.inference.ray_worker import Job, Plan, Worker, read_note
from tagmask.inference.summary import check_key, table_head, table_row
from tagmask.inference.writer import PredictConfig, begin, work_key
from tagmask.models.trained import load_trained
from tagmask.store.files import clear_partial, exclusive

__all__ = ["BulkConfig", "bulk"]

_BLOCKS = 4000
_STORE = 256 << 20


class BulkConfig(Config):
    """Who does the work."""

    address: str = "local"
    """local starts workers on this machine; auto, or ray://HOST:PORT, joins a running Ray cluster."""
    workers: int | None = Field(default=None, ge=1)
    """Processes with a model each; one a GPU, or one for two cores, if not given."""
    chunk: int = Field(default=64, ge=1)
    """Pictures a worker takes at a time; what a kill can cost."""
    shards: bool = False
    """Write the files of a chunk as one tar archive (WebDataset) to ``shards/``; always so behind a URL.
    Millions of small files are slow on every disk, and dear in every store."""
    patience: float = Field(default=300.0, ge=0)
    """Seconds for which a worker waits where the disk is full or the store does not answer."""


def bulk(
    config: PredictConfig,
    bulk_config: BulkConfig,
    model: Path,
    where: RuntimeConfig,
    display: Display,
    inputs: Sequence[str],
    out: Path | str,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write what `tagmask.inference.predict.predict` writes, by many workers.

    The inputs are listed, cut into chunks (``bulk/plan.jsonl``), and each chunk is done by one worker, which
    leaves a note (``bulk/done/``) after its last file. What a kill interrupts is done again, to the same
    files; chunks with a note are not. A picture on which workers die is put aside.

    Args:
        config: How pictures are predicted.
        bulk_config: Who does it.
        model: Model or run folder.
        where: Device, precision and threads of every worker.
        display: Progress with rate and time left.
        inputs: See `tagmask.inference.remote.list_items`.
        out: The folder, a path or a URL; on several machines all of them must see it.
        overwrite: Replace what other settings or another model wrote there.

    Returns:
        Figures: images, done before, failed, images_per_second.

    Raises:
        Stopped: A stop signal came; finished chunks are kept.
        UserError: Ray is missing or cannot be reached, or settings, model or folder do not allow it.
    """
    trained = load_trained(model)
    place = Place(out)
    shards = bulk_config.shards or place.folder is None
    nowhere = place.folder or Path("nowhere")
    probe = begin(config, trained, where.create(), nowhere, lambda row: None, lambda source, reason: None)
    key = work_key(probe, trained)
    _import_ray()
    with _held(place):
        if not check_key(place, key, overwrite):
            for name in sorted(place.names("shards")):
                place.remove(name)
        place.write("classes.txt", class_file(trained.classes.names).encode())
        broken: list[tuple[str, str]] = []
        plan = Plan(place)
        # Chunks done as files are none of those wanted as archives.
        plan.write(_chunks(inputs, place.folder, bulk_config.chunk, broken), f"{key}{' shards' * shards}")
        noted = place.names("bulk/done")
        pending = [
            i for i, one in enumerate(plan.keys) if plan.note(one) not in noted or not plan.is_done(one)
        ]
        target = out if place.folder is None else place.folder.absolute()
        job = Job(model.absolute(), target, config, where, uuid.uuid4().hex, shards, bulk_config.patience)
        started = time.monotonic()
        total = sum(plan.sizes)
        before = total - sum(plan.sizes[i] for i in pending)
        if pending:
            with display.task("predict", total, before) as task, StopSignal() as stop:
                for images, failed in _run(job, bulk_config, pending):
                    task.advance(images + failed)
                    stop.check("prediction stopped; finished chunks are kept")
        seconds = time.monotonic() - started
        figures = _finish(plan, broken, trained.classes)
        rate = (total - before) / seconds if pending else 0.0
        figures |= {"before": before, "images_per_second": rate}
        text = json.dumps({**figures, "seconds": seconds, "listed": total}, indent=2)
        place.write("bulk/bulk.json", f"{text}\n".encode())
    return figures


@contextmanager
def _held(place: Place) -> Iterator[None]:
    """Hold a folder on disk, without what killed writers have left; stores behind URLs have no locks."""
    if place.folder is None:
        yield
        return
    with exclusive(place.folder):
        clear_partial(place.folder)
        yield
        clear_partial(place.folder)


def _chunks(
    inputs: Sequence[str], out: Path | None, size: int, broken: list[tuple[str, str]]
) -> Iterator[list[Any]]:
    from tagmask.inference.remote import list_items

    chunk: list[Any] = []
    for found in list_items(inputs, out):
        if isinstance(found, Broken):
            broken.append((printable(found.source), printable(found.reason)))
            continue
        chunk.append(found)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _import_ray() -> Any:
    # No word leaves the machine, and no advice fills the terminal.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
        import ray.data
    except ImportError:
        raise ConfigError(
            "--engine ray needs Ray: pip install 'tagmask[ray]'; without it the command works in one process"
        ) from None
    return ray


@contextmanager
def _cluster(config: BulkConfig, gpu: bool) -> Iterator[tuple[Any, int]]:
    """A connection to Ray, and how many workers there will be."""
    ray = _import_ray()
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if config.address == "local":
            workers = config.workers or max(1, (os.cpu_count() or 1) // 2)
            # One core more on paper: Ray reserves it for what feeds the workers.
            limits = {"num_cpus": workers + 1, "object_store_memory": _STORE, "include_dashboard": False}
            ray.init(**limits, **quiet)
        else:
            ray.init(address=config.address, **quiet)
            there = ray.cluster_resources()
            workers = config.workers or int(there.get("GPU", 0) if gpu else there.get("CPU", 2) // 2) or 1
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise ConfigError(
            f"no Ray at '{config.address}' ({one_line(error)}); start one, or use local"
        ) from None
    try:
        yield ray, workers
    finally:
        ray.shutdown()


def _run(job: Job, config: BulkConfig, pending: list[int]) -> Iterator[tuple[int, int]]:
    """Do the chunks; yields (images, failures) of each as it is finished."""
    gpu = job.runtime.device.startswith("cuda") or (job.runtime.device == "auto" and _has_gpu())
    with _cluster(config, gpu) as (ray, workers):
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.enable_operator_progress_bars = False
        rows = ray.data.from_items(
            [{"chunk": index} for index in pending], override_num_blocks=min(len(pending), _BLOCKS)
        )
        done = rows.map_batches(
            Worker,
            fn_constructor_args=(job,),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(workers, len(pending))),
            num_cpus=0 if gpu else 1,
            num_gpus=1 if gpu else 0,
        )
        try:
            for row in done.iter_rows():
                if row["error"]:
                    raise DataError(str(row["error"]))
                yield int(row["images"]), int(row["failed"])
        except ray.exceptions.RayError as error:
            reason = " ".join(str(error).split())[-400:]
            raise DataError(f"the workers cannot continue ({reason}); repeat the command to resume") from None


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _finish(plan: Plan, broken: list[tuple[str, str]], classes: Any) -> dict[str, Any]:
    """Gather the notes into the files that `predict` writes, one chunk in memory at a time."""
    images, failures = 0, list(broken)
    with (
        plan.place.writing("summary.jsonl") as lines,
        plan.place.writing("summary.csv") as table,
        lines.open("w", encoding="utf-8") as text,
        table.open("w", encoding="utf-8", newline="") as cells,
    ):
        cells.write(csv_text([table_head(classes)]))
        for key in plan.keys:
            note = read_note(plan.place, plan.note(key))
            failures += note.failed
            images += len(note.rows)
            for row in note.rows:
                text.write(f"{json.dumps(row)}\n")
                cells.write(csv_text([table_row(row, classes)]))
    plan.place.write("failed.csv", csv_text([("source", "reason"), *failures]).encode())
    for name in plan.place.names("bulk/tries"):
        plan.place.remove(name)
    return {"images": images, "failed": len(failures)}
