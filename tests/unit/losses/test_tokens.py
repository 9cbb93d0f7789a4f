import math

import pytest
import torch
import torch.nn.functional as F

from tagmask.losses.tokens import (
    class_patch_contrast,
    class_token_contrast,
    patch_contrast,
    uncertain_regions,
)
from tagmask.ops.affinity import affinity_labels


def inputs():
    torch.manual_seed(0)
    labels = torch.tensor([0, 1, 2, 255])[torch.randint(0, 4, (2, 5, 6))]
    tags = torch.tensor([[1.0, 1, 0], [0, 1, 0]])
    return torch.randn(2, 3, 8), torch.randn(2, 8, 5, 6), labels, tags


def test_class_patch_contrast_is_the_double_loop():
    tokens, patches, labels, tags = inputs()
    total = 0.0
    for image in range(2):
        for k in range(3):
            z = F.normalize(tokens[image, k], dim=0) @ patches[image].flatten(1) / 0.5
            own = labels[image].flatten() == k + 1
            if tags[image, k] and own.any():
                cost = -(z[own].exp() / (z.exp().sum() + 1e-4)).log()
                total += cost.sum() / (own.sum() + 1e-4) / 2
    torch.testing.assert_close(class_patch_contrast(tokens, patches, labels, tags, 0.5), total)


def test_class_patch_contrast_survives_large_scores_and_trains_class_tokens_only():
    tokens, patches, labels, tags = inputs()
    tokens.requires_grad_()
    patches.requires_grad_()
    loss = class_patch_contrast(tokens, 100 * patches, labels, tags, 0.1)
    loss.backward()
    assert loss.isfinite()
    assert tokens.grad.isfinite().all()
    assert patches.grad is None
    assert class_patch_contrast(tokens, patches, torch.full_like(labels, 255), tags, 0.1) == 0


def test_identical_class_tokens_cost_the_logarithm_of_their_number_without_gradient():
    tokens = torch.randn(2, 1, 8).expand(-1, 5, -1).clone().requires_grad_()
    loss = class_token_contrast(tokens)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(5), rel=1e-5)
    assert tokens.grad.abs().max() < 1e-5
    apart = torch.eye(5, 8)[None]
    assert class_token_contrast(apart) < 1e-4


def test_patch_contrast_rewards_equal_pairs_alike_and_unequal_apart():
    labels = torch.tensor([[[1, 1], [0, 255]]])
    patches = torch.zeros(1, 3, 2, 2)
    patches[0, 0, 0], patches[0, 1, 1, 0], patches[0, 0, 1, 1] = 2.0, 1.0, 1.0
    loss = patch_contrast(patches, affinity_labels(labels, diagonal=False))
    assert loss.item() == pytest.approx(0.5 * (1 - 2 / 3))
    undecided = affinity_labels(torch.full((1, 2, 2), 255), diagonal=False)
    assert patch_contrast(patches, undecided) == 0.5


def test_uncertain_regions_pull_to_positive_classes_and_train_patches_only():
    tokens, patches, _, tags = inputs()
    tokens.requires_grad_()
    patches.requires_grad_()
    picked = torch.tensor([[0, 1, 2], [1, 4, 5]])
    loss = uncertain_regions(tokens, patches, tags, picked)
    loss.backward()
    expected = 0.0
    for image, row, column in picked.tolist():
        s = F.cosine_similarity(patches[image, :, row, column][None], tokens[image]).abs()
        y = tags[image]
        expected += 0.25 * (1 - (y * s).sum() / (y.sum() + 1)) + 0.25 * ((1 - y) * s).sum() / (
            (1 - y).sum() + 1
        )
    torch.testing.assert_close(loss, expected)
    assert tokens.grad is None
    assert patches.grad[0, :, 0].abs().sum() == 0 < patches.grad[0, :, 1, 2].abs().sum()
    assert uncertain_regions(tokens, patches, tags, torch.zeros(0, 3, dtype=torch.int64)) == 0


def test_losses_compute_in_full_precision_under_autocast():
    tokens, patches, labels, tags = inputs()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = class_patch_contrast(tokens, patches, labels, tags, 0.5)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, class_patch_contrast(tokens, patches, labels, tags, 0.5))


def test_patch_contrast_takes_opposite_patches_for_alike():
    patches = torch.tensor([1.0, -1.0]).view(1, 1, 1, 2)
    equal, unequal = (affinity_labels(torch.tensor([[row]]), diagonal=False) for row in ([1, 1], [1, 2]))
    # Two pairs each way; 1 is added to their number.
    assert patch_contrast(patches, equal).item() == pytest.approx(0.5 * (1 - 2 / 3))
    assert patch_contrast(patches, unequal).item() == pytest.approx(0.5 + 0.5 * 2 / 3)
