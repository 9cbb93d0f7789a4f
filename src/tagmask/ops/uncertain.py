"""Which patch tokens are where localization is in doubt (MoRe, AAAI 2025)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["pick_uncertain", "token_codes", "uncertain_windows"]

_IGNORE = 255
_WINDOW = 6
_MARGIN = 3
_PICKS = 8
# A window counts when the mean code of its 36 tokens reaches 1.2, that is a whole-number sum of 44.
_WINDOW_SUM = 44


def token_codes(labels: Tensor) -> Tensor:
    """0 for background, 1 for ignored and 2 for foreground tokens, of labels (B, h, w)."""
    return torch.where(labels == _IGNORE, 1, torch.where(labels == 0, 0, 2))


def uncertain_windows(labels: Tensor) -> Tensor:
    """Windows around an ignored token in which foreground prevails.

    The window of (a, d) covers rows a..a+5 and columns d..d+5; the ignored token is (a+3, d+3).

    Args:
        labels: Token labels, int64, (B, h, w), 255 = ignore.

    Returns:
        Bool, (B, h - 6, w - 6), indexed by the window's top left corner; empty on grids below 7 x 7.
    """
    code = token_codes(labels)
    height, width = max(labels.shape[1] - _WINDOW, 0), max(labels.shape[2] - _WINDOW, 0)
    if not height or not width:
        return torch.zeros(labels.shape[0], height, width, dtype=torch.bool, device=labels.device)
    sums = F.avg_pool2d(code[:, None].float(), _WINDOW, stride=1, divisor_override=1)[:, 0, :height, :width]
    return (_centres(code) == 1) & (sums.round() >= _WINDOW_SUM)


def pick_uncertain(labels: Tensor, position: Literal["corner", "centre"] = "corner") -> Tensor:
    """Patch tokens from uncertain neighbourhoods, 2 to 8 per image.

    More than 8 windows: 8 of them at random. Otherwise all, plus (8 - n) // 4 random foreground tokens (or
    arbitrary ones where foreground is scarcer than that). Draws one `torch.randperm` per image from the
    default CPU generator, so that a seed picks the tokens the released code picks.

    Args:
        labels: Token labels, int64, (B, h, w), 255 = ignore.
        position: "corner" takes the token at a window's top left, as the released code does; "centre"
            takes the uncertain token itself, the evident intention.

    Returns:
        (image, row, column) of the picked tokens, int64, on the CPU, (S, 3); S is 0 on grids below 7 x 7.
    """
    # One copy to the host per step: the number of windows decides how the generator is used.
    labels = labels.cpu()
    windows = uncertain_windows(labels)
    width = windows.shape[2]
    if not windows.numel():
        return torch.zeros(0, 3, dtype=torch.int64)
    foreground = _centres(token_codes(labels)) == 2
    picks = []
    for image, (found, pool) in enumerate(zip(windows.flatten(1), foreground.flatten(1), strict=True)):
        places = _draw(found, pool)
        picks.append(torch.stack([torch.full_like(places, image), places // width, places % width], dim=1))
    shift = 0 if position == "corner" else _MARGIN
    return torch.cat(picks) + torch.tensor([0, shift, shift])


def _draw(windows: Tensor, foreground: Tensor) -> Tensor:
    found = windows.nonzero()[:, 0]
    if len(found) > _PICKS:
        return found[torch.randperm(len(found))[:_PICKS]]
    extra = (_PICKS - len(found)) // 4
    pool = foreground.nonzero()[:, 0]
    if len(pool) < extra:
        pool = torch.arange(len(windows))
    return torch.cat([found, pool[torch.randperm(len(pool))[:extra]]])


def _centres(code: Tensor) -> Tensor:
    height, width = code.shape[1] - _WINDOW, code.shape[2] - _WINDOW
    return code[:, _MARGIN : _MARGIN + height, _MARGIN : _MARGIN + width]
