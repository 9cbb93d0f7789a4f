"""How points are on the permutohedral lattice: the index tables behind `ops.lattice.Lattice`."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Tables", "build_tables"]

# The C++ filters work on blocks of four points and fill the last block with points at the origin, whose
# corners become part of the lattice.
_BLOCK = 4
_LARGEST_CODE = 2**62


class Tables(NamedTuple):
    """Weighted sums that filter N points through V vertices of a lattice in d = D - 1 dimensions.

    Attributes:
        splat_points: Points that feed each vertex, vertex by vertex, int32, (D * N,) or a few more.
        splat_weights: Their weights, float32.
        splat_starts: Where each vertex starts in these lists, int32, (V + 2,); the last vertex is empty.
        blur: Each vertex and its neighbours on both sides along each direction, int32, (D, V + 1, 3);
            V, the empty vertex, stands for a missing one.
        read_vertices: Corners of each point's simplex, int32, (N, D).
        read_weights: Their weights times the gain of the filter, float32, (N, D).
    """

    splat_points: Tensor
    splat_weights: Tensor
    splat_starts: Tensor
    blur: Tensor
    read_vertices: Tensor
    read_weights: Tensor


class _Packing(NamedTuple):
    """Lattice coordinates as one integer: sum of (coordinate - low) * digit, plus volume per image."""

    low: Tensor
    digit: Tensor
    volume: int


def build_tables(features: Tensor) -> Tables:
    """Place points on a lattice.

    Args:
        features: Finite positions, float32, (B, N, d); every image gets a lattice of its own.

    Returns:
        Tables over all B * N points.

    Raises:
        ValueError: If the points are so far apart that their codes do not fit 62 bits.
    """
    count = features.shape[0] * features.shape[1]
    points, image = _with_block_padding(features)
    base, rank, weights = _embed(points)
    packing = _packing(base, len(features))
    members, starts, simplex = _simplices(base, rank, image, packing)
    # index_select is 4 times faster than indexing with brackets on the CPU.
    first = members.index_select(0, starts)
    one_each = base.index_select(1, first), rank.index_select(1, first), image.index_select(0, first)
    codes = _corner_codes(*one_each, packing)
    span = packing.volume * len(features)
    owner, vertices, splat = _connect(codes, weights, members, starts, span)
    read = owner.index_select(1, simplex[:count]).t().contiguous()
    if count < points.shape[1]:
        splat[1].masked_fill_(splat[0] >= count, 0.0)
        splat[0].clamp_(max=count - 1)
    gain = 1.0 / (1.0 + 2.0 ** -features.shape[2])
    blur = _neighbours(vertices, packing, span)
    return Tables(*splat, blur, read, (weights[:, :count].t() * gain).contiguous())


def _with_block_padding(features: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates (d, P) of all points and the image (P,) of each, padding points last."""
    batch, count, dims = features.shape
    images = torch.arange(batch, device=features.device)
    points, image = features.permute(2, 0, 1).reshape(dims, -1), images.repeat_interleave(count)
    if count % _BLOCK:
        points = torch.cat([points, points.new_zeros(dims, batch)], dim=1)
        image = torch.cat([image, images])
    return points, image


