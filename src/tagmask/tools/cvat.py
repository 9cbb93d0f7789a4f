"""For ``cvat-cli task auto-annotate --function-module tagmask.tools.cvat -p model=str:RUN TASK``."""

from __future__ import annotations

from tagmask.integrations.cvat import Function, create

__all__ = ["Function", "create"]
