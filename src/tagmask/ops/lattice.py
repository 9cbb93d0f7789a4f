"""Gaussian filtering in many dimensions on the permutohedral lattice (Adams, Baek, Davis, Eurographics 2010).

Filtering K channels over N points in d dimensions costs O(N K d) instead of O(N^2 K): values are spread onto
the corners of the simplices that enclose their points, blurred along the d + 1 lattice directions, and read
back with the same barycentric weights. All three steps are weighted sums of rows, which `embedding_bag`
computes without atomics on any device, so the result does not depend on the number of threads.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tagmask.ops.checks import require_finite

__all__ = ["Lattice"]

# The C++ filters work on blocks of four points and fill the last block with points at the origin, whose
# corners become part of the lattice.
_BLOCK = 4
_LARGEST_CODE = 2**62
# Floats per table on the CPU: above 32 MB the allocator maps fresh pages for every table, which costs more
# than the blur itself.
_TABLE = 6_000_000


class Lattice:
    """Gaussian filter exp(-|f_i - f_j|^2 / 2) over given points, built once, used for any values.

    The filter approximates the unnormalised sum over all points j, the point itself included. It returns
    about 0.88 of the exact sum in 2-D and 0.4 to 0.6 of it in 5-D, the same as pydensecrf and rloss.
    With a leading axis, every image has its own lattice, but all are built and filtered together.
    """

    def __init__(self, features: Tensor) -> None:
        """Place points on the lattice.

        Building waits for the device once or twice (the number of vertices decides tensor sizes), but moves
        no data to the host.

        Args:
            features: Positions in units of the kernel's standard deviation, (N, d) or (B, N, d), d >= 1.

        Raises:
            ValueError: If the shape is wrong or empty, a value is NaN or infinite, or the points lie so far
                apart that their lattice coordinates do not fit 62 bits.
        """
        if features.ndim not in (2, 3) or 0 in features.shape:
            raise ValueError(f"features must be a non-empty (N, d) or (B, N, d), got {tuple(features.shape)}")
        require_finite("lattice features", features)
        self._points_shape = tuple(features.shape[:-1])
        with torch.no_grad(), torch.autocast(features.device.type, enabled=False):
            points, image = _with_block_padding(features.float())
            remainder, rank, weights = _embed(points)
            codes, step, span = _corner_codes(remainder, rank, image)
            self._splat, self._read, vertices = _connect(codes, weights, self.num_points, span)
            self._blur = _neighbours(vertices, step, span)
            self._blur_weights = weights.new_tensor([1.0, 0.5, 0.5]).repeat(len(vertices) + 1, 1)

    @property
    def num_points(self) -> int:
        """Points over all images."""
        return math.prod(self._points_shape)

    @property
    def num_vertices(self) -> int:
        """Occupied lattice vertices over all images."""
        return len(self._blur_weights) - 1

    def filter(self, values: Tensor) -> Tensor:
        """Filter channels. Gradients reach the values through the exact transpose, but not the features.

        Args:
            values: (K, N) for features (N, d), (B, K, N) for features (B, N, d).

        Returns:
            Filtered values, float32, in the shape of `values`.

        Raises:
            ValueError: If the shape does not fit the features.
        """
        if (*values.shape[:-2], *values.shape[-1:]) != self._points_shape:
            raise ValueError(
                f"values must be (..., K, N) for points {self._points_shape}, got {tuple(values.shape)}"
            )
        rows = values.transpose(-1, -2).reshape(self.num_points, values.shape[-2])
        filtered = self.filter_rows(rows)
        return filtered.view(*self._points_shape, values.shape[-2]).transpose(-1, -2)

    def filter_rows(self, rows: Tensor) -> Tensor:
        """`filter` for values that lie point by point already: (B * N, K) in and out, no copies."""
        filtered: Tensor = _Filter.apply(rows.float().contiguous(), self, False)
        return filtered

    def normalised(self, weight: float = 1.0) -> Lattice:
        """A filter weight * n F(n v) with n = 1 / sqrt(F(1) + 1e-20), the symmetric normalisation of CRFs.

        Args:
            weight: Factor of the result.

        Returns:
            A lattice that shares the indices of this one; the factors are part of its weights, so a call
            costs the same.
        """
        ones = torch.ones(self.num_points, 1, device=self._blur.device)
        scale = (self.filter_rows(ones) + 1e-20).rsqrt_()
        other = object.__new__(Lattice)
        other.__dict__.update(self.__dict__)
        points, offsets, weights = self._splat
        other._splat = (points, offsets, weights * scale.flatten()[points])
        other._read = (self._read[0], self._read[1] * (scale * weight))
        return other

    def spread(self, rows: Tensor) -> list[Tensor]:
        """First half of the filter: splat and blur, without gradient.

        Args:
            rows: Values point by point, float32, (B * N, K).

        Returns:
            Blurred values of every vertex and a last row of zeros, (num_vertices + 1, K), in one or several
            groups of columns.
        """
        return self._spread(rows, backwards=False)

    def read(self, tables: list[Tensor], points: slice = slice(None)) -> Tensor:
        """Second half: values of some points from the tables that `spread` made.

        Args:
            tables: Vertex values.
            points: Which points; a few at a time let further arithmetic stay in the cache.

        Returns:
            Filtered values of these points, (len, K).
        """
        vertices, weights = self._read[0][points], self._read[1][points]
        parts = [F.embedding_bag(vertices, t, mode="sum", per_sample_weights=weights) for t in tables]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _spread(self, rows: Tensor, backwards: bool) -> list[Tensor]:
        # Blurs along different directions do not commute at the edge of the occupied set, so the order
        # belongs to the definition; each single blur is symmetric, so the transpose reverses the order.
        directions = self._blur.flip(0) if backwards else self._blur
        points, offsets, weights = self._splat
        size = rows.shape[1] * len(self._blur_weights)
        groups = -(-size // _TABLE) if rows.device.type == "cpu" else 1
        tables = []
        for columns in rows.chunk(max(groups, 1), dim=1):
            table = F.embedding_bag(
                points,
                columns.contiguous(),
                offsets,
                mode="sum",
                per_sample_weights=weights,
                include_last_offset=True,
            )
            for neighbours in directions:
                table = F.embedding_bag(neighbours, table, mode="sum", per_sample_weights=self._blur_weights)
            tables.append(table)
        return tables


class _Filter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, lattice: Lattice, backwards: bool) -> Tensor:
        ctx.lattice, ctx.backwards = lattice, backwards
        return lattice.read(lattice._spread(rows, backwards))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        turned: Tensor = _Filter.apply(grad.contiguous(), ctx.lattice, not ctx.backwards)
        return turned, None, None


def _with_block_padding(features: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates (d, P) of all points and the image (P,) of each, padding points last."""
    batched = features if features.ndim == 3 else features.unsqueeze(0)
    batch, count, dims = batched.shape
    images = torch.arange(batch, device=features.device)
    points, image = batched.reshape(-1, dims).t(), images.repeat_interleave(count)
    if count % _BLOCK:
        points = torch.cat([points, points.new_zeros(dims, batch)], dim=1)
        image = torch.cat([image, images])
    return points.contiguous(), image


