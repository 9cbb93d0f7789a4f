from __future__ import annotations

import http.server
import threading
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from tagmask.data import ClassTable
from tagmask.engine.compute import Compute
from tagmask.integrations.label_studio.backend import Backend
from tagmask.integrations.label_studio.images import Images
from tagmask.integrations.label_studio.shelf import Shelf
from tagmask.models.trained import build_method, load_trained, save_method
from tests.contract.test_methods import TINY
from tests.tools.backend import NAMES, SIZE, Pictures, Stage, running


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Two models of the same classes."""
    found = []
    for seed in range(2):
        place = tmp_path_factory.mktemp("model")
        torch.manual_seed(seed)
        method = build_method("more", TINY["more"], len(NAMES))
        save_method(place, method, "more", ClassTable(NAMES), {}, {})
        found.append(load_trained(place))
    return found


@pytest.fixture
def place(tmp_path):
    """Where the pictures lie: an address, and what was asked of it."""
    rng = np.random.default_rng(0)
    (tmp_path / "www").mkdir()
    for n in range(4):
        Image.fromarray(rng.integers(0, 255, (*SIZE, 3), np.uint8)).save(tmp_path / "www" / f"{n}.png")
    handler = type("Here", (Pictures,), {"asked": []})
    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=tmp_path / "www"))
    threading.Thread(target=web.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{web.server_address[1]}", handler.asked
    web.shutdown()
    web.server_close()


@pytest.fixture
def backend(models, place, tmp_path):
    """One that knows no project and no correction."""
    compute = Compute.choose("cpu")
    made = Backend(models[0], compute, Shelf(tmp_path / "shelf"), Images(place[0], "secret"), after=0)
    yield made
    made.teacher.stop()


@pytest.fixture(scope="session")
def stage():
    """A server for all tests, as starting and ending one takes longer than most of them, and its address."""
    served = Stage()
    with running(served, lifespan="off") as address:
        yield served, address


@pytest.fixture
def url(backend, stage):
    """Address of a backend of its own for every test."""
    from tagmask.integrations.label_studio.server import application

    stage[0].app = application(backend)
    yield stage[1]
    stage[0].app = None
