"""Pretrained weights: from timm's hub, from a local file, from the package; read safely, checked strictly."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import torch
from huggingface_hub import HfApi, hf_hub_download, try_to_load_from_cache
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from tagmask.errors import CheckpointError

__all__ = ["hub_file", "hub_weights", "load_strictly", "packaged_weights", "read_weights"]

_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")
# Keys under which published files keep the state dict beside optimiser state and the like.
_WRAPPERS = ("model_state_dict", "state_dict", "model", "module", "teacher")


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """State dict of a local file, on the CPU; half precision becomes float32.

    Understands .safetensors and PyTorch files. The latter are read without running code from them, and a
    state dict kept under "model", "state_dict", "module" or "model_state_dict" is found. The prefix
    ``module.`` of data-parallel training is removed.

    Args:
        path: The file.

    Raises:
        CheckpointError: The file is missing, damaged, of an unknown kind, or holds no tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(
            f"no weight file at {path}. Give a {' or '.join(_SUFFIXES[:2])} file, 'hub' to download the "
            f"pretrained weights, or 'none' to start from random ones"
        )
    if path.suffix not in _SUFFIXES:
        raise CheckpointError(
            f"{path.name}: weights must be one of {', '.join(_SUFFIXES)}, not '{path.suffix}'"
        )
    try:
        if path.suffix == ".safetensors":
            content: object = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise CheckpointError(f"{path} cannot be read as weights: {_first_line(error)}") from None
    except Exception as error:  # the unpickler's own error type lives in the standard library's C module
        raise CheckpointError(
            f"{path} is damaged or holds more than tensors{_foreign(error)}; nothing of it was executed. "
            "Save the tensors alone, as .safetensors"
        ) from None
    return _state_dict(content, path)


def _foreign(error: Exception) -> str:
    """What a file wanted to call, as far as the unpickler tells. Its advice to trust the file is left out."""
    found = re.search(r"GLOBAL `?(\w+\.[\w.]+)", str(error))
    return f" (it asks for {found.group(1)})" if found else ""


def hub_weights(name: str) -> dict[str, Tensor]:
    """Pretrained weights that belong to a timm model name, downloaded or from the local cache.

    Args:
        name: timm name, with or without a tag (``vit_base_patch16_224.orig_in21k_ft_in1k``).

    Raises:
        CheckpointError: The weights cannot be fetched, or timm has none for this name.
    """
    import timm  # loads half as long as PyTorch, and few commands come here

    if not timm.is_model_pretrained(name):
        raise CheckpointError(f"timm has no pretrained weights for '{name}'. {_WAYS_OUT}")
    settings = timm.get_pretrained_cfg(name)
    repository = settings.hf_hub_id if settings is not None else None
    cached = [try_to_load_from_cache(repository, file) for file in _HUB_FILES] if repository else []
    local = next((path for path in cached if isinstance(path, str)), None)
    try:
        if repository and local is None:
            # Asked once, with a limit: the download itself would retry for most of a minute when offline.
            HfApi().model_info(repository, timeout=10)
        overlay = {"file": local} if local else None
        model = timm.create_model(name, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay)
    except Exception as error:  # network, cache and hub libraries each raise types of their own
        raise CheckpointError(
            f"cannot fetch the pretrained weights of '{name}': {_first_line(error)}. {_WAYS_OUT}"
        ) from None
    return {key: value.float() for key, value in model.state_dict().items()}


def hub_file(repository: str, file_name: str) -> dict[str, Tensor]:
    """Weights of networks timm does not have: one file of a Hugging Face repository, or from the local cache.

    Args:
        repository: For example ``smp-hub/mit_b0.imagenet``.
        file_name: For example ``model.safetensors``.

    Raises:
        CheckpointError: The file cannot be fetched.
    """
    local = try_to_load_from_cache(repository, file_name)
    try:
        if not isinstance(local, str):
            HfApi().model_info(repository, timeout=10)
            local = hf_hub_download(repository, file_name)
    except Exception as error:  # network, cache and hub libraries each raise types of their own
        raise CheckpointError(
            f"cannot fetch {file_name} of '{repository}': {_first_line(error)}. {_WAYS_OUT}"
        ) from None
    return read_weights(local)


def packaged_weights(file_name: str) -> dict[str, Tensor]:
    """Weights shipped inside the package, by file name."""
    return read_weights(Path(str(files("tagmask") / "assets" / file_name)))


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load a state dict that must fit the module name by name and shape by shape.

    Args:
        module: Receives the weights; unchanged if they do not fit.
        state: Weights under the module's names.
        source: What the user knows the weights as, for the message.

    Raises:
        CheckpointError: A name is missing or unknown, or a shape differs; the message gives examples.
    """
    wanted = module.state_dict()
    problems = [
        f"{key} is {tuple(state[key].shape)} but must be {tuple(value.shape)}"
        for key, value in wanted.items()
        if key in state and state[key].shape != value.shape
    ]
    problems = [f"weights of another shape: {problems[0]}{_more(problems)}"] if problems else []
    for text, keys in (
        ("missing", sorted(wanted.keys() - state.keys())),
        ("unknown", sorted(state.keys() - wanted.keys())),
    ):
        if keys:
            problems.append(f"{text}: {keys[0]}{_more(keys)}")
    if problems:
        raise CheckpointError(f"{source} does not fit: {'; '.join(problems)}")
    module.load_state_dict({key: state[key].to(value.dtype) for key, value in wanted.items()})


_WAYS_OUT = (
    "Ways out: connect to the network once; give a file you have (--weights file.safetensors); "
    "or train from random weights (--weights none)"
)


def _state_dict(content: object, path: Path) -> dict[str, Tensor]:
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(f"{path} holds no state dict (names and tensors)")
    state: dict[str, Tensor] = {}
    for key, value in content.items():
        if isinstance(value, Tensor):
            half = value.is_floating_point() and value.dtype != torch.float64
            state[str(key).removeprefix("module.")] = value.float() if half else value
    if not state:
        raise CheckpointError(f"{path} holds no state dict (names and tensors)")
    return state


def _more(items: list[str]) -> str:
    return f" (and {len(items) - 1} more)" if len(items) > 1 else ""


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
