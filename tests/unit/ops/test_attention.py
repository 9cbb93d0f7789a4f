import torch

from tagmask.ops.attention import attend_maps, class_patch_similarity, class_to_patch, patch_to_patch


def test_similarity_is_the_plain_dot_product():
    torch.manual_seed(0)
    tokens, patches = torch.randn(2, 3, 5), torch.randn(2, 5, 4, 6)
    maps = class_patch_similarity(tokens, patches)
    torch.testing.assert_close(maps[1, 2, 3, 4], tokens[1, 2] @ patches[1, :, 3, 4])


def test_parts_of_attention_are_cut_where_the_tokens_stand():
    attention = torch.arange(1 * 2 * 9 * 9).float().view(1, 2, 9, 9)  # 2 extra, 1 class, 2 x 3 patches
    seen = class_to_patch(attention, 3, 1, (2, 3))
    assert torch.equal(seen[0, 1, 0].flatten(), attention[0, 1, 2, 3:])
    assert class_to_patch(attention.mean(1), 3, 1, (2, 3)).shape == (1, 1, 2, 3)
    assert torch.equal(patch_to_patch(attention, 3), attention[..., 3:, 3:])


def test_attended_maps_take_the_root_of_what_is_seen_and_rows_that_sum_to_one():
    maps, seen = torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[0.25, 0.04]]]])
    affinity = torch.tensor([[[3.0, 1.0], [1.0, 1.0]]])
    # Weighed: 0.5 and 0.4; the first patch keeps three quarters of itself.
    expected = torch.tensor([[[[0.5 * 0.75 + 0.4 * 0.25, 0.5 * 0.5 + 0.4 * 0.5]]]])
    torch.testing.assert_close(attend_maps(maps, seen, affinity), expected)
