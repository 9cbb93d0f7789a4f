"""Two network namespaces as two machines, and a scheduler's signal; where the system allows it."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import ExitStack

import pytest

from tagmask.models.checkpoint import load_model
from tests.cli import tagmask, train_args
from tests.cli.launch import Forked

ADDRESSES = ("10.231.7.1", "10.231.7.2")


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def machines():
    """Names of two namespaces joined by a cable."""
    names = tuple(f"tm{os.getpid()}{side}" for side in "ab")
    with ExitStack() as undo:
        try:
            for name in names:
                ip("netns", "add", name)
                undo.callback(ip, "netns", "del", name)
            ends = [f"v{name}"[:15] for name in names]
            ip("link", "add", ends[0], "netns", names[0], "type", "veth", "peer", ends[1], "netns", names[1])
            for name, end, address in zip(names, ends, ADDRESSES, strict=True):
                ip("-n", name, "addr", "add", f"{address}/24", "dev", end)
                for device in (end, "lo"):
                    ip("-n", name, "link", "set", device, "up")
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"no network namespaces here: {error}")
        yield names, ends


def node(machines, number: int, arguments) -> Forked:
    names, ends = machines
    torchrun = ["--nnodes=2", f"--node-rank={number}", f"--master-addr={ADDRESSES[0]}", "--master-port=29511"]
    env = {"GLOO_SOCKET_IFNAME": ends[number]}
    return Forked(1, arguments, *torchrun, network=names[number], env=env)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("ip") is None, reason="needs iproute2")
def test_two_machines_learn_what_one_process_learns(tmp_path, toy, machines):
    out, alone = tmp_path / "two", tmp_path / "one"
    arguments = train_args(toy, out, 4, "--batch-size=4", "--set=train.eval_every=2")
    nodes = [node(machines, number, arguments) for number in (0, 1)]
    try:
        said = [process.communicate(timeout=600) for process in nodes]
    finally:
        for process in nodes:
            process.kill()
    assert [process.returncode for process in nodes] == [0, 0], said
    assert ["model:" in stdout for stdout, _ in said] == [True, False]
    one = tagmask(
        *train_args(toy, alone, 4, "--batch-size=4", "--set=train.eval_every=2", "--set=train.accumulate=2")
    )
    assert one.exit_code == 0, one.stderr
    first, second = load_model(out / "model")[0], load_model(alone / "model")[0]
    assert all(first[k].equal(second[k]) for k in first)
    assert (out / "train/scores.csv").read_text() == (alone / "train/scores.csv").read_text()


@pytest.mark.slow
def test_a_schedulers_signal_saves_and_resume_goes_on(tmp_path, toy):
    out = tmp_path / "run"
    arguments = train_args(toy, out, 10, "--batch-size=4", "--set=train.save_every=0")
    passed_on = "--signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"
    process = Forked(2, arguments, passed_on, strike="parent:USR1@0 updated - 3")
    _, stderr = process.communicate(timeout=600)
    assert "of 10 iterations; repeat the command with --resume to continue" in stderr
    states = sorted((out / "train" / "checkpoints").glob("step-*"))
    assert len(states) == 1
    second = Forked(2, [*arguments, "--resume"])
    assert "model:" in second.communicate(timeout=600)[0]
