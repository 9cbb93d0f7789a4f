"""Plain vision transformers: timm's modules under our own loop, with any number of class and extra tokens."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, nn

from tagmask.backbones.attention import block_with_scores
from tagmask.backbones.base import TokenFeatures, recomputed
from tagmask.backbones.vit_names import PACKAGED, build_vit, is_registered
from tagmask.backbones.vit_positions import positions_of_blocks, take_biases, with_own_names
from tagmask.backbones.vit_weights import Normalisation, check_plain, mean_and_deviation, patch_rows
from tagmask.backbones.weights import hub_weights, load_strictly, packaged_weights, read_weights
from tagmask.errors import ConfigError
from tagmask.ops.resize import resize_positions, resize_positions_traced
from tagmask.ops.steps import in_steps

__all__ = ["Normalisation", "ViT"]


class ViT(nn.Module):
    """A ViT, DINO, SigLIP, EVA-02 or BEiT: class tokens, patch maps and, on request, what lies between.

    Tokens stand in the order extra, class, patch. Extra tokens (registers) take part in attention and appear
    in no output. Parameters carry timm's names; `cls_token` (1, P, D) and `pos_embed` (1, P + N, D) hold the
    extra tokens first. A network without a class token (SigLIP) gets random ones, one without a position
    table (DINOv3, BEiT) a table of zeros; both learn.

    Args:
        name: timm name of a plain ViT, "tagmask_demo", or a custom shape such as
            ``vit:patch=8,dim=128,depth=6,heads=4,size=96``.
        num_class_tokens: K, class tokens; all start as copies of the pretrained one.
        num_extra_tokens: Registers; as many as the pretrained model has if None.
        normalisation: "imagenet", "weights" (what the pretrained weights expect), or (mean, std).
        position_offset: See `ops.resize.resize_positions`: 0 resizes the position table to the grid, 0.1
            follows DINO's scale-factor rule.
        extra_token_noise: Deviation of the position rows of extra tokens without pretrained ones (MoRe: 1),
            cut at two deviations; with 0 they start as the class token's.
        grid: Patch grid of the stored position table; the model's own if None.
        grid_mode: How a pretrained table becomes that grid: "bicubic", "bilinear" or "nearest".
        drop_path: Largest stochastic-depth rate (linear over the blocks).

    Raises:
        ConfigError: The name is unknown or no plain ViT.
    """

    gradient_checkpointing = False
    """Whether training keeps only each block's input and computes the rest again in the backward pass."""
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        num_class_tokens: int = 1,
        num_extra_tokens: int | None = None,
        *,
        normalisation: Normalisation = "weights",
        position_offset: float = 0.0,
        extra_token_noise: float = 1.0,
        grid: tuple[int, int] | None = None,
        grid_mode: str = "bicubic",
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        model = build_vit(name, drop_path)
        self.name = name
        self.dim = int(model.embed_dim)
        self.num_class_tokens = num_class_tokens
        registers = getattr(model, "reg_token", None)
        registers = 0 if registers is None else int(registers.shape[1])
        self.num_extra_tokens = registers if num_extra_tokens is None else num_extra_tokens
        self.position_offset = position_offset
        self.extra_token_noise = extra_token_noise
        self.patch_size = int(model.patch_embed.patch_size[0])
        self.grid = grid or tuple(model.patch_embed.grid_size)
        self.grid_mode = grid_mode
        patches = self.grid[0] * self.grid[1]
        self.cls_token = nn.Parameter(torch.zeros(1, self.num_prefix_tokens, self.dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, self.num_prefix_tokens + patches, self.dim))
        self.patch_embed, self.norm_pre = model.patch_embed, getattr(model, "norm_pre", nn.Identity())
        self.blocks, self.norm = model.blocks, model.norm
        self._biased = take_biases(model.blocks, model.patch_embed.grid_size)
        # timm moves the last norm of some behind the pooling, where neither maps nor masks would see it.
        self._norm_is_last = not isinstance(self.norm, nn.Identity)
        if not self._norm_is_last:
            self.norm = model.fc_norm
        self.rope: Any = getattr(model, "rope", None)
        if self.rope is not None:
            rotated: Any = self.blocks
            for block in rotated:
                block.attn.num_prefix_tokens = self.num_prefix_tokens
        self._lacks = tuple(key for key in ("cls_token", "pos_embed") if getattr(model, key) is None)
        self.normalisation = mean_and_deviation(normalisation, model)
        for key, values in zip(("mean", "std"), self.normalisation, strict=True):
            self.register_buffer(
                key, torch.tensor(values, dtype=torch.float32).view(3, 1, 1), persistent=False
            )
        self._set_tokens(self._completed(model.state_dict()))

    @property
    def num_prefix_tokens(self) -> int:
        """P, extra and class tokens together."""
        return self.num_extra_tokens + self.num_class_tokens

    @property
    def depth(self) -> int:
        """L, the number of blocks."""
        return len(self.blocks)

    def block_index(self, block: int) -> int:
        """Index counted from the front; negative ones count from the last block.

        Raises:
            ConfigError: There is no such block.
        """
        if not -self.depth <= block < self.depth:
            raise ConfigError(f"{self.name} has blocks 0 to {self.depth - 1}, there is no block {block}")
        return block % self.depth

    def initialise(self, weights: str) -> None:
        """Load pretrained weights; class tokens become copies of the pretrained one.

        Extra tokens take the pretrained registers, as far as there are any; the others copy the class token
        and get position rows drawn at random, see `extra_token_noise`.

        Args:
            weights: "hub" (the weights that belong to the name), "none" (stay random), or a local file with
                timm's key names.

        Raises:
            CheckpointError: The weights cannot be had or do not fit.
        """
        if weights == "none" or (weights == "hub" and is_registered(self.name)):
            return
        if weights != "hub":
            state, source = read_weights(weights), f"{weights} for {self.name}"
        elif self.name in PACKAGED:
            state, source = packaged_weights(PACKAGED[self.name][1]), self.name
        else:
            state, source = hub_weights(self.name), f"the hub's {self.name}"
        self.load_plain(state, source)

    def load_plain(self, state: dict[str, Tensor], source: str) -> None:
        """Load a plain ViT (one class token, timm's names, any classifier) into this one.

        Args:
            state: The weights.
            source: What the user knows them as, for messages.

        Raises:
            CheckpointError: A name is missing or a shape differs; nothing is changed then.
        """
        state = self._completed(with_own_names(state))
        if not self._norm_is_last:
            state = {key.replace("fc_norm.", "norm."): value for key, value in state.items()}
        own = {key for key in self.state_dict() if key not in ("cls_token", "pos_embed")}
        tokens = ("cls_token", "pos_embed", "reg_token", "register_tokens")
        own_weights = {key: value for key, value in state.items() if key in own}
        check_plain(state, self.dim, source)
        other = ("head", "fc_norm", "mask_token", "attn_pool", "pre_logits", "lm_head", "rope")
        own_weights |= {k: v for k, v in state.items() if k not in tokens and not k.startswith(other)}
        held = nn.Module()
        for key in ("patch_embed", "norm_pre", "blocks", "norm", "rope"):
            held.add_module(key, getattr(self, key))
        load_strictly(held, own_weights, source)
        self._set_tokens(state)

    def _completed(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The weights with what the network itself does without: a random class token, positions of zero."""
        made = dict(state)
        if "cls_token" in self._lacks:
            made["cls_token"] = nn.init.trunc_normal_(torch.empty(1, 1, self.dim), std=0.02)
        if "pos_embed" in self._lacks:
            made["pos_embed"] = torch.zeros(1, self.grid[0] ** 2, self.dim)  # read as a square, resized after
        return made

    @torch.no_grad()
    def _set_tokens(self, state: dict[str, Tensor]) -> None:
        registers = state.get("reg_token", state.get("register_tokens"))
        count = 0 if registers is None else registers.shape[1]
        class_token, rows = state["cls_token"], state["pos_embed"]
        patches = patch_rows(rows.shape[1], count)
        prefix = rows[:, : rows.shape[1] - patches]
        class_row = prefix[:, :1] if prefix.shape[1] else torch.zeros_like(class_token)
        extra, used = self.num_extra_tokens, min(count, self.num_extra_tokens)
        self.cls_token.copy_(class_token.expand_as(self.cls_token))
        self.pos_embed[:, : self.num_prefix_tokens].copy_(class_row.expand(1, self.num_prefix_tokens, -1))
        if noise := self.extra_token_noise:
            drawn = torch.empty(1, extra, self.dim)
            self.pos_embed[:, :extra].copy_(nn.init.trunc_normal_(drawn, 0.0, noise, -2 * noise, 2 * noise))
        if used and registers is not None:
            self.cls_token[:, :used].copy_(registers[:, :used])
            own_rows = prefix[:, 1 : 1 + used]
            self.pos_embed[:, :used].copy_(own_rows if own_rows.shape[1] == used else torch.zeros(1, used, 1))
        table = rows[:, rows.shape[1] - patches :]
        if patches != self.grid[0] * self.grid[1]:
            table = resize_positions(table, self.grid, mode=self.grid_mode)
        self.pos_embed[:, self.num_prefix_tokens :].copy_(table)

    def normalise(self, images: Tensor) -> Tensor:
        """Images in [0, 1] with the network's mean and deviation taken out."""
        return (images - self.mean) / self.std

    def positions(self, size: tuple[int, int], grid: tuple[int, int] | None = None) -> Tensor:
        """Position rows for an image of (height, width) pixels and its patch grid, (1, P + h * w, D)."""
        grid = grid or (size[0] // self.patch_size, size[1] // self.patch_size)
        # The offset rule compares pixel sides: 224 x 225 is resampled although its grid is the stored one.
        traced = torch.compiler.is_exporting()
        if not traced and grid == self.grid and (not self.position_offset or size[0] == size[1]):
            return self.pos_embed
        prefix, table = self.pos_embed.tensor_split([self.num_prefix_tokens], dim=1)
        if traced and self.position_offset:
            sides = [torch.ones(side, device=table.device).sum() for side in size]
            table = resize_positions_traced(
                table, grid, self.grid, self.position_offset, sides[0] == sides[1]
            )
            return torch.cat([prefix, table], dim=1)
        table = resize_positions(table, grid, self.grid, offset=self.position_offset)
        return torch.cat([prefix, table], dim=1)

    def to_map(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Patch tokens of (B, T, D) as a map (B, D, h, w)."""
        patches = tokens[:, self.num_prefix_tokens :].transpose(1, 2)
        return patches.reshape(tokens.shape[0], tokens.shape[2], *grid)

    def forward(
        self,
        images: Tensor,
        *,
        hidden: Collection[int] = (),
        scores: Collection[int] = (),
        reduce: Callable[[Tensor], Tensor] | None = None,
        visit: Callable[[int, Tensor, Tensor], None] | None = None,
        norm: bool = True,
        last_block: int | None = None,
    ) -> TokenFeatures:
        """Class tokens and patch map after the last block.

        Args:
            images: RGB in [0, 1], (B, 3, H, W); what exceeds a multiple of the patch is cut off.
            hidden: Blocks whose output (residual stream, no norm) is wanted.
            scores: Blocks whose attention scores are wanted, with gradient; these run unfused.
            reduce: Applied to every block's scores before they are kept (all scores of a deep network at
                full size hold gigabytes).
            visit: Called for every block with its index, its attention (B, A, T, T) after the softmax and the
                output of its attention branch (B, T, D) before the residual; all blocks then run unfused.
            norm: Whether the final norm is applied to the outputs.
            last_block: Stop after this block; its raw output is returned.

        Raises:
            ValueError: The image is smaller than one patch.
        """
        size = (images.shape[2], images.shape[3])
        if not torch.compiler.is_exporting() and min(size) < self.patch_size:
            raise ValueError(f"an image of {size} pixels holds no patch of {self.patch_size}")
        cells = self.patch_embed.proj(self.normalise(images))
        grid = (cells.shape[2], cells.shape[3])
        tokens = self._embed(cells, size, grid)
        beside = positions_of_blocks(self.blocks, self.rope, grid, self.num_prefix_tokens)
        kept: dict[int, Tensor] = {}
        kept_scores: dict[int, Tensor] = {}
        # The layout of fused attention with a bias differs between a trace and ONNX's own form of it.
        plain = visit is not None or in_steps() or (self._biased and torch.compiler.is_exporting())
        for index, block in enumerate(self.blocks):
            if plain or index in scores:
                tokens, found, probs, branch = recomputed(
                    self.gradient_checkpointing, block_with_scores, block, tokens, *beside(index)
                )
                if visit is not None:
                    visit(index, probs, branch)
                if index in scores:
                    kept_scores[index] = found if reduce is None else reduce(found)
            else:
                tokens = recomputed(self.gradient_checkpointing, block, tokens, *beside(index))
            if index in hidden:
                kept[index] = tokens
            if index == last_block:
                break
        else:
            tokens = self.norm(tokens) if norm else tokens
        classes = tokens[:, self.num_extra_tokens : self.num_prefix_tokens]
        return TokenFeatures(classes, self.to_map(tokens, grid), grid, kept, kept_scores)

    def _embed(self, cells: Tensor, size: tuple[int, int], grid: tuple[int, int]) -> Tensor:
        patches = self.patch_embed.norm(cells.flatten(2).transpose(1, 2))
        prefix = self.cls_token.expand(cells.shape[0], -1, -1).to(patches.dtype)
        tokens = torch.cat([prefix, patches], dim=1)
        embedded: Tensor = self.norm_pre(tokens + self.positions(size, grid))
        return embedded