def _embed(points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Simplex of every point: its base corner (D, P), rank of each coordinate (D, P) and weights (D, P).

    Operation order and float32 constants are those of the C++ filters; another order moves the weights by
    some 1e-6.
    """
    dims, corners = points.shape[0], points.shape[0] + 1
    elevated = points.new_empty(corners, points.shape[1])
    total = torch.zeros_like(points[0])
    scale = torch.tensor(math.sqrt(2.0 / 3.0) * corners, dtype=torch.float32).item()
    inverse = torch.tensor(1.0 / corners, dtype=torch.float32).item()
    for j in range(dims, 0, -1):
        scaled = points[j - 1] * torch.tensor(scale / math.sqrt(j * (j + 1)), dtype=torch.float32).item()
        elevated[j] = total - scaled * j
        total = total + scaled
    elevated[0] = total

    rounded = torch.round(elevated * inverse)
    base = rounded * corners
    residue = elevated - base
    # Ranks are tiny; bytes make the pairwise comparisons cheap.
    rank = rounded.sum(0).to(torch.int8).repeat(corners, 1)
    for i in range(corners):
        for j in range(i + 1, corners):
            behind = residue[i] < residue[j]
            rank[i] += behind
            rank[j] += ~behind
    wrap = ((rank < 0).to(torch.int8) - (rank >= corners).to(torch.int8)).mul_(corners)
    order = (rank + wrap).to(torch.int64)
    base += wrap

    share = torch.empty_like(elevated).scatter_(0, order, (elevated - base) * inverse).flip(0)
    weights = torch.cat([(share[0] + (1.0 - share[-1])).unsqueeze(0), share[1:] - share[:-1]])
    return base, order, weights


def _packing(base: Tensor, num_images: int) -> _Packing:
    corners = base.shape[0]
    # Corners reach D - 1 beyond the base, neighbours as far again; no sum may carry into the next digit.
    low, high = torch.aminmax(base[:-1], dim=1)
    low, high = low.to(torch.int64) - 2 * corners, high.to(torch.int64) + 2 * corners
    sizes = (high - low + 1).tolist()
    volume = math.prod(sizes)
    if volume * num_images * corners ** (corners - 1) >= _LARGEST_CODE:
        raise ValueError(
            f"features spread over {' x '.join(map(str, sizes))} lattice cells, too many to number; "
            "use larger standard deviations"
        )
    # The last coordinate is minus the sum of the others and needs no digit.
    digits = [math.prod(sizes[i + 1 :]) for i in range(corners - 1)] + [0]
    return _Packing(low, low.new_tensor(digits), volume)


def _base_codes(base: Tensor, image: Tensor, packing: _Packing) -> Tensor:
    code = image * packing.volume
    for key, low, digit in zip(base, packing.low, packing.digit, strict=False):
        code = code.add_((key.to(torch.int64) - low) * digit)
    return code


def _simplices(base: Tensor, rank: Tensor, image: Tensor, packing: _Packing) -> tuple[Tensor, Tensor, Tensor]:
    """Group points by simplex, which the base corner and all ranks but the last determine.

    Returns:
        Points by simplex (P,), where each simplex starts in this list (S,), simplex of each point (P,).
    """
    code = _base_codes(base, image, packing)
    for row in rank[:-1]:
        code = code.mul_(len(rank)).add_(row)
    ordered, members = code.sort(stable=True)
    is_new = _is_new(ordered)
    simplex = torch.empty_like(members).scatter_(0, members, is_new.cumsum(0) - 1)
    return members, is_new.nonzero().squeeze(1), simplex


def _corner_codes(base: Tensor, rank: Tensor, image: Tensor, packing: _Packing) -> Tensor:
    """Codes of all corners of simplices, (D, S)."""
    digit, corners = packing.digit, len(rank)
    by_rank = torch.empty_like(rank).scatter_(0, rank, digit.unsqueeze(1).expand_as(rank))
    codes = [_base_codes(base, image, packing)]
    for k in range(1, corners):
        codes.append(codes[-1] + digit.sum() - corners * by_rank[corners - k])
    return torch.stack(codes)


def _connect(
    codes: Tensor, weights: Tensor, members: Tensor, starts: Tensor, span: int
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Number the vertices and list the points that feed each of them.

    Corner k of one simplex only ever is corner k of another, so each k is numbered by itself.

    Returns:
        Corners of each simplex (D, S), sorted codes of the vertices (V,), and the splat tables.
    """
    corners, count = weights.shape
    sizes = torch.diff(starts, append=starts.new_tensor([count]))
    places = torch.arange(count, device=codes.device)
    owner = torch.empty_like(codes, dtype=torch.int32)
    points, fed = torch.empty_like(weights, dtype=torch.int32), torch.empty_like(weights)
    offsets, vertices, known = [], [], 0
    for k in range(corners):
        ordered, order = codes[k].sort(stable=True)
        is_new = _is_new(ordered)
        owner[k].scatter_(0, order, is_new.cumsum(0, dtype=torch.int32) + (known - 1))
        lengths = sizes.index_select(0, order)
        begins = lengths.cumsum(0) - lengths
        # Simplices one behind the other: the place in the list, moved to where the simplex is.
        shift = (starts.index_select(0, order) - begins).repeat_interleave(lengths, output_size=count)
        listed = members.index_select(0, shift.add_(places))
        points[k] = listed
        torch.index_select(weights[k], 0, listed, out=fed[k])
        heads = is_new.nonzero().squeeze(1)
        offsets.append(begins.index_select(0, heads) + k * count)
        vertices.append(ordered.index_select(0, heads) + k * span)
        known += len(vertices[-1])
    end = starts.new_full((2,), corners * count)
    splat = points.flatten(), fed.flatten(), torch.cat([*offsets, end]).to(torch.int32)
    return owner, torch.cat(vertices), splat


def _neighbours(vertices: Tensor, packing: _Packing, span: int) -> Tensor:
    digit, corners, count = packing.digit, len(packing.digit), len(vertices)
    own = torch.arange(count + 1, dtype=torch.int32, device=vertices.device)
    table = own.view(1, -1, 1).repeat(corners, 1, 3)
    # One step along any direction raises the remainder by one, from the last class back to the first.
    last = (corners - 1) * span
    following = torch.where(vertices >= last, vertices - last, vertices + span)
    for direction in range(corners):
        wanted = following + (digit.sum() - corners * digit[direction])
        found = torch.searchsorted(vertices, wanted, out_int32=True).clamp_(max=count - 1)
        ahead = torch.where(vertices.index_select(0, found) == wanted, found, count)
        behind = torch.full_like(own, count).scatter_(0, ahead.to(torch.int64), own[:-1])
        behind[count] = count
        table[direction, :-1, 1], table[direction, :, 2] = ahead, behind
    return table


def _is_new(ordered: Tensor) -> Tensor:
    """Whether each entry differs from the one before it."""
    changed = torch.ones_like(ordered, dtype=torch.bool)
    torch.ne(ordered[1:], ordered[:-1], out=changed[1:])
    return changed
