"""Empty vision transformers by name: timm's, the packaged one, and custom shapes.

timm is loaded where a network is built: with torchvision it takes as long as PyTorch, and many commands
build none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import nn

from tagmask.errors import ConfigError, nearest, one_line

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

__all__ = ["PACKAGED", "build_vit", "is_registered", "register_backbone"]

PACKAGED = {"tagmask_demo": ("vit:patch=8,dim=128,depth=4,heads=4,size=96", "tagmask_demo.safetensors")}
"""Our own backbones: name to shape and weight file inside the package."""

_REGISTERED: dict[str, Callable[[float], VisionTransformer]] = {}
_B = TypeVar("_B", bound="Callable[[float], VisionTransformer]")

_HOMES = {"vision_transformer", "deit", "eva", "beit"}
"""Modules of timm with plain ViTs."""

_CUSTOM_DEFAULTS = {
    "patch": 16,
    "dim": 192,
    "depth": 12,
    "heads": 3,
    "size": 224,
    "mlp": 4,
    "registers": 0,
    "stem": 0,
}
_CUSTOM_RANGES = {
    "patch": (1, 256),
    "dim": (1, 16384),
    "depth": (1, 256),
    "heads": (1, 1024),
    "size": (1, 8192),
    "mlp": (1, 64),
    "registers": (0, 1024),
    "stem": (0, 1),
}


def register_backbone(name: str) -> Callable[[_B], _B]:
    """Decorator that makes a plain ViT of one's own known by name in this process.

    The function gets the largest stochastic-depth rate and gives timm's `VisionTransformer` with class token,
    position table and standard attention. Weights it comes with are kept where a method asks for "hub".

    Args:
        name: What ``--backbone`` and the setting `backbone` call it; no name of timm.

    Raises:
        ConfigError: The name is taken.
    """
    from timm import is_model

    if name not in _REGISTERED and (name in PACKAGED or ":" in name or is_model(name.split(".")[0])):
        raise ConfigError(f"the backbone name '{name}' is taken; choose another one")

    def decorate(build: _B) -> _B:
        _REGISTERED[name] = build
        return build

    return decorate


def is_registered(name: str) -> bool:
    """Whether a name was given to `register_backbone`."""
    return name in _REGISTERED


def build_vit(name: str, drop_path: float = 0.0) -> VisionTransformer:
    """A plain ViT with random weights and no classifier.

    Args:
        name: timm name, a packaged name, or ``vit:patch=16,dim=192,depth=12,heads=3,size=224`` (also mlp,
            registers, and stem=1 for convolutions in front; what is left out has these values).
        drop_path: Largest stochastic-depth rate.

    Raises:
        ConfigError: The name is unknown, a custom shape is malformed, or the model is no plain ViT.
    """
    if name in _REGISTERED:
        return _plain(name, _REGISTERED[name](drop_path))
    shape = PACKAGED[name][0] if name in PACKAGED else name
    if shape.startswith("vit:"):
        return _custom_vit(shape, drop_path)
    return _plain(name, _from_timm(name, drop_path))


def _from_timm(name: str, drop_path: float) -> nn.Module:
    import timm
    from timm.models import is_model_in_modules

    base, _, tag = name.partition(".")
    if not timm.is_model(base):
        known = [*timm.list_models("*vit*"), *timm.list_models("deit*"), *PACKAGED]
        close = nearest(base, known).split(" Known:")[0]
        raise ConfigError(
            f"no backbone named '{name}'. {close} Any plain ViT of timm works (ViT, DeiT, DINOv2, DINOv3, "
            f"SigLIP, EVA-02, BEiT), or vit:patch=16,dim=192,depth=12,heads=3,size=224"
        )
    if not is_model_in_modules(base, _HOMES):
        _glance(name)
    # Rotary angles of any grid, not of the one the model was made for.
    more: dict[str, Any] = {"dynamic_img_size": True} if is_model_in_modules(base, {"eva"}) else {}
    try:
        return timm.create_model(name, pretrained=False, num_classes=0, drop_path_rate=drop_path, **more)
    except RuntimeError as error:
        tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{base}.*")]
        if tag and tag not in tags:
            raise ConfigError(f"'{base}' has no weights tagged '{tag}'. {nearest(tag, tags)}") from None
        raise ConfigError(f"backbone '{name}': {one_line(error)}") from None
    except TypeError:  # networks without stochastic depth refuse its rate
        raise ConfigError(_not_plain(name, "its modules are of another kind")) from None


def _glance(name: str) -> None:
    """Refuse a network of another kind before its weights are made, which may take gigabytes.

    Raises:
        ConfigError: It is no plain ViT.
    """
    import timm

    try:
        with torch.device("meta"):
            network = timm.create_model(name, pretrained=False, num_classes=0)
    except Exception:  # it is made in earnest next, and what is wrong is told there
        return
    _plain(name, network)


def _plain(name: str, vit: Any) -> VisionTransformer:
    """The network, if our loop over its blocks computes what its own does.

    Raises:
        ConfigError: It does not.
    """
    from timm.layers.attention import Attention, AttentionRope
    from timm.layers.patch_embed import PatchEmbed
    from timm.models import beit
    from timm.models.eva import Eva, EvaAttention, EvaBlock
    from timm.models.vision_transformer import Block, VisionTransformer

    if type(vit) not in (VisionTransformer, Eva, beit.Beit):
        raise ConfigError(_not_plain(name, f"it is a {type(vit).__name__}"))
    if type(vit.patch_embed) is not PatchEmbed:
        raise ConfigError(_not_plain(name, "its patches come from another network"))
    for block in vit.blocks:
        attention = getattr(block, "attn", None)
        known = type(block) in (Block, EvaBlock, beit.Block)
        if not known or type(attention) not in (Attention, AttentionRope, EvaAttention, beit.Attention):
            raise ConfigError(_not_plain(name, f"its blocks are {type(block).__name__}"))
        if getattr(attention, "num_kv_groups", 1) != 1:
            raise ConfigError(_not_plain(name, "its heads share keys"))
    if getattr(vit, "rel_pos_bias", None) is not None:
        raise ConfigError(_not_plain(name, "its blocks share one bias"))
    return cast("VisionTransformer", vit)


def _not_plain(name: str, why: str) -> str:
    return (
        f"'{name}' is no plain ViT: {why}. Plain ones are ViT, DeiT, DINO, DINOv2, DINOv3, SigLIP, EVA-02 "
        "and BEiT of timm, and vit:patch=16,dim=192,depth=12,heads=3,size=224"
    )


def _custom_vit(shape: str, drop_path: float) -> VisionTransformer:
    from timm.models.vision_transformer import VisionTransformer

    values: dict[str, int] = dict(_CUSTOM_DEFAULTS)
    for item in shape.removeprefix("vit:").split(","):
        key, _, text = item.partition("=")
        if key not in values or not (text.isascii() and text.isdigit() and len(text) < 20):
            raise ConfigError(
                f"backbone '{shape}': '{item}' is not name=number. {nearest(key, _CUSTOM_DEFAULTS)}"
            )
        values[key] = int(text)
        least, most = _CUSTOM_RANGES[key]
        if not least <= values[key] <= most:
            raise ConfigError(f"backbone '{shape}': {key} must be {least} to {most}, got {values[key]}")
    if values["dim"] % values["heads"]:
        raise ConfigError(f"backbone '{shape}': dim must be a multiple of heads")
    if values["size"] < values["patch"]:
        raise ConfigError(f"backbone '{shape}': size must be at least one patch, {values['patch']}")
    if values["stem"] and (values["patch"] not in (2, 4, 8, 16, 32) or values["dim"] % 4):
        raise ConfigError(f"backbone '{shape}': a stem needs patch 8, 16 or 32 and a dim that 4 divides")
    vit = VisionTransformer(
        img_size=values["size"],
        patch_size=values["patch"],
        embed_dim=values["dim"],
        depth=values["depth"],
        num_heads=values["heads"],
        mlp_ratio=values["mlp"],
        reg_tokens=values["registers"],
        drop_path_rate=drop_path,
        num_classes=0,
    )
    if values["stem"]:
        vit.patch_embed.proj = _conv_stem(values["patch"], values["dim"])
    return vit


def _conv_stem(patch: int, dim: int) -> nn.Sequential:
    """Strided convolutions in place of one large patch (Xiao et al., NeurIPS 2021).

    A small ViT that starts from nothing learns textures many times faster with them. Groups rather than
    batches are normalised, so that a view gives the same maps in whatever batch it travels.
    """
    steps = patch.bit_length() - 1
    layers: list[nn.Module] = []
    width = 3
    for step in range(steps):
        wider = max(dim >> (steps - 1 - step), 16)
        layers += [nn.Conv2d(width, wider, 3, 2, 1, bias=False), nn.GroupNorm(4, wider), nn.GELU()]
        width = wider
    return nn.Sequential(*layers, nn.Conv2d(width, dim, 1))
