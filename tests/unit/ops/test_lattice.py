from __future__ import annotations

import pytest
import torch

from tagmask.ops import lattice as lattice_module
from tagmask.ops.lattice import Lattice


def exact(features):
    """Every pair of points, as the kernel is defined."""
    return torch.exp(-0.5 * torch.cdist(features.double(), features.double()).square()).float()


def scene(height=24, width=30, seed=0):
    """Positions and smooth colours of a small picture in units of the kernel, (N, 5)."""
    random = torch.Generator().manual_seed(seed)
    colours = torch.rand(1, 3, 4, 5, generator=random) * 120
    colours = torch.nn.functional.interpolate(colours, (height, width), mode="bilinear")
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack([columns, rows]).float().unsqueeze(0) / 12
    return torch.cat([places, colours / 15], 1)[0].flatten(1).t()


def matrix(lattice):
    """The filter as a matrix: column j is the answer to a single 1 at point j."""
    return lattice.filter(torch.eye(lattice.num_points)).t()


def test_follows_the_exact_sum_in_two_and_five_dimensions():
    random = torch.Generator().manual_seed(1)
    for features, low, high in ((scene()[:, :2], 0.82, 0.92), (scene(), 0.4, 0.65)):
        values = torch.rand(3, len(features), generator=random)
        ours, wanted = Lattice(features).filter(values), values @ exact(features)
        assert low < float(ours.sum() / wanted.sum()) < high
        both = torch.stack([ours.flatten(), wanted.flatten()])
        assert float(torch.corrcoef(both)[0, 1]) > 0.94


def test_normalised_answer_is_nearer_to_the_exact_one():
    features = scene()
    kernel, ones = exact(features), torch.ones(len(features))
    norm = (kernel @ ones).rsqrt()
    values = (features[:, :1].t() > 1).float()
    wanted = norm * (kernel @ (norm * values[0]))
    ours = Lattice(features).normalised(2.0).filter(values)[0] / 2
    assert float((ours - wanted).abs().mean()) < 0.03


def test_normalised_is_the_filter_between_its_own_norms():
    lattice = Lattice(scene())
    values = torch.rand(2, lattice.num_points, generator=torch.Generator().manual_seed(2))
    norm = (lattice.filter(torch.ones(1, lattice.num_points)) + 1e-20).rsqrt()
    wanted = 3.0 * norm * lattice.filter(norm * values)
    torch.testing.assert_close(lattice.normalised(3.0).filter(values), wanted, rtol=1e-5, atol=1e-6)


def test_images_of_a_batch_do_not_touch_each_other():
    features = torch.stack([scene(7, 9, seed) for seed in range(3)])
    values = torch.rand(3, 2, 63, generator=torch.Generator().manual_seed(3))
    together = Lattice(features)
    alone = [Lattice(one) for one in features]
    assert together.num_vertices == sum(one.num_vertices for one in alone)
    for index, one in enumerate(alone):
        torch.testing.assert_close(together.filter(values)[index], one.filter(values[index]))


def test_gradient_is_the_transpose():
    lattice = Lattice(scene(6, 7))
    values = torch.rand(2, 42, generator=torch.Generator().manual_seed(4), requires_grad=True)
    pull = torch.rand(2, 42, generator=torch.Generator().manual_seed(5))
    (grad,) = torch.autograd.grad((lattice.filter(values) * pull).sum(), values)
    filter_matrix = matrix(lattice)
    torch.testing.assert_close(grad, pull @ filter_matrix, rtol=1e-5, atol=1e-5)
    # At the edge of the occupied set the filter is not symmetric, so the transpose is another filter.
    assert float((filter_matrix - filter_matrix.t()).norm() / filter_matrix.norm()) > 0.01


def test_second_derivative_of_a_quadratic_form():
    lattice = Lattice(scene(4, 5))
    values = torch.rand(1, 20, generator=torch.Generator().manual_seed(6), requires_grad=True)
    (grad,) = torch.autograd.grad((lattice.filter(values) * values).sum(), values, create_graph=True)
    (second,) = torch.autograd.grad(grad.sum(), values)
    filter_matrix = matrix(lattice)
    wanted = (filter_matrix + filter_matrix.t()).sum(0, keepdim=True)
    torch.testing.assert_close(second, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_few_points_and_incomplete_blocks(count):
    # Points at the origin fill a block of four: they add vertices but no values.
    features = torch.full((count, 2), 7.3)
    lattice = Lattice(features)
    assert lattice.num_vertices == (3 if count % 4 == 0 else 6)
    answer = lattice.filter(torch.ones(1, count))
    torch.testing.assert_close(answer, answer[:, :1].expand(1, count))
    assert 0.5 * count < float(answer[0, 0]) <= count


def test_columns_in_groups_and_threads_change_nothing(monkeypatch):
    lattice = Lattice(scene(60, 80))
    values = torch.rand(7, lattice.num_points, generator=torch.Generator().manual_seed(7))
    wanted = lattice.filter(values)
    monkeypatch.setattr(lattice_module, "_TABLE", 3 * lattice.num_vertices)
    torch.testing.assert_close(lattice.filter(values), wanted)
    monkeypatch.undo()
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            assert torch.equal(lattice.filter(values), wanted)
    finally:
        torch.set_num_threads(before)


def test_half_precision_is_filtered_in_float32():
    features = scene(8, 9)
    values = torch.rand(2, 72, generator=torch.Generator().manual_seed(8)).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        answer = Lattice(features.bfloat16()).filter(values)
    assert answer.dtype == torch.float32
    assert torch.equal(answer, Lattice(features.bfloat16().float()).filter(values.float()))


@pytest.mark.parametrize(
    ("features", "complaint"),
    [
        (torch.zeros(0, 2), "non-empty"),
        (torch.zeros(3), "non-empty"),
        (torch.tensor([[0.0, float("nan")]]), "NaN"),
        (torch.eye(9) * 1e7, "too many to number"),
    ],
)
def test_unusable_features_are_refused(features, complaint):
    with pytest.raises(ValueError, match=complaint):
        Lattice(features)


def test_values_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"points \(6,\)"):
        Lattice(torch.rand(6, 2)).filter(torch.ones(1, 7))
