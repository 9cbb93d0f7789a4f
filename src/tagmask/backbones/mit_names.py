"""Pretrained weights of the Mix Transformer, whatever names a file gives them."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from tagmask.backbones.weights import hub_file, read_weights
from tagmask.errors import CheckpointError

__all__ = ["mit_names", "mit_weights"]

# The transformers library's names, as stored on its hub (releases up to 4) and as of release 5. Stages count
# from 0 there and from 1 here.
_RENAMES = (
    (r"encoder\.patch_embeddings\.(\d)\.(?:layer_)?(proj|norm)\.", "patch_embed{}.{}."),
    (r"encoder\.layer_norm\.(\d)\.", "norm{}."),
    (r"encoder\.block\.(\d)\.(\d+)\.", "block{}.{}."),
    (r"stages\.(\d)\.patch_embeddings\.(?:layer_)?(proj|norm)\.", "patch_embed{}.{}."),
    (r"stages\.(\d)\.layer_norm\.", "norm{}."),
    (r"stages\.(\d)\.blocks\.(\d+)\.", "block{}.{}."),
)
_PARTS = {
    "layer_norm_1": "norm1",
    "layernorm_before": "norm1",
    "layer_norm_2": "norm2",
    "layernorm_after": "norm2",
    "attention.self.query": "attn.q",
    "attention.q_proj": "attn.q",
    "attention.self.key": "attn.k",
    "attention.k_proj": "attn.k",
    "attention.self.value": "attn.v",
    "attention.v_proj": "attn.v",
    "attention.output.dense": "attn.proj",
    "attention.o_proj": "attn.proj",
    "attention.self.sr": "attn.sr",
    "attention.sequence_reduction.sequence_reduction": "attn.sr",
    "attention.self.layer_norm": "attn.norm",
    "attention.sequence_reduction.layer_norm": "attn.norm",
    "mlp.dense1": "mlp.fc1",
    "mlp.dense2": "mlp.fc2",
}


def mit_weights(name: str, source: str) -> dict[str, Tensor]:
    """ImageNet weights of an encoder under `MixTransformer`'s names.

    Args:
        name: A key of `MIT_VARIANTS`.
        source: "hub", or a local file in any naming scheme `mit_names` reads.

    Raises:
        CheckpointError: The hub cannot be reached, or the file is missing, damaged or holds something else.
    """
    state = (
        hub_file(f"smp-hub/{name}.imagenet", "model.safetensors") if source == "hub" else read_weights(source)
    )
    return mit_names(state)


def mit_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Encoder weights under `MixTransformer`'s names, from any of the three naming schemes in use.

    Args:
        state: Weights of SegFormer's releases (``patch_embed1.proj.weight``), or of the transformers library
            in its old (``segformer.encoder.patch_embeddings.0...``) or new (``segformer.stages.0...``) style.
            An ImageNet classifier on top (``head.*``, ``classifier.*``) is left out.

    Returns:
        Names and tensors to load strictly; keys and values of transformers are joined to one ``kv``.

    Raises:
        CheckpointError: A key of transformers comes without its value.
    """
    named = {
        _mit_name(key.removeprefix("segformer.")): value
        for key, value in state.items()
        if not key.startswith(("head.", "classifier."))
    }
    joined: dict[str, Tensor] = {}
    for name, tensor in named.items():
        if ".attn.v." in name:
            continue
        if ".attn.k." in name:
            partner = named.get(name.replace(".attn.k.", ".attn.v."))
            if partner is None:
                raise CheckpointError(f"the weights hold attention keys without values near '{name}'")
            name, tensor = name.replace(".attn.k.", ".attn.kv."), torch.cat([tensor, partner])
        joined[name] = tensor
    return joined


def _mit_name(key: str) -> str:
    for pattern, template in _RENAMES:
        match = re.match(pattern, key)
        if match:
            stage, *others = match.groups()
            rest = key[match.end() :]
            part, _, leaf = rest.rpartition(".")
            return template.format(int(stage) + 1, *others) + (
                f"{_PARTS.get(part, part)}.{leaf}" if part else leaf
            )
    return key
