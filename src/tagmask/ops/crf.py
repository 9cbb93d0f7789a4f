"""Fully connected CRF by mean field (Kraehenbuehl and Koltun, NIPS 2011), with the labels of pydensecrf."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from tagmask.ops.arrays import A, Array, like, tensor
from tagmask.ops.blocks import rows_per_block
from tagmask.ops.checks import require_finite
from tagmask.ops.crf_presets import CRFParams, crf_params, unary_from_labels
from tagmask.ops.labels import strongest
from tagmask.ops.lattice import Lattice

# Floats per pass over pixels: the chain of small operations behind the filters stays in a core's cache.
_BLOCK = 250_000
# exp(85) is still finite in float32. A row's largest score is at least 0 because energies start at 0.
_SAFE_EXPONENT = 80.0
_KNOWN_SIZES = 4

__all__ = ["CRF", "crf_on_labels", "dense_crf", "dense_crf_many"]


class CRF:
    """The part of a dense CRF that depends on the image alone, ready for any number of unaries.

    With K labels, energies U (K, N) and the two kernels of `CRFParams` as filters G (positions) and A
    (positions and colours), each n F(n Q) with n = 1 / sqrt(F(1)): Q starts as softmax(-U); every update sets
    Q = softmax(-U + w_G G(Q) + w_A A(Q)) for all pixels at once. A pixel's message to itself stays in.
    """

    def __init__(self, image: Tensor, params: CRFParams, like: CRF | None = None) -> None:
        """Build both lattices and their normalisers.

        Args:
            image: RGB, uint8, (H, W, 3), on the device to compute on.
            params: Kernels and number of updates.
            like: A CRF whose lattice of positions is taken over if its size and kernel are the same.

        Raises:
            ValueError: If the image has another type or shape.
        """
        if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.numel() == 0:
            raise ValueError(
                f"image must be uint8 (H, W, 3), got {image.dtype} {tuple(image.shape)}; "
                "repeat grey images three times, cut floats to 0..255"
            )
        self.params = params
        self.size = (image.shape[0], image.shape[1])
        position = _positions(*self.size, image.device)
        colour = image.reshape(-1, 3).float() / params.colour_sigma
        self._spatial_key = (*self.size, params.spatial_sigma, params.spatial_weight, image.device)
        if like is not None and like._spatial_key == self._spatial_key:
            self._spatial: Lattice = like._spatial
        else:
            self._spatial = Lattice(position / params.spatial_sigma).normalised(params.spatial_weight)
        appearance = torch.cat([position / params.bilateral_sigma, colour], dim=1)
        self._bilateral = Lattice(appearance).normalised(params.bilateral_weight)
        # Filters are positive and marginals at most 1, so no message exceeds the filters' answer to ones.
        ones = torch.ones(len(position), 1, device=image.device)
        largest = self._spatial.filter_rows(ones) + self._bilateral.filter_rows(ones)
        self._largest_message = float(largest.amax())

    def marginals(
        self, unary: Tensor, iterations: int | None = None, present: Sequence[int] | None = None
    ) -> Tensor:
        """Run the mean field.

        Args:
            unary: Energies, (K, H, W), K >= 1.
            iterations: Number of updates instead of the one in the parameters; 0 gives softmax(-unary).
            present: Rows of `unary` that compete, in any order; None lets all compete.

        Returns:
            Marginals, float32, (K, H, W), summing to 1 over K; 0 for rows that do not compete.

        Raises:
            ValueError: If the shape does not fit the image, an energy is NaN or infinite, or `present` is
                empty or out of range.
        """
        if unary.ndim != 3 or tuple(unary.shape[1:]) != self.size or unary.shape[0] == 0:
            raise ValueError(f"unary must be (K, {self.size[0]}, {self.size[1]}), got {tuple(unary.shape)}")
        require_finite("unary energies", unary)
        count = self.params.iterations if iterations is None else iterations
        with torch.no_grad(), torch.autocast(unary.device.type, enabled=False):
            if present is None:
                return self._mean_field(unary.float(), count)
            rows = _checked_rows(present, len(unary), unary.device)
            result = torch.zeros_like(unary, dtype=torch.float32)
            return result.index_copy_(0, rows, self._mean_field(unary[rows].float(), count))

    def _mean_field(self, unary: Tensor, iterations: int) -> Tensor:
        # Pixel by pixel rather than label by label: the filters gather and add whole rows.
        energy = (unary - unary.amin(0)).flatten(1).t().contiguous()
        marginals = torch.empty_like(energy)
        _softmax_rows(energy.neg(), 0.0, out=marginals)
        block = rows_per_block(len(unary), _BLOCK, unary.device)
        for _ in range(iterations):
            smooth, alike = self._spatial.spread(marginals), self._bilateral.spread(marginals)
            for start in range(0, len(energy), block):
                part = slice(start, start + block)
                scores = self._spatial.read(smooth, part).sub_(energy[part])
                scores += self._bilateral.read(alike, part)
                _softmax_rows(scores, self._largest_message, out=marginals[part])
        return marginals.t().reshape(unary.shape)


def dense_crf(
    image: Array, unary: A, params: CRFParams | str = "more", present: Sequence[int] | None = None
) -> A:
    """Marginals of a dense CRF for one image; see `CRF` for the model and for several unaries per image.

    Args:
        image: RGB, uint8, (H, W, 3), tensor or NumPy array.
        unary: Energies, (K, H, W), from `unary_from_probabilities` or `unary_from_labels`.
        params: Name of one of `PRESETS`, or your own.
        present: Classes that compete; None for all. Leaving out classes that cannot occur saves time and
            slightly changes the others: with score 0 an absent class still starts with 1e-5 of the mass, or
            in a label unary with (1 - g) / (K - 1).

    Returns:
        Marginals, float32, (K, H, W); an array if `unary` is one.

    Raises:
        ConfigError: There is no preset of that name.
        ValueError: See `CRF`.
    """
    energies = tensor("unary", unary)
    crf = CRF(tensor("image", image), crf_params(params))
    return like(unary, crf.marginals(energies, present=present))


def crf_on_labels(image: Array, labels: A, num_labels: int, params: CRFParams | str) -> A:
    """Clean a hard label map, by the class rule of the parameter set.

    With `classes="present"`, only the labels of the map compete, and the confidence of the others is shared
    among them alone; with "all", every label of the dataset takes its share.

    Args:
        image: RGB, uint8, (H, W, 3), tensor or NumPy array.
        labels: Labels in 0..num_labels - 1, integer, (H, W).
        num_labels: Number of labels of the dataset, background included.
        params: Kernels and class rule, or the name of one of `PRESETS`.

    Returns:
        Labels, in the type of `labels`, (H, W).

    Raises:
        ConfigError: There is no preset of that name.
        ValueError: See `CRF` and `unary_from_labels`.
    """
    cleaned = _crf_on_labels(tensor("image", image), tensor("labels", labels), num_labels, crf_params(params))
    return like(labels, cleaned)


def _crf_on_labels(image: Tensor, labels: Tensor, num_labels: int, params: CRFParams) -> Tensor:
    if params.classes == "all":
        marginals = dense_crf(image, unary_from_labels(labels, num_labels), params)
        return strongest(marginals, 0).to(labels.dtype)
    found, local = torch.unique(labels, return_inverse=True)
    if len(found) and not 0 <= int(found[0]) <= int(found[-1]) < num_labels:
        raise ValueError(f"labels must be in 0..{num_labels - 1}, got {int(found[0])}..{int(found[-1])}")
    marginals = dense_crf(image, unary_from_labels(local, len(found)), params)
    cleaned: Tensor = found[strongest(marginals, 0)]
    return cleaned


def dense_crf_many(
    pairs: Iterable[tuple[Tensor, Tensor]], params: CRFParams, workers: int = 1
) -> Iterator[Tensor]:
    """`dense_crf` over many images in threads, in order; results do not depend on the number of workers.

    At most two images per worker are held at a time, so `pairs` may be a generator that reads files.

    Args:
        pairs: Image, uint8, (H, W, 3), and unary, (K, H, W), per item.
        params: Kernels and number of updates.
        workers: Images at the same time. More than one pays where PyTorch itself runs with few threads.

    Yields:
        Marginals, float32, (K, H, W), one per pair.

    Raises:
        ValueError: If workers < 1, or see `CRF`.
    """
    if workers < 1:
        raise ValueError(f"workers must be 1 or more, got {workers}")
    recent: dict[torch.Size, CRF] = {}

    def one(image: Tensor, unary: Tensor) -> Tensor:
        crf = CRF(image, params, like=recent.get(image.shape))
        # Data sets repeat a few image sizes; a size more or less in this table changes no result.
        if len(recent) < _KNOWN_SIZES:
            recent[image.shape] = crf
        return crf.marginals(unary)

    if workers == 1:
        for image, unary in pairs:
            yield one(image, unary)
        return
    waiting: deque[Future[Tensor]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for image, unary in pairs:
            waiting.append(pool.submit(one, image, unary))
            if len(waiting) == 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _positions(height: int, width: int, device: torch.device) -> Tensor:
    down = torch.arange(height, dtype=torch.float32, device=device)
    across = torch.arange(width, dtype=torch.float32, device=device)
    return torch.stack(torch.meshgrid(across, down, indexing="xy"), dim=-1).view(-1, 2)


def _softmax_rows(scores: Tensor, bound: float, out: Tensor) -> None:
    """Softmax over labels; the largest score of each row is in 0..bound. Overwrites the scores."""
    if bound > _SAFE_EXPONENT:
        torch.softmax(scores, dim=1, out=out)
        return
    raised = scores.exp_()
    torch.div(raised, raised @ raised.new_ones(raised.shape[1], 1), out=out)


def _checked_rows(present: Sequence[int], count: int, device: torch.device) -> Tensor:
    rows = sorted(set(present))
    if not rows or rows[0] < 0 or rows[-1] >= count:
        raise ValueError(f"present must name some of the rows 0..{count - 1}, got {list(present)}")
    return torch.tensor(rows, device=device)
