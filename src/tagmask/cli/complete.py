"""What the shell completes: recipes, methods, backbones. Nothing here loads PyTorch."""

from __future__ import annotations

from tagmask import methods, recipes

__all__ = ["BACKBONES", "backbones", "known_methods", "known_recipes", "things"]

BACKBONES = (
    "tagmask_demo",
    "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
    "vit_small_patch16_224.augreg_in21k_ft_in1k",
    "vit_base_patch16_224.orig_in21k_ft_in1k",
    "vit_base_patch16_224.augreg_in21k_ft_in1k",
    "vit_small_patch16_224.dino",
    "vit_base_patch16_224.dino",
    "deit_tiny_patch16_224.fb_in1k",
    "deit_small_patch16_224.fb_in1k",
    "deit_base_patch16_224.fb_in1k",
    "vit_small_patch14_dinov2.lvd142m",
    "vit_base_patch14_dinov2.lvd142m",
    "mit_b0",
    "mit_b1",
    "mit_b2",
    "mit_b3",
    "mit_b4",
    "mit_b5",
    "conformer_small",
    "resnet38",
)
"""Backbones that people ask for most; any other plain ViT of timm works as well."""


def known_recipes(incomplete: str) -> list[str]:
    """Shipped recipes that begin like this; files and folders are the shell's own business."""
    return [name for name in recipes.names() if name.startswith(incomplete)]


def known_methods(incomplete: str) -> list[str]:
    """Methods that begin like this."""
    return [name for name in methods.names() if name.startswith(incomplete)]


def backbones(incomplete: str) -> list[str]:
    """Backbones that begin like this."""
    return [name for name in BACKBONES if name.startswith(incomplete)]


def things(incomplete: str) -> list[str]:
    """What ``tagmask show`` explains."""
    known = [*methods.names(), *recipes.names(), "settings"]
    return [name for name in known if name.startswith(incomplete)]
