"""Which ViTs of timm our loop runs: it must compute what timm's own forward does, or say why it cannot."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.models import is_model_in_modules
from torch import nn

from tagmask.backbones.conformer import Conformer
from tagmask.backbones.vit import ViT
from tagmask.backbones.vit_names import build_vit
from tagmask.backbones.vit_positions import RelativeBias
from tagmask.errors import ConfigError
from tagmask.methods import create_method
from tagmask.types import Batch

PLAIN = {
    "vit_small_patch16_dinov3": "rotary positions, registers, no table",
    "eva02_tiny_patch14_224": "rotary positions beside a table, SwiGLU, norm behind the pooling",
    "vit_small_patch16_rope_mixed_224": "learned rotary angles that differ from block to block",
    "vit_pe_core_tiny_patch16_384": "rotary positions and a norm before the blocks",
    "vit_base_patch16_siglip_224": "no class token",
    "deit3_small_patch16_224": "class token without a position",
    "beit_base_patch16_224": "a bias of attention by offset, no table",
}


def reference(name):
    torch.manual_seed(0)
    more = {"dynamic_img_size": True} if is_model_in_modules(name, {"eva"}) else {}
    model = timm.create_model(name, pretrained=False, num_classes=0, **more).eval()
    with torch.no_grad():
        for param in model.parameters():
            param.add_(0.02 * torch.randn_like(param))
    return model


@torch.no_grad()
@pytest.mark.parametrize("name", PLAIN, ids=PLAIN.values())
def test_our_loop_computes_what_timm_does(name):
    theirs = reference(name)
    has_class_token = theirs.cls_token is not None
    ours = ViT(name, int(has_class_token), extra_token_noise=0.0).eval()
    ours.load_plain(theirs.state_dict(), name)
    images = torch.rand(1, 3, ours.grid[0] * ours.patch_size, ours.grid[1] * ours.patch_size)
    expected = theirs.forward_features(ours.normalise(images))
    if isinstance(theirs.norm, nn.Identity):
        expected = theirs.fc_norm(expected)
    fused = ours(images)
    unfused = ours(images, scores=range(ours.depth), reduce=lambda scores: scores.mean(1))
    for found in (fused, unfused):
        patches = found.patches.flatten(2).transpose(1, 2)
        torch.testing.assert_close(patches, expected[:, theirs.num_prefix_tokens :], rtol=0, atol=1e-5)
        if has_class_token:
            torch.testing.assert_close(found.class_tokens[:, 0], expected[:, 0], rtol=0, atol=1e-5)
    side = ours.patch_size
    assert ours(torch.rand(1, 3, 3 * side, 5 * side)).grid == (3, 5)


def test_a_bias_by_offset_means_the_same_on_another_grid():
    table = torch.nn.Parameter(torch.randn(5 * 5 + 3, 2))  # a grid of 3 x 3, two heads
    made = RelativeBias(table, (3, 3))
    own = made((3, 3), 2)
    assert own.shape == (1, 2, 11, 11)
    # Query (2, 0) and key (0, 1) lie +2 rows and -1 column apart.
    torch.testing.assert_close(own[0, :, 2 + 6, 2 + 1], table[(2 + 2) * 5 + (-1 + 2)])
    for place, row in (((0, 5), -3), ((5, 1), -2), ((1, 0), -1)):
        torch.testing.assert_close(own[0, :, place[0], place[1]], table[row])
    wide = made((2, 7), 1)
    assert wide.shape == (1, 2, 15, 15)
    patches = wide[0, :, 1:, 1:].reshape(2, 2, 7, 2, 7)
    torch.testing.assert_close(patches[:, 1, 5, 0, 3], patches[:, 1, 3, 0, 1])  # the same offset
    torch.testing.assert_close(patches[:, 0, 0, 0, 0], table[2 * 5 + 2])  # the middle stays the middle


@pytest.mark.parametrize(
    ("method", "backbone"),
    [
        ("more", "vit_small_patch16_dinov3"),
        ("weaktr", "eva02_tiny_patch14_224"),
        ("mctformer", "vit_small_patch16_rope_mixed_224"),
        ("more", "beitv2_base_patch16_224"),
    ],
)
def test_a_training_step_reaches_every_block(method, backbone):
    torch.manual_seed(0)
    made = create_method(method, 3, backbone=backbone, weights="none").train()
    side = 4 * (14 if "patch14" in backbone else 16)
    tags = torch.tensor([[1.0, 0, 1], [0, 1, 0]])
    result = made(Batch(torch.rand(2, 3, side, side), tags, ("a", "b")), 0)
    assert result.loss.isfinite()
    result.loss.backward()
    blocks = (made.backbone if method == "mctformer" else made.encoder).blocks
    assert all(any(float(p.grad.abs().sum()) > 0 for p in block.parameters()) for block in blocks)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("vit_tiny_r_s16_p8_224", "patches come from another network"),
        ("vit_small_resnet26d_224", "patches come from another network"),
        ("vit_base_mci_224", "patches come from another network"),
        ("deit_tiny_distilled_patch16_224", "it is a VisionTransformerDistilled"),
        ("vit_relpos_small_patch16_224", "it is a VisionTransformerRelPos"),
        ("resnet18", "it is a ResNet"),
        ("vit_tiny_patch16_224.nosuchtag", "no weights tagged 'nosuchtag'. Known: augreg"),
        ("vit_tiny_patch16_224.augreg_in21k_ft_in1K", "Did you mean 'augreg_in21k_ft_in1k'"),
        ("vit_tinny_patch16_224", "Did you mean 'vit_tiny_patch16_224'"),
        ("vit:patch=0", "patch must be 1 to 256"),
        ("vit:heads=0", "heads must be 1 to 1024"),
        ("vit:depth=0", "depth must be 1 to 256"),
        ("vit:dim=0", "dim must be 1 to 16384"),
        ("vit:dim=1000000000", "dim must be 1 to 16384"),
        ("vit:mlp=0", "mlp must be 1 to 64"),
        ("vit:size=8", "size must be at least one patch"),
        ("vit:patch=²", "is not name=number"),
        ("vit:", "is not name=number"),
        ("vit:dim=30,heads=3,patch=8,stem=1", "a dim that 4 divides"),
    ],
)
def test_other_names_end_in_one_clear_line(name, why):
    with pytest.raises(ConfigError) as error:
        build_vit(name)
    assert why in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["dim", "depth", "heads", "ratio", "base"])
def test_a_conformer_of_nothing_is_refused(key):
    with pytest.raises(ConfigError, match=f"{key} must be 1 to"):
        Conformer(f"conformer:{key}=0", True)
