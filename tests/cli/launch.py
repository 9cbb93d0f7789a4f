"""Start `tagmask` on several processes of this machine, as its users do."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.cli import strike as striking

_NEW_NETWORK = 0x40000000
"""CLONE_NEWNET of Linux."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def launch(processes: int, arguments: Sequence[object]) -> subprocess.Popen[str]:
    """The launcher as a program of its own; its children are the processes, each loading everything anew."""
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
    command += [f"--master-port={free_port()}", "-m", "tagmask", *map(str, arguments)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


class Forked:
    """The same launcher with its options, its signals and its care for processes that die, but forked.

    All that its processes would import is loaded already, once for all launches of the tests: that takes
    longer than anything they compute. Used like a `subprocess.Popen`.

    Args:
        processes: How many on this machine.
        arguments: Of `tagmask`.
        *options: Of `torchrun`.
        strike: "SIGNAL MOMENT KEY COUNT" of strike.py.
        network: Name of the network namespace to live in.
        env: Variables besides those of the tests.
    """

    def __init__(
        self,
        processes: int,
        arguments: Sequence[object],
        *options: str,
        strike: str = "",
        network: str = "",
        env: Mapping[str, str] | None = None,
    ) -> None:
        words = [f"--nproc-per-node={processes}", f"--master-port={free_port()}", *options, "-m", "tagmask"]
        self._folder = tempfile.TemporaryDirectory()
        self._said = [str(Path(self._folder.name, name)) for name in ("stdout", "stderr")]
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tests.cli.loaded"])
        program = (strike.split(), [str(argument) for argument in arguments])
        self._process = context.Process(
            target=_launcher, args=(words, program, self._said, network, {**os.environ, **(env or {})})
        )
        self._process.start()

    def communicate(self, timeout: float) -> tuple[str, str]:
        """Wait for its end; what it said."""
        self._process.join(timeout)
        said = [Path(path).read_text() if Path(path).exists() else "" for path in self._said]
        if self._process.exitcode is None:
            self.kill()
            raise TimeoutError(f"it did not end; it said {said}")
        self._folder.cleanup()
        return said[0], said[1]

    def kill(self) -> None:
        """End it, if it still runs; it ends its processes first."""
        self._process.terminate()
        self._process.join(60)

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode


def _launcher(
    words: list[str],
    program: tuple[list[str], list[str]],
    said: list[str],
    network: str,
    env: Mapping[str, str],
) -> None:
    """Be `torchrun`, what it says going to files."""
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.errors import record
    from torch.distributed.launcher.api import elastic_launch

    os.environ.update({**env, "OMP_NUM_THREADS": "1"})
    for stream, path in enumerate(said, start=1):
        os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND), stream)
    if network:
        with Path("/run/netns", network).open() as place:
            if ctypes.CDLL(None, use_errno=True).setns(place.fileno(), _NEW_NETWORK):
                raise OSError(ctypes.get_errno(), f"cannot enter the network {network}")
    config, _, _ = run.config_from_args(run.parse_args(words))
    config.start_method = "fork"
    record(elastic_launch(config, entrypoint=_process))(*program)


def _process(strike: list[str], arguments: list[str]) -> None:
    """Be one of the processes."""
    from tagmask.cli.main import main

    # A new program has none of the launcher's handlers.
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = [striking.__file__, *strike, *arguments]
    try:
        (striking.main if strike else main)()
    except SystemExit as end:
        if end.code:
            raise
