import pytest
import timm
import torch

from tagmask.backbones.attention import attention_with_scores
from tagmask.backbones.vit import ViT
from tagmask.errors import CheckpointError, ConfigError

TINY = "vit:patch=8,dim=32,depth=3,heads=2,size=32"


def make(classes=2, extra=3, **settings):
    torch.manual_seed(0)
    return ViT(TINY, classes, extra, **settings).eval()


def shaken(name, **settings):
    """A timm model whose parameters, tokens and scales included, are all different."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=0, **settings).eval()
    with torch.no_grad():
        for param in model.parameters():
            param.add_(0.02 * torch.randn_like(param))
    return model


@pytest.mark.parametrize(
    "name",
    [
        "vit_tiny_patch16_224",
        "deit_tiny_patch16_224",
        "vit_small_patch14_reg4_dinov2",
        "deit3_small_patch16_224",
    ],
)
@torch.no_grad()
def test_our_loop_equals_the_forward_of_timm(name):
    model = shaken(name)
    ours = ViT(name, normalisation=((0, 0, 0), (1, 1, 1))).eval()
    ours.load_plain(model.state_dict(), name)
    images = torch.rand(1, 3, *model.patch_embed.img_size)
    expected = model.forward_features(images)
    found = ours(images)
    patches = found.patches.flatten(2).transpose(1, 2)
    torch.testing.assert_close(patches, expected[:, model.num_prefix_tokens :], rtol=0, atol=3e-6)
    torch.testing.assert_close(found.class_tokens, expected[:, :1], rtol=0, atol=3e-6)
    scored = ours(images, scores=range(ours.depth), reduce=lambda scores: scores.mean(1))
    torch.testing.assert_close(scored.patches, found.patches, rtol=0, atol=3e-6)
    assert scored.scores[0].shape == (1, expected.shape[1], expected.shape[1])


def test_class_and_extra_tokens_of_any_number_on_any_size():
    model = make()
    found = model(torch.rand(2, 3, 45, 70), hidden=(0, 2))
    assert found.grid == (5, 8)
    assert found.patches.shape == (2, 32, 5, 8)
    assert found.class_tokens.shape == (2, 2, 32)
    assert found.hidden[0].shape == (2, 5 + 40, 32)
    torch.testing.assert_close(model.to_map(model.norm(found.hidden[2]), (5, 8)), found.patches)


def test_scores_are_scaled_and_carry_gradient():
    model = make().train()
    found = model(torch.rand(1, 3, 32, 32), scores=(1,))
    scores = found.scores[1]
    assert scores.shape == (1, 2, 21, 21)
    scores.logsumexp(-1).sum().backward()
    assert model.blocks[1].attn.qkv.weight.grad.abs().sum() > 0
    assert model.blocks[2].attn.qkv.weight.grad is None
    output, again = attention_with_scores(model.blocks[0].attn, torch.randn(1, 4, 32))
    assert output.shape == (1, 4, 32)
    assert again.shape == (1, 2, 4, 4)


@torch.no_grad()
def test_stopping_early_gives_the_raw_stream():
    model, images = make(), torch.rand(1, 3, 32, 32)
    whole, part = model(images, hidden=(1,)), model(images, last_block=1)
    torch.testing.assert_close(part.patches, model.to_map(whole.hidden[1], whole.grid))
    raw = model(images, norm=False, hidden=(2,))
    torch.testing.assert_close(raw.patches, model.to_map(raw.hidden[2], raw.grid))


def test_the_offset_rule_leaves_square_images_of_the_stored_grid_alone():
    plain, offset = make(), make(position_offset=0.1)
    assert plain.positions((32, 32)) is plain.pos_embed
    assert offset.positions((32, 32)) is offset.pos_embed
    assert plain.positions((32, 33)) is plain.pos_embed
    assert not torch.equal(offset.positions((32, 33)), offset.pos_embed)
    prefix = offset.positions((48, 40))[:, :5]
    assert torch.equal(prefix, offset.pos_embed[:, :5])


def test_normalisation_is_chosen_and_stays_out_of_the_weights():
    imagenet, own = make(normalisation="imagenet"), make()
    assert imagenet.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert own.std.flatten().tolist() == [0.5] * 3
    assert not {"mean", "std"} & own.state_dict().keys()
    assert ViT("deit_tiny_patch16_224").mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])


def test_tokens_start_as_the_pretrained_one():
    plain, many = ViT(TINY), make()
    many.load_plain(plain.state_dict(), "plain")
    assert torch.equal(many.cls_token, plain.cls_token.expand(1, 5, -1))
    assert torch.equal(many.pos_embed[:, 5:], plain.pos_embed[:, 1:])
    assert torch.equal(many.pos_embed[:, 3:5], plain.pos_embed[:, :1].expand(1, 2, -1))
    spread = make(extra=200).pos_embed[:, :200]
    assert spread.std().item() == pytest.approx(0.88, abs=0.03)
    assert spread.abs().max() <= 2
    assert make(extra_token_noise=0.0).pos_embed[:, :3].std(1).max() < 1e-6


def test_pretrained_registers_become_extra_tokens():
    name = f"{TINY},registers=2"
    source = ViT(name, 1)
    assert source.num_extra_tokens == 2
    state = {"reg_token": torch.randn(1, 2, 32), "cls_token": torch.randn(1, 1, 32)}
    state["pos_embed"] = torch.randn(1, 1 + 2 + 16, 32)
    plain = {k: v for k, v in source.state_dict().items() if k not in state}
    model = ViT(name, 3, 3)
    model.load_plain(plain | state, "registers")
    assert torch.equal(model.cls_token[:, :2], state["reg_token"])
    assert torch.equal(model.cls_token[:, 2:], state["cls_token"].expand(1, 4, -1))
    assert torch.equal(model.pos_embed[:, :2], state["pos_embed"][:, 1:3])
    assert torch.equal(model.pos_embed[:, 6:], state["pos_embed"][:, 3:])


def test_weights_of_another_shape_change_nothing():
    model, other = make(), ViT("vit:patch=8,dim=64,depth=3,heads=2,size=32")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(CheckpointError, match="weights of another shape"):
        model.load_plain(other.state_dict(), "other")
    narrow = dict(ViT(TINY).state_dict()) | {"blocks.1.mlp.fc1.weight": torch.zeros(9, 32)}
    with pytest.raises(CheckpointError, match=r"blocks\.1\.mlp\.fc1\.weight is \(9, 32\) but must be"):
        model.load_plain(narrow, "narrow")
    rows = dict(ViT(TINY).state_dict()) | {"pos_embed": torch.zeros(1, 13, 32)}
    with pytest.raises(CheckpointError, match="pos_embed has 13 rows"):
        model.load_plain(rows, "rows")
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vit_tinny_patch16_224", "Did you mean 'vit_tiny_patch16_224'"),
        ("resnet18", "no plain ViT"),
        ("vit:patch=8,colour=3", "'colour=3' is not name=number"),
        ("vit:dim=10,heads=3", "multiple of heads"),
    ],
)
def test_a_wrong_name_says_what_is_allowed(name, message):
    with pytest.raises(ConfigError, match=message):
        ViT(name)


def test_impossible_blocks_and_images_are_refused():
    model = make()
    assert model.block_index(-1) == 2
    with pytest.raises(ConfigError, match="blocks 0 to 2"):
        model.block_index(3)
    with pytest.raises(ValueError, match="holds no patch"):
        model(torch.rand(1, 3, 7, 32))
