from __future__ import annotations

import pytest
import torch

from tagmask.backbones.mit import MIT_VARIANTS, MixTransformer
from tagmask.backbones.mit_names import mit_names
from tagmask.errors import CheckpointError

PARAMETERS = {
    "mit_b0": 3_319_392,
    "mit_b1": 13_151_424,
    "mit_b2": 24_196_288,
    "mit_b3": 44_072_128,
    "mit_b4": 60_842_688,
    "mit_b5": 81_443_008,
}


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return MixTransformer("mit_b0").eval()


@pytest.mark.parametrize("name", MIT_VARIANTS)
def test_every_variant_has_the_published_size(name):
    with torch.device("meta"):
        model = MixTransformer(name)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("size", [(32, 32), (29, 45), (64, 50)])
def test_grids_round_up(encoder, size):
    features = encoder(torch.rand(1, 3, *size))
    assert [m.shape[1] for m in features.maps] == [32, 64, 160, 256]
    assert features.maps[-1].shape[2:] == encoder.grid(*size)
    assert encoder.grid(*size) == tuple(-(-side // 16) for side in size)


def test_taps_hold_the_unscaled_scores_pooled_to_the_key_grid(encoder):
    captured = {}
    attention = encoder.block2[0].attn
    handle = attention.register_forward_pre_hook(
        lambda _, inputs: captured.update(x=inputs[0], grid=inputs[1])
    )
    features = encoder(torch.rand(2, 3, 64, 64), attention=(2, -1), attended=1)
    handle.remove()
    assert set(features.attention) == {2, 7}
    query, key = features.attention[2]
    assert query.shape == key.shape == (1, 2, 4, 32)
    # The definition: all scores of 8 x 8 queries, averaged over windows of 4 x 4 queries per key.
    full = attention.q(captured["x"][:1]).view(1, 64, 2, 32).transpose(1, 2) @ key.transpose(2, 3)
    pooled = full.view(1, 2, 2, 4, 2, 4, 4).mean(dim=(3, 5)).view(1, 2, 4, 4)
    torch.testing.assert_close(query @ key.transpose(2, 3), pooled, rtol=1e-4, atol=1e-5)


def test_taps_do_not_change_the_features_and_carry_gradient(encoder):
    images = torch.rand(1, 3, 32, 32)
    read = encoder(images, attention=(-1,))
    torch.testing.assert_close(read.maps[-1], encoder(images).maps[-1])
    query, key = read.attention[7]
    (query @ key.transpose(2, 3)).sum().backward()
    assert encoder.block4[1].attn.q.weight.grad.abs().max() > 0
    encoder.zero_grad()


def test_drop_path_grows_linearly():
    rates = [
        b.drop_path.drop_prob for i in range(1, 5) for b in getattr(MixTransformer("mit_b0"), f"block{i}")
    ]
    assert rates == pytest.approx([i * 0.1 / 7 for i in range(8)])


def test_layer_norm_epsilons(encoder):
    for name, module in encoder.named_modules():
        if isinstance(module, torch.nn.LayerNorm):
            inner = "patch_embed" in name or "attn" in name
            assert module.eps == (1e-5 if inner else 1e-6), name


def test_small_images_and_wrong_names_are_refused(encoder):
    with pytest.raises(ValueError, match="too small"):
        encoder(torch.rand(1, 3, 28, 64))
    with pytest.raises(ValueError, match="mit_b3"):
        MixTransformer("mit_b9")
    with pytest.raises(ValueError, match="strides"):
        MixTransformer("mit_b0", (4, 2, 2))


def _transformers_names(state, new):
    """The mapping written down the other way round, for one block per stage and the pieces around."""
    renamed = {}
    for key, value in state.items():
        kind, leaf = key.rsplit(".", 1)
        head, *rest = kind.split(".")
        stage = int(head[-1]) - 1
        if head.startswith("patch_embed"):
            part = {"proj": "proj", "norm": "layer_norm"}[rest[0]]
            base = f"stages.{stage}.patch_embeddings" if new else f"encoder.patch_embeddings.{stage}"
            renamed[f"segformer.{base}.{part}.{leaf}"] = value
        elif head.startswith("norm"):
            base = f"stages.{stage}.layer_norm" if new else f"encoder.layer_norm.{stage}"
            renamed[f"segformer.{base}.{leaf}"] = value
        else:
            base = (
                f"segformer.stages.{stage}.blocks.{rest[0]}"
                if new
                else f"segformer.encoder.block.{stage}.{rest[0]}"
            )
            part = ".".join(rest[1:])
            if part == "attn.kv":
                names = ("k_proj", "v_proj") if new else ("self.key", "self.value")
                for name, half in zip(names, value.chunk(2), strict=True):
                    renamed[f"{base}.attention.{name}.{leaf}"] = half
                continue
            table = {
                "norm1": ("layer_norm_1", "layernorm_before"),
                "norm2": ("layer_norm_2", "layernorm_after"),
                "attn.q": ("attention.self.query", "attention.q_proj"),
                "attn.proj": ("attention.output.dense", "attention.o_proj"),
                "attn.sr": ("attention.self.sr", "attention.sequence_reduction.sequence_reduction"),
                "attn.norm": ("attention.self.layer_norm", "attention.sequence_reduction.layer_norm"),
                "mlp.fc1": ("mlp.dense1", "mlp.fc1"),
                "mlp.fc2": ("mlp.dense2", "mlp.fc2"),
            }
            renamed[f"{base}.{table.get(part, (part, part))[new]}.{leaf}"] = value
    return renamed


@pytest.mark.parametrize("new", [False, True])
def test_transformers_names_come_back(encoder, new):
    state = encoder.state_dict()
    foreign = _transformers_names(state, new) | {
        "classifier.weight": torch.zeros(3),
        "classifier.bias": torch.zeros(3),
    }
    back = mit_names(foreign)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[k], state[k]) for k in state)


def test_original_names_pass_and_the_image_classifier_is_dropped(encoder):
    state = encoder.state_dict()
    assert (
        mit_names(state | {"head.weight": torch.zeros(3), "head.bias": torch.zeros(3)}).keys() == state.keys()
    )


def test_key_without_value_is_named(encoder):
    foreign = _transformers_names(encoder.state_dict(), new=True)
    broken = {k: v for k, v in foreign.items() if "v_proj" not in k}
    with pytest.raises(CheckpointError, match="without values"):
        mit_names(broken)
