"""MoRe: class tokens, graph category representation and localization-informed regularisation.

Yang et al., "MoRe: Class Patch Attention Needs Regularization for Weakly Supervised Semantic Segmentation",
AAAI 2025. One stage: a ViT with a token per class learns to classify; its own maps, refined, teach a decoder
in the same step. Defaults reproduce the released code; where the paper reads differently an option names it.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tagmask.losses.energy import dense_energy_loss
from tagmask.losses.segmentation import balanced_cross_entropy
from tagmask.losses.tags import multilabel_soft_margin
from tagmask.losses.tokens import (
    class_patch_contrast,
    class_token_contrast,
    patch_contrast,
    uncertain_regions,
)
from tagmask.methods._more_config import MoReConfig
from tagmask.methods._more_network import MoReNetwork, Outputs
from tagmask.ops.affinity import affinity_labels
from tagmask.ops.images import truncated_levels
from tagmask.ops.labels import labels_with_ignore, refine_labels
from tagmask.ops.maps import present_classes, take_classes
from tagmask.ops.multiscale import in_small_calls, multi_scale
from tagmask.ops.pixel_refinement import PAR_DILATIONS, par
from tagmask.ops.resize import resize_bilinear
from tagmask.ops.schedules import poly_warmup
from tagmask.ops.uncertain import pick_uncertain
from tagmask.types import Batch, OptimPlan, ParamGroup, StepResult, ViewPlan

__all__ = ["MoRe", "MoReConfig"]


class MoRe(MoReNetwork):
    """The network with its training step; see the module's description.

    Args:
        config: Settings.
        num_classes: K, the number of foreground classes.
    """

    def forward(self, batch: Batch, step: int) -> StepResult:
        """One training step; terms that are switched off cost nothing and leave zero gradients."""
        config = self.config
        out = self.run(batch.images)
        losses = {
            "cls": multilabel_soft_margin(self.logits(out.features.patches), batch.tags),
            "cls_aux": multilabel_soft_margin(self.logits(out.aux, aux=True), batch.tags),
        }
        weights = {"cls": 1.0, "cls_aux": 1.0}
        if step >= config.mct_from:
            losses["mct"] = self._mct(out.class_tokens, batch.tags)
            weights["mct"] = config.w_mct
        if step >= config.ptc_from:
            weights["ptc"] = config.w_ptc
        if step >= config.lir_from:
            weights |= {"cre": config.w_cre, "ure": config.w_ure}
        if step >= config.seg_from:
            weights |= {"seg": config.w_seg, "energy": config.w_energy}
        wanted = {name for name, weight in weights.items() if weight}
        losses |= self._map_losses(batch, step, out, wanted)
        total = torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()
        # AdamW decays and counts parameters with zero gradients, but skips those without any.
        for param in self._idle_parameters(wanted):
            total = total + 0.0 * param.sum()
        return StepResult(total, {"loss": total.detach()} | {k: v.detach() for k, v in losses.items()})

    def _idle_parameters(self, wanted: Collection[str]) -> Iterator[nn.Parameter]:
        if not {"seg", "energy"} & set(wanted):
            yield from self.decoder.parameters()
        if self.graph_layer is not None and not {"mct", "cre"} & set(wanted):
            yield from self.graph_layer.parameters()

    def _map_losses(
        self, batch: Batch, step: int, out: Outputs, wanted: Collection[str]
    ) -> dict[str, Tensor]:
        """The losses that need multi-scale maps of this batch."""
        late = step >= self.config.late_from
        masks = {"ptc": "aux_cam"} | dict.fromkeys(("cre", "ure"), "cam" if late else "aux_cam")
        kinds = {masks[name] for name in masks if name in wanted}
        segments = "seg" in wanted or "energy" in wanted
        if segments and batch.labels is None:
            kinds.add(self.config.pseudo_label_source)
        if not kinds and not segments:
            return {}
        keys, valid = present_classes(batch.tags)
        maps = self._training_maps(batch.images, out, keys, sorted(kinds))
        losses: dict[str, Tensor] = {}
        patches = out.features.patches
        for name in sorted(wanted & masks.keys()):
            labels = self._token_labels(batch, maps[masks[name]], valid, keys, name, late, out.features.grid)
            if name == "ptc":
                losses[name] = patch_contrast(patches, affinity_labels(labels, diagonal=False))
            elif name == "cre":
                losses[name] = class_patch_contrast(
                    out.class_tokens, patches, labels, batch.tags, self.config.temperature
                )
            else:
                picked = pick_uncertain(labels, self.config.ure_position)
                losses[name] = uncertain_regions(out.class_tokens, patches, batch.tags, picked)
        if segments:
            target = batch.labels
            if target is None:
                source = maps[self.config.pseudo_label_source]
                target = self.pseudo_labels(batch.images, source, valid, keys, batch.boxes)
            losses |= self._decoder_losses(batch, patches, target, wanted)
        return losses

    def pseudo_labels(
        self, images: Tensor, maps: Tensor, valid: Tensor, keys: Tensor, boxes: Tensor | None = None
    ) -> Tensor:
        """Refined labels from class maps.

        Args:
            images: RGB in [0, 1], (B, 3, H, W).
            maps: Maps of chosen classes, (B, M, H, W).
            valid: Which of them count, (B, M).
            keys: Class index of each map, int64, (B, M).
            boxes: Valid content in pixels, (B, 4).

        Returns:
            Labels, int64, (B, H, W).
        """
        mean, std = self.encoder.normalisation
        colours = truncated_levels(self.encoder.normalise(images), mean, std)
        refine = partial(par, dilations=PAR_DILATIONS, iterations=self.config.refine_steps)
        config = self.config
        return refine_labels(
            colours, maps, valid, config.high, config.low, refine, boxes, keys, config.refine_shrink
        )

    def _decoder_losses(
        self, batch: Batch, patches: Tensor, labels: Tensor, wanted: Collection[str]
    ) -> dict[str, Tensor]:
        logits = resize_bilinear(self.decoder(patches).float(), (labels.shape[1], labels.shape[2]))
        losses = {}
        if "seg" in wanted:
            losses["seg"] = balanced_cross_entropy(logits, labels)
        if "energy" in wanted:
            losses["energy"] = dense_energy_loss(logits, batch.images, labels, batch.boxes)
        return losses

    def _token_labels(
        self,
        batch: Batch,
        maps: Tensor,
        valid: Tensor,
        keys: Tensor,
        name: str,
        late: bool,
        grid: tuple[int, int],
    ) -> Tensor:
        config, boxes = self.config, batch.boxes
        high, low = config.high, config.low
        if name != "ptc" and late:
            high, low = config.late_high, config.late_low
        elif name == "cre":
            high = config.early_cre_high
        if boxes is not None and config.token_boxes == "patches":
            side = self.encoder.patch_size
            first = torch.tensor([side - 1, 0, side - 1, 0], device=boxes.device)
            boxes = torch.div(boxes + first, side, rounding_mode="floor")
        elif boxes is not None:
            warnings.warn(_BOX_WARNING, stacklevel=2)
        return labels_with_ignore(resize_bilinear(maps, grid), valid, high, low, boxes, keys)

    def _mct(self, class_tokens: Tensor, tags: Tensor) -> Tensor:
        contrast = class_token_contrast(class_tokens)
        if self.config.mct == "contrast":
            return contrast
        # The means are taken after the normalisation, so these logits stay tiny and this half near ln 2.
        means = F.normalize(class_tokens.float(), dim=2).mean(2)
        return 0.5 * multilabel_soft_margin(means, tags) + 0.5 * contrast

    @torch.no_grad()
    def _training_maps(
        self, images: Tensor, out: Outputs, keys: Tensor, kinds: Sequence[str]
    ) -> dict[str, Tensor]:
        """Multi-scale maps of the present classes; the training pass serves as the unscaled view."""
        maps: dict[str, Tensor] = {}
        plans: dict[ViewPlan, list[str]] = {}
        for kind in kinds:
            plan = self.view_plan(kind)
            plan = plan if self.config.flip else replace(plan, flip="none")
            plans.setdefault(plan, []).append(kind)
        for plan, names in plans.items():

            def view(images: Tensor, names: Sequence[str] = names) -> dict[str, Tensor]:
                repeated = keys.repeat(len(images) // len(keys), 1)
                found = in_small_calls(partial(self.view_maps, kinds=names), images)
                return {k: take_classes(m, repeated) for k, m in found.items()}

            # The training pass runs fused attention, so maps made of attention need a pass of their own.
            passed = {} if "attention_cam" in names else self.kind_maps(out, names)
            known = {k: take_classes(m, keys) for k, m in passed.items()}
            maps |= multi_scale(view, images, plan, known or None)
        return maps

    def optim_plan(self, iterations: int) -> OptimPlan:
        """AdamW in five groups; warm-up, then polynomial decay counted from the first update."""
        config = self.config
        named = list(self.encoder.named_parameters())
        graph = [] if self.graph_layer is None else list(self.graph_layer.parameters())
        groups: list[tuple[str, list[nn.Parameter], float]] = [
            ("backbone", [p for name, p in named if "norm" not in name], config.lr),
            ("backbone_norm", [p for name, p in named if "norm" in name], config.lr),
            (
                "classifiers",
                [p for m in (self.classifier, self.aux_classifier, self.aux_norm) for p in m.parameters()],
                config.lr_heads,
            ),
            ("graph", graph, config.lr_heads),
            ("decoder", list(self.decoder.parameters()), config.lr_decoder),
        ]
        return OptimPlan(
            "adamw",
            [ParamGroup(name, params, lr, config.weight_decay) for name, params, lr in groups if params],
            lambda step: poly_warmup(step, iterations, config.warmup, config.power),
        )


_BOX_WARNING = (
    "MoRe's released code applies crop boxes in pixels to the token grid, which ignores most tokens of "
    "padded crops; token_boxes=patches scales them"
)
