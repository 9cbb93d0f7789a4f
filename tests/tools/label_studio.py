"""A walk through a real Label Studio on loopback, as a person would click it, with the times of every click.

    python -m tests.tools.label_studio RUN SCENES [--out FILE] [--fit-seconds N] [--beside WORDS]

RUN is a trained run of the demo, SCENES its data; the program ``label-studio`` is that of the environment
variable LABEL_STUDIO, of ``.venv-label-studio``, or on the path. The training stops by the clock: what else
ran meanwhile is noted with ``--beside``, and more time makes up for it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tagmask.annotations.formats.brush import decode_brush
from tagmask.annotations.formats.label_studio import brush_region
from tagmask.data import open_dataset
from tagmask.pipeline.config import read_config

TOKEN = "0123456789abcdef0123456789abcdef01234567"


def program() -> str | None:
    """The command that starts Label Studio, if it is installed."""
    named = os.environ.get("LABEL_STUDIO")
    beside = Path(".venv-label-studio/bin/label-studio")
    return named or (str(beside) if beside.is_file() else shutil.which("label-studio"))


class Api:
    """Calls of a server that answers in JSON."""

    def __init__(self, url: str, token: str | None = None) -> None:
        self.url, self.token = url.rstrip("/"), token

    def __call__(self, path: str, body: Any = None, method: str | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        request.method = method or ("GET" if body is None else "POST")
        if self.token:
            request.add_header("Authorization", f"Token {self.token}")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=300) as answer:
            text = answer.read()
        return json.loads(text) if text else None


def until(what: Any, seconds: float = 300, pause: float = 0.5) -> Any:
    """What a function gives once it gives something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if found := what():
                return found
        except OSError:
            pass
        time.sleep(pause)
    raise TimeoutError(f"nothing came within {seconds:.0f} s")


@contextmanager
def running(command: list[str], env: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program in the background, ended with the context."""
    with log.open("wb") as file:
        process = subprocess.Popen(command, env={**os.environ, **env}, stdout=file, stderr=file)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def label_studio(folder: Path, files: Path, port: int) -> Iterator[Api]:
    """A Label Studio of its own, with its data in a folder, serving pictures below `files`."""
    command = [str(program()), "start", "--no-browser", "--port", str(port), "--internal-host", "127.0.0.1"]
    command += ["--username", "walker@example.com", "--password", "walk-12345", "--user-token", TOKEN]
    env = {
        "LABEL_STUDIO_BASE_DATA_DIR": str(folder),
        "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
        "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(files),
        # Both are needed for a backend on the same machine; Label Studio refuses local addresses otherwise.
        "ML_BLOCK_LOCAL_IP": "false",
        "SSRF_PROTECTION_ENABLED": "false",
        "LATEST_VERSION_CHECK": "false",
        "COLLECT_ANALYTICS": "false",
        "DEBUG": "false",
        # Its own limits, a second for many, are too short on a busy machine.
        **dict.fromkeys((f"ML_TIMEOUT_{word}" for word in ("HEALTH", "SETUP", "PREDICT", "TRAIN")), "300"),
        "PYTHONPATH": "",
    }
    with running([*command, "--enable-legacy-api-token"], env, folder / "label-studio.log"):
        api = Api(f"http://127.0.0.1:{port}", TOKEN)
        until(lambda: api("/health"), 600)
        yield api


@contextmanager
def backend(run: Path, url: str, out: Path, *flags: str) -> Iterator[Api]:
    """``tagmask serve label-studio``."""
    log = out / "serve.log"
    command = [
        sys.executable,
        "-m",
        "tagmask",
        "serve",
        "label-studio",
        str(run),
        "--url",
        url,
        "--port",
        "0",
    ]
    with running([*command, "--out", str(out), *flags], {}, log) as process:

        def address() -> str | None:
            assert process.poll() is None, log.read_text()
            found = re.search(r"add (http://\S+)", log.read_text())
            return found and found[1]

        api = Api(until(address, 600, 0.2))
        until(lambda: api("/health"), 600, 0.2)
        yield api


def config(names: tuple[str, ...]) -> str:
    """A labelling interface with a brush and a tag for every class."""
    labels = "".join(f'<Label value="{name}"/>' for name in names)
    choices = "".join(f'<Choice value="{name}"/>' for name in names)
    return (
        f'<View><Image name="image" value="$image"/><BrushLabels name="label" toName="image">{labels}'
        f'</BrushLabels><Choices name="tags" toName="image" choice="multiple">{choices}</Choices></View>'
    )


class Clicks:
    """Does things and notes how long each took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        begin = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - begin, 2)


def predicted(api: Api, project: int, version: str) -> dict[int, list[Any]]:
    """Regions that a version predicted, by task, as Label Studio holds them."""
    rows = api(f"/api/predictions?project={project}&page_size=1000")
    return {row["task"]: row["result"] for row in rows if row["model_version"] == version}


def mask_from(regions: list[Any], names: tuple[str, ...], size: tuple[int, int]) -> Any:
    mask = np.zeros(size, np.uint8)
    for one in (one for one in regions if one["type"] == "brushlabels"):
        mask[decode_brush(one["value"]["rle"], size)] = names.index(one["value"]["brushlabels"][0]) + 1
    return mask