def _embed(points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Simplex of every point: remainder-0 corner (D, P), rank of each coordinate (D, P), weights (D, P).

    Operation order and float32 constants are those of the C++ filters; another order moves the weights by
    some 1e-6.
    """
    dims, corners = points.shape[0], points.shape[0] + 1
    elevated = points.new_empty(corners, points.shape[1])
    total = torch.zeros_like(points[0])
    base = torch.tensor(math.sqrt(2.0 / 3.0) * corners, dtype=torch.float32).item()
    inverse = torch.tensor(1.0 / corners, dtype=torch.float32).item()
    for j in range(dims, 0, -1):
        scaled = points[j - 1] * torch.tensor(base / math.sqrt(j * (j + 1)), dtype=torch.float32).item()
        elevated[j] = total - scaled * j
        total = total + scaled
    elevated[0] = total

    rounded = torch.round(elevated * inverse)
    remainder = rounded * corners
    residue = elevated - remainder
    # Ranks are tiny; bytes make the pairwise comparisons cheap.
    rank = rounded.sum(0).to(torch.int8).repeat(corners, 1)
    for i in range(corners):
        for j in range(i + 1, corners):
            behind = residue[i] < residue[j]
            rank[i] += behind
            rank[j] += ~behind
    wrap = ((rank < 0).to(torch.int8) - (rank >= corners).to(torch.int8)).mul_(corners)
    order = (rank + wrap).to(torch.int64)
    remainder += wrap

    share = torch.empty_like(elevated).scatter_(0, order, (elevated - remainder) * inverse).flip(0)
    weights = torch.cat([(share[0] + (1.0 - share[-1])).unsqueeze(0), share[1:] - share[:-1]])
    return remainder, order, weights


def _corner_codes(remainder: Tensor, rank: Tensor, image: Tensor) -> tuple[Tensor, Tensor, int]:
    """Pack the lattice coordinates of every corner into one integer.

    Returns:
        Codes (D, P), sorted like the coordinates and additive in them; `step` (D,), what to add to a code to
        reach the next vertex along each direction; and `span`, above every code of one remainder class.
    """
    corners = remainder.shape[0]
    keys = remainder[:-1].to(torch.int64)
    low = keys.amin(1) - 2 * corners
    radix = keys.amax(1) + 2 * corners + 1 - low
    sizes = radix.tolist()
    volume = math.prod(sizes)
    span = volume * (int(image[-1]) + 1)
    if span * corners >= _LARGEST_CODE:
        raise ValueError(
            f"features spread over {' x '.join(map(str, sizes))} lattice cells, too many to number; "
            "use larger standard deviations"
        )
    # The last coordinate is minus the sum of the others and needs no digit.
    digit = radix.new_tensor([math.prod(sizes[i + 1 :]) for i in range(corners - 1)] + [0])
    code = image * volume
    for key, start, value in zip(keys, low, digit[:-1], strict=True):
        code = code + (key - start) * value
    by_rank = torch.empty_like(rank).scatter_(0, rank, digit.unsqueeze(1).expand_as(rank))
    step = digit.sum() - corners * digit
    codes = [code]
    for k in range(1, corners):
        codes.append(codes[-1] + digit.sum() - corners * by_rank[corners - k])
    return torch.stack(codes), step, span


_Splat = tuple[Tensor, Tensor, Tensor]
_Read = tuple[Tensor, Tensor]


def _connect(codes: Tensor, weights: Tensor, num_points: int, span: int) -> tuple[_Splat, _Read, Tensor]:
    """Number the vertices and list which points feed each of them.

    Returns:
        Splat: point indices and their weights vertex by vertex, and where each vertex starts, one more empty
        vertex at the end (the missing neighbour, always 0). Read: vertices and scaled weights of each point.
        And the sorted codes of the vertices.
    """
    corners, count = codes.shape
    points = torch.empty_like(codes, dtype=torch.int32)
    fed = torch.empty_like(weights)
    owner = torch.empty_like(points)
    starts, vertices, first = [], [], 0
    # A vertex has the same remainder for every point, so corners k only ever share vertices with corners k.
    # Stable sorting keeps pixel order within a vertex, hence the summation order of the C++ filters.
    for k in range(corners):
        ordered, order = codes[k].sort(stable=True)
        is_new = torch.ones_like(ordered, dtype=torch.bool)
        torch.ne(ordered[1:], ordered[:-1], out=is_new[1:])
        owner[k].scatter_(0, order, is_new.cumsum(0, dtype=torch.int32) + (first - 1))
        points[k] = order
        torch.index_select(weights[k], 0, order, out=fed[k])
        start = is_new.nonzero().squeeze(1)
        starts.append(start + k * count)
        vertices.append(ordered[start] + k * span)
        first += len(start)
    if num_points < count:
        fed.masked_fill_(points >= num_points, 0.0)
        points.clamp_(max=num_points - 1)
    end = starts[0].new_full((2,), corners * count)
    splat = points.flatten(), torch.cat([*starts, end]).to(torch.int32), fed.flatten()
    gain = 1.0 / (1.0 + 2.0 ** (1 - corners))
    read = owner[:, :num_points].t().contiguous(), weights[:, :num_points].t() * gain
    return splat, (read[0], read[1].contiguous()), torch.cat(vertices)


def _neighbours(vertices: Tensor, step: Tensor, span: int) -> Tensor:
    """Each vertex and its two neighbours per direction, (D, V + 1, 3); V stands for a missing one."""
    corners, count = len(step), len(vertices)
    own = torch.arange(count + 1, dtype=torch.int32, device=vertices.device)
    table = own.view(1, -1, 1).repeat(corners, 1, 3)
    # One step along any direction raises the remainder by one, from the last class back to the first.
    following = torch.where(
        vertices >= (corners - 1) * span, vertices - (corners - 1) * span, vertices + span
    )
    for direction in range(corners):
        wanted = following + step[direction]
        found = torch.searchsorted(vertices, wanted, out_int32=True).clamp_(max=count - 1)
        ahead = torch.where(vertices[found] == wanted, found, count)
        behind = torch.full_like(own, count).scatter_(0, ahead.to(torch.int64), own[:-1])
        behind[count] = count
        table[direction, :-1, 1], table[direction, :, 2] = ahead, behind
    return table
