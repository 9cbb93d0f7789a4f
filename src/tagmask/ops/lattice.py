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
from tagmask.ops.lattice_tables import build_tables

__all__ = ["Lattice"]

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
            ValueError: If the shape is wrong or empty, a value is NaN or infinite, or the points are so far
                apart that their lattice coordinates do not fit 62 bits.
        """
        if features.ndim not in (2, 3) or 0 in features.shape:
            raise ValueError(f"features must be a non-empty (N, d) or (B, N, d), got {tuple(features.shape)}")
        require_finite("lattice features", features)
        self._points_shape = tuple(features.shape[:-1])
        with torch.no_grad(), torch.autocast(features.device.type, enabled=False):
            batched = features.float().reshape(-1, *features.shape[-2:])
            self._tables = build_tables(batched)
            count = self._tables.blur.shape[1]
            self._blur_weights = batched.new_tensor([1.0, 0.5, 0.5]).repeat(count, 1)

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
        """`filter` for values that are point by point already: (B * N, K) in and out, no copies."""
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
        ones = torch.ones(self.num_points, 1, device=self._blur_weights.device)
        scale = (self.filter_rows(ones) + 1e-20).rsqrt_()
        other = object.__new__(Lattice)
        other.__dict__.update(self.__dict__)
        tables = self._tables
        other._tables = tables._replace(
            splat_weights=tables.splat_weights * scale.flatten()[tables.splat_points],
            read_weights=tables.read_weights * (scale * weight),
        )
        return other

    def spread(self, rows: Tensor, scale: Tensor | None = None) -> list[Tensor]:
        """First half of the filter: splat and blur, without gradient.

        Args:
            rows: Values point by point, float32, (B * N, K).
            scale: Factor of every point, (B * N,): as if the rows were multiplied, without a copy of them.

        Returns:
            Blurred values of every vertex and a last row of zeros, (num_vertices + 1, K), in one or several
            groups of columns.
        """
        return self._spread(rows, backwards=False, scale=scale)

    def read(self, tables: list[Tensor], points: slice = slice(None), scale: Tensor | None = None) -> Tensor:
        """Second half: values of some points from the tables that `spread` made.

        Args:
            tables: Vertex values.
            points: Which points; a few at a time let further arithmetic stay in the cache.
            scale: Factor of each of these points, (len,).

        Returns:
            Filtered values of these points, (len, K).
        """
        vertices, weights = self._tables.read_vertices[points], self._tables.read_weights[points]
        if scale is not None:
            weights = weights * scale.unsqueeze(1)
        parts = [F.embedding_bag(vertices, t, mode="sum", per_sample_weights=weights) for t in tables]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _spread(self, rows: Tensor, backwards: bool, scale: Tensor | None = None) -> list[Tensor]:
        # Blurs along different directions do not commute at the edge of the occupied set, so the order
        # belongs to the definition; each single blur is symmetric, so the transpose reverses the order.
        directions = self._tables.blur.flip(0) if backwards else self._tables.blur
        size = rows.shape[1] * len(self._blur_weights)
        groups = -(-size // _TABLE) if rows.device.type == "cpu" else 1
        tables, weights = [], self._tables.splat_weights
        if scale is not None:
            weights = weights * scale[self._tables.splat_points]
        for columns in rows.chunk(max(groups, 1), dim=1):
            table = F.embedding_bag(
                self._tables.splat_points,
                columns.contiguous(),
                self._tables.splat_starts,
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
