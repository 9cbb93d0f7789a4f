"""Whatever happens while a state is written, a state that was whole before still loads."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tagmask.errors import CheckpointError
from tagmask.models import checkpoint
from tagmask.store import files
from tagmask.training.checkpoints import Checkpoints

SIZE = 20_000


def state(step: int) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
    return {"model.weight": torch.full((SIZE,), float(step))}, {"progress": {"step": step}}


def write(store: Checkpoints, *steps: int) -> None:
    for step in steps:
        store.write(step, *state(step))


def whole(store: Checkpoints) -> int:
    """Step of the newest state, after a look at its content."""
    found = store.newest()
    assert found is not None
    step = found[1]["progress"]["step"]
    assert found[0]["model.weight"].equal(torch.full((SIZE,), float(step)))
    return step


def in_child(work: Callable[[], None]) -> int:
    """Wait status of a forked process that does `work`; 0 if it came to its end."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:
            os._exit(3)
        os._exit(0)
    return os.waitpid(pid, 0)[1]


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def half(tensors, path, header) -> None:
    path.write_bytes(bytes(SIZE * 2))
    die()


@pytest.mark.parametrize(
    ("module", "name", "deed", "newest"),
    [
        (checkpoint, "save_file", half, 4),
        (files.os, "fsync", die, 4),
        (files.os, "replace", die, 4),
        (Path, "unlink", die, 6),
    ],
    ids=["half written", "not synced", "not renamed", "old ones not deleted"],
)
def test_sigkill_in_the_write(tmp_path, module, name, deed, newest):
    store = Checkpoints(tmp_path / "states", 2)
    write(store, 2, 4)

    def killed() -> None:
        setattr(module, name, deed)
        write(store, 6)

    assert in_child(killed) == signal.SIGKILL
    assert whole(store) == newest
    files.clear_partial(tmp_path)
    write(store, 8)
    assert whole(store) == 8
    assert sorted(p.name for p in store.folder.iterdir()) == [
        f"step-{step:08d}.safetensors" for step in (newest, 8)
    ]


def test_sigkill_at_random_moments_of_many_writes(tmp_path):
    store = Checkpoints(tmp_path / "states", 3)
    write(store, 1)
    rng = torch.Generator().manual_seed(0)
    number = 0
    # Twenty kills, and more where the machine is so busy that none of them let a write through.
    while number < 20 or whole(store) == 1:
        assert number < 500
        pid = os.fork()
        if pid == 0:
            try:
                write(store, *range(1000 * (number + 1), 1000 * (number + 2)))
            finally:
                os._exit(0)
        signal.sigtimedwait([signal.SIGCHLD], 0.002 + 0.15 * torch.rand((), generator=rng).item())
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert whole(store) >= 1
        number += 1
    assert whole(store) > 1000


def test_a_size_limit_of_the_system_is_an_error_and_changes_nothing(tmp_path):
    store = Checkpoints(tmp_path / "states", 2)
    write(store, 2, 4)

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE, SIZE))
        with pytest.raises(CheckpointError, match=r"cannot write .*step-00000006"):
            write(store, 6)

    assert in_child(limited) == 0
    assert whole(store) == 4
    assert not (store.folder / ".partial").exists()


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 256 KiB, room for three states."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this system mounts no small disk for us")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk(small_disk):
    store = Checkpoints(small_disk / "states", 9)
    write(store, 2, 4, 6)
    with pytest.raises(CheckpointError, match="No space left on device"):
        write(store, 8)
    assert whole(store) == 6
    assert not (store.folder / ".partial").exists()
    (store.folder / "step-00000002.safetensors").unlink()
    write(store, 8)
    assert whole(store) == 8


def test_bits_that_changed_on_disk_are_noticed_and_the_state_before_is_used(tmp_path):
    store = Checkpoints(tmp_path / "states", 2)
    write(store, 2, 4)
    newest = store.folder / "step-00000004.safetensors"
    content = bytearray(newest.read_bytes())
    content[-5] ^= 1
    newest.write_bytes(content)
    assert whole(store) == 2
    newest.write_bytes(b"")
    assert whole(store) == 2
    (store.folder / "step-00000002.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        store.newest()
