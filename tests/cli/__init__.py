"""Commands from end to end on a generated data set, in this process where nothing forbids it."""

from __future__ import annotations

import functools
from pathlib import Path

import typer.testing
from typer.testing import CliRunner, Result

from tagmask.cli.main import app

# Its commands are put together once for all calls, not for each: that takes longer than many of them.
typer.testing._get_command = functools.cache(typer.testing._get_command)

TINY = (
    "--method=more", "--backbone=vit:patch=8,dim=32,depth=2,heads=2,size=64", "--weights=none", "--size=64",
    "--batch-size=2", "--device=cpu", "--set=model.aux_block=-2", "--set=model.scales=[1.0,0.5]",
    "--set=train.tensorboard=false", "--set=runtime.threads=1", "--set=train.eval_maps.kinds=[cam,lam]",
    "--set=localize.kinds=[cam,aux_cam,lam]",
)  # fmt: skip
"""Flags of the smallest MoRe there is."""


def tagmask(*arguments: str | Path) -> Result:
    """Run a command; the result has exit_code, stdout and stderr."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def train_args(data: Path, out: Path, iterations: int = 3, *more: str) -> list[str | Path]:
    """A training in seconds."""
    return ["train", "--data", data, "--out", out, f"--iterations={iterations}", *TINY, *more]