def mean_iou(pairs: list[tuple[Any, Any]], channels: int) -> float:
    """Mean over the classes that appear, background included, of one confusion over all pairs."""
    both = np.zeros((channels, channels), np.int64)
    for truth, found in pairs:
        known = truth != 255
        np.add.at(both, (truth[known], found[known]), 1)
    union = both.sum(0) + both.sum(1) - both.diagonal()
    return float((both.diagonal()[union > 0] / union[union > 0]).mean())


def retrieved(api: Api, project: int, version: str, count: int) -> dict[int, list[Any]] | None:
    """The button "Retrieve predictions", with all tasks selected; what there is once every task has one."""
    wanted = {"selectedItems": {"all": True, "excluded": []}, "filters": {"conjunction": "and", "items": []}}
    api(f"/api/dm/actions?id=retrieve_tasks_predictions&project={project}", wanted)
    found = predicted(api, project, version)
    return found if len(found) == count else None


def walk(api: Api, ours: Api, scenes: Path, corrected: int = 10, unseen: int = 30) -> dict[str, Any]:
    """Import scenes with tags, see predictions, correct some, wait for the training, see better ones."""
    data = open_dataset(scenes, "folder", "val", masks=True)
    names, click = data.classes.names, Clicks()
    items = data.items[: corrected + unseen]
    with click("create the project"):
        project = api("/api/projects", {"title": "scenes", "label_config": config(names)})["id"]
    with click("connect the folder of pictures"):
        body = {
            "project": project,
            "path": str(scenes / "images"),
            "use_blob_urls": True,
            "title": "pictures",
        }
        api("/api/storages/localfiles", body)
    with click("import the tasks with their tags"):
        tasks = [
            {
                "image": f"/data/local-files/?d={item.image.relative_to(scenes).as_posix()}",
                "tags": [names[k] for k in item.tags or ()],
            }
            for item in items
        ]
        api(f"/api/projects/{project}/import", tasks)
    with click("connect the model"):
        api("/api/ml", {"url": ours.url, "project": project, "title": "tagmask"})
    first = ours("/health")["model_version"]
    with click("retrieve predictions"):
        before = until(lambda: retrieved(api, project, first, len(items)), 900)
    rows = api(f"/api/tasks?project={project}&page_size=1000&fields=all")
    numbers = [row["id"] for row in sorted(rows["tasks"], key=lambda row: row["id"])]
    truth = [data.mask(index) for index in range(len(items))]
    with click(f"submit {corrected} corrections"):
        for number, mask in list(zip(numbers, truth, strict=True))[:corrected]:
            regions = [
                brush_region(mask == label, names[label - 1], f"r{label}")
                for label in np.unique(mask).tolist()
                if label not in (0, 255)
            ]
            api(f"/api/tasks/{number}/annotations/", {"result": regions, "lead_time": 5})
    with click("the training ends"):
        state = until(lambda: (s := ours("/health")["training"]).get("last") and s, 1200)
    second = ours("/health")["model_version"]
    with click("retrieve predictions again"):
        after = until(lambda: retrieved(api, project, second, len(items)), 900)

    def score(found: dict[int, list[Any]]) -> float:
        rows = list(zip(numbers, truth, strict=True))[corrected:]
        pairs = [(mask, mask_from(found[number], names, mask.shape)) for number, mask in rows]
        return mean_iou(pairs, len(names) + 1)

    return {
        "versions": [first, second],
        "said": state["last"],
        "iou_before": round(score(before), 4),
        "iou_after": round(score(after), 4),
        "fit_s": state["seconds"],
        "clicks": click.seconds,
        "corrections": corrected,
        "unseen": unseen,
    }


def main() -> None:
    """Do the walk and write what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("scenes", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--port", type=int, default=8899)
    parser.add_argument("--fit-seconds", type=int, default=50)
    parser.add_argument("--beside", default="nothing", help="what else the machine did")
    given = parser.parse_args()
    scenes = given.scenes.resolve()
    flags = ("--device", "cpu", "--fit-seconds", str(given.fit_seconds))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "serve").mkdir()
        with (
            label_studio(folder, scenes, given.port) as api,
            backend(given.run, api.url, folder / "serve", *flags) as ours,
        ):
            found = walk(api, ours, scenes)
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    found["machine"] = f"{os.cpu_count()} CPU cores, {platform.system()}, Python {platform.python_version()}"
    found["machine"] += f", {threads} threads, beside it {given.beside}"
    trained = read_config(given.run)
    found["run"] = (
        f"recipe demo, {trained.train.iterations} updates of {trained.train.batch_size} scenes, "
        f"seed {trained.runtime.seed}; the scenes of tagmask.data.datasets.scenes"
    )
    found["command"] = f"python -m tests.tools.label_studio RUN SCENES --fit-seconds {given.fit_seconds}"
    text = json.dumps(found, indent=2) + "\n"
    print(text)
    if given.out:
        given.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
