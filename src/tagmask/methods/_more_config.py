"""Settings of MoRe, with the reason for each default."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tagmask.backbones.vit import Normalisation
from tagmask.config import Scales
from tagmask.heads.graph import NeighbourWeight
from tagmask.methods.base import MethodConfig
from tagmask.ops.pooling import SoftPooling

__all__ = ["MoReConfig"]


class MoReConfig(MethodConfig):
    """Settings of MoRe; the defaults are those of its PASCAL VOC script."""

    backbone: str = "vit_base_patch16_224.orig_in21k_ft_in1k"
    """Any plain ViT of timm; the tag names the weights of the paper (the bare name now means others)."""
    normalisation: Normalisation = "imagenet"
    """MoRe feeds ImageNet's mean and deviation although its weights were trained with 0.5 ("weights")."""
    num_registers: int = 4
    """Extra tokens in front of the class tokens; they take part in attention only."""
    register_noise: float = 1.0
    """Deviation of their first position rows. It upsets small pretrained backbones; 0 leaves it out."""
    aux_block: int = -3
    """Block whose patches feed the auxiliary classifier; deeper ones over-smooth."""
    aux_norm: bool = False
    """Whether these patches are normed first; without it the raw residual stream is read."""
    pooling: Literal["max"] | SoftPooling = "max"
    """From patches to class logits: "max" of the features as released, or "mean", "top" (strongest fifth) or
    "lse" of the class map, which let more of an object learn."""
    aux_pooling: Literal["max"] | SoftPooling = "max"
    """The same for the auxiliary classifier."""
    graph: bool = True
    """Whether class tokens pass through the graph category representation."""
    graph_weight: NeighbourWeight = "sum_product"
    """"sum_product" as released; "dot" is what the formula in the paper suggests."""
    scales: Scales = (1.0, 0.5, 0.75, 1.5)
    """Image scales of the class maps that supervise the step; COCO adds 1.25."""
    flip: bool = True
    """Whether each of these scales has a mirrored twin while training."""
    map_relu: Literal["view", "none"] = "view"
    """Whether class maps lose their negatives before they are scaled to [0, 1]."""
    high: float = 0.7
    """Background plane of the pseudo label's foreground, and upper threshold of the token masks."""
    low: float = 0.25
    """Background plane of the pseudo label's background, and lower threshold of the token masks."""
    early_cre_high: float = 0.5
    """Upper threshold of the token mask of the class-patch contrast before `late_from`."""
    late_high: float = 0.6
    """Upper threshold of the token masks of L_cre and L_ure from `late_from` on."""
    late_low: float = 0.35
    """Lower threshold of the token masks of L_cre and L_ure from `late_from` on."""
    late_from: int = 10001
    """First step whose L_cre and L_ure trust the main classifier's maps instead of the auxiliary ones."""
    mct_from: int = 0
    """First step with class-token contrast. Alone it tells tokens apart at random, so a run that begins with
    classification only had better wait for the other terms."""
    ptc_from: int = 0
    """First step with patch-token contrast; without any map-based term no extra passes run."""
    lir_from: int = 0
    """First step with the localization-informed losses L_cre and L_ure."""
    seg_from: int = 2001
    """First step in which the decoder learns; before, its gradients are zero."""
    w_mct: float = 1.0
    """Weight of the class-token contrast."""
    w_ptc: float = 0.3
    """Weight of the patch-token contrast."""
    w_cre: float = 0.2
    """Weight of the class-patch contrast."""
    w_ure: float = 0.1
    """Weight of the uncertain-region loss."""
    w_seg: float = 0.12
    """Weight of the balanced cross entropy of the decoder."""
    w_energy: float = 0.05
    """Weight of the dense energy loss of the decoder."""
    temperature: float = 0.5
    """Of the class-patch contrast; 0.1 on COCO."""
    mct: Literal["contrast", "mixed"] = "contrast"
    """"mixed" averages the contrast with a classification by token means, as the published COCO log did."""
    pseudo_label_source: Literal["cam", "lam", "attention_cam"] = "cam"
    """Maps behind the decoder's labels: "cam" as released, "lam" as the paper describes, "attention_cam" for
    auxiliary maps times class attention, spread along patch attention."""
    ure_position: Literal["corner", "centre"] = "corner"
    """"corner" of the window as released; "centre" takes the uncertain token itself."""
    token_boxes: Literal["pixels", "patches"] = "pixels"
    """Crop boxes on the token grid: in "pixels" as released (which ignores most tokens of padded crops), or
    divided by the patch size."""
    refine_steps: int = 10
    """Iterations of pixel-adaptive refinement."""
    refine_shrink: int = Field(default=2, ge=1)
    """Refinement runs at this fraction of the view's size."""
    decoder_width: int = Field(default=512, ge=1)
    """Channels of the decoder."""
    lr: float = 6e-5
    """Learning rate of the backbone."""
    lr_heads: float = 6e-4
    """Learning rate of the classifiers and the graph."""
    lr_decoder: float = 6e-4
    """Learning rate of the decoder."""
    weight_decay: float = 0.01
    """Of every parameter, norms and biases included."""
    warmup: int = 1500
    """Updates of linear warm-up."""
    power: float = 0.9
    """Of the polynomial decay."""
