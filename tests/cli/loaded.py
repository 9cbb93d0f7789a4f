"""What a struck command needs, loaded once for all of them; nothing here computes."""

from __future__ import annotations

import importlib
import pkgutil

import tagmask.cli.main
import tagmask.methods
import tagmask.pipeline.auto
import tagmask.pipeline.run
import tagmask.report.figures
import tagmask.steps

for module in pkgutil.iter_modules(tagmask.steps.__path__):
    importlib.import_module(f"tagmask.steps.{module.name}")
for name in tagmask.methods.names():
    importlib.import_module(f"tagmask.methods.{name}")
