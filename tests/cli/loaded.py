"""What a struck command needs, loaded once for all of them; nothing here computes."""

from __future__ import annotations

import importlib
import pkgutil

import tagmask.methods
import tagmask.steps

# The package loads these libraries where it builds a network or draws, not before.
LIBRARIES = ("timm", "torchvision.transforms.v2", "torch._dynamo", "matplotlib.backends.backend_svg")
ROOMS = ("cli.main", "pipeline.auto", "pipeline.run", "report.figures")

for name in (*LIBRARIES, *(f"tagmask.{room}" for room in ROOMS)):
    importlib.import_module(name)
for module in pkgutil.iter_modules(tagmask.steps.__path__):
    importlib.import_module(f"tagmask.steps.{module.name}")
for name in tagmask.methods.names():
    importlib.import_module(f"tagmask.methods.{name}")
