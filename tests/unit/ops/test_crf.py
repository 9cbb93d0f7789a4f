from __future__ import annotations

import dataclasses

import pytest
import torch

from tagmask.ops import crf as crf_module
from tagmask.ops.crf import CRF, crf_on_labels, dense_crf, dense_crf_many
from tagmask.ops.crf_presets import PRESETS, CRFParams, unary_from_labels, unary_from_probabilities
from tagmask.ops.lattice import Lattice


def picture(height=40, width=52, seed=0):
    """Two textured areas, (H, W, 3) uint8, and which pixels belong to the second."""
    random = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    inside = (rows - height / 2) ** 2 + (columns - width / 2) ** 2 < (min(height, width) / 3) ** 2
    image = torch.where(inside.unsqueeze(2), torch.tensor([200, 90, 60]), torch.tensor([60, 110, 140]))
    image = image + torch.randint(-20, 21, (height, width, 3), generator=random)
    return image.clamp(0, 255).to(torch.uint8), inside


def noisy(inside, num_labels, seed=0):
    """Probabilities that favour label 1 inside, 0 outside, with much noise, (K, H, W)."""
    random = torch.Generator().manual_seed(seed)
    scores = torch.randn(num_labels, *inside.shape, generator=random)
    scores[0] += torch.where(inside, 0.0, 2.5)
    scores[1] += torch.where(inside, 2.5, 0.0)
    return torch.softmax(scores, 0)


def plain_mean_field(image, unary, params):
    """The updates written out with the filters as matrices."""
    height, width = image.shape[:2]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    place = torch.stack([columns.flatten(), rows.flatten()], 1).float()
    colour = image.reshape(-1, 3).float() / params.colour_sigma
    kernels = []
    for features, weight in (
        (place / params.spatial_sigma, params.spatial_weight),
        (torch.cat([place / params.bilateral_sigma, colour], 1), params.bilateral_weight),
    ):
        matrix = Lattice(features).filter(torch.eye(len(features))).t()
        norm = matrix.sum(1).rsqrt()
        kernels.append(weight * norm.unsqueeze(1) * matrix * norm)
    energy = unary.flatten(1).t()
    marginals = torch.softmax(-energy, 1)
    for _ in range(params.iterations):
        marginals = torch.softmax(-energy + sum(kernel @ marginals for kernel in kernels), 1)
    return marginals.t().view_as(unary)


@pytest.mark.parametrize("num_labels", [2, 5, 21])
def test_equals_the_updates_written_out(num_labels):
    image, inside = picture(14, 18)
    unary = unary_from_probabilities(noisy(inside, num_labels))
    for name in ("psa_softmax", "more"):
        wanted = plain_mean_field(image, unary, PRESETS[name])
        torch.testing.assert_close(dense_crf(image, unary, PRESETS[name]), wanted, rtol=0, atol=1e-5)


def test_strong_messages_do_not_overflow():
    image, inside = picture(12, 15)
    unary = unary_from_probabilities(noisy(inside, 3))
    params = CRFParams(3, 500, 40, 13, 500, iterations=3)
    torch.testing.assert_close(
        dense_crf(image, unary, params), plain_mean_field(image, unary, params), rtol=0, atol=1e-4
    )


def test_cleans_noise_and_follows_edges():
    image, inside = picture()
    probs = noisy(inside, 2)
    before = (probs.argmax(0) == inside).float().mean()
    for params in PRESETS.values():
        many = dataclasses.replace(params, iterations=10)
        after = (dense_crf(image, unary_from_probabilities(probs), many).argmax(0) == inside).float().mean()
        assert float(before) < 0.97 < 0.995 < float(after)


def test_no_iteration_is_the_softmax_of_the_unary():
    image, inside = picture(9, 11)
    unary = unary_from_probabilities(noisy(inside, 4))
    marginals = CRF(image, PRESETS["more"]).marginals(unary, iterations=0)
    torch.testing.assert_close(marginals, torch.softmax(-unary, 0))


def test_one_object_serves_many_unaries():
    image, inside = picture(20, 24)
    crf = CRF(image, PRESETS["psa_softmax"])
    for seed, count in ((1, 2), (2, 5), (1, 2)):
        unary = unary_from_probabilities(noisy(inside, count, seed))
        assert torch.equal(crf.marginals(unary), dense_crf(image, unary, PRESETS["psa_softmax"]))


def test_lattice_of_positions_is_taken_over_only_where_it_fits():
    image, inside = picture(20, 24)
    other, _ = picture(20, 24, seed=1)
    unary = unary_from_probabilities(noisy(inside, 3))
    for name in ("psa_softmax", "more", "label_50_5"):
        like = CRF(other, PRESETS[name])
        for params in (PRESETS["psa_softmax"], PRESETS["more"]):
            ours = CRF(image, params, like=like)
            assert (ours._spatial is like._spatial) is (params.spatial_sigma == like.params.spatial_sigma)
            assert torch.equal(ours.marginals(unary), dense_crf(image, unary, params))


def test_rows_in_blocks_change_nothing(monkeypatch):
    image, inside = picture(20, 24)
    unary = unary_from_probabilities(noisy(inside, 3))
    wanted = dense_crf(image, unary, PRESETS["afa"])
    monkeypatch.setattr(crf_module, "rows_per_block", lambda *_: 33)
    torch.testing.assert_close(dense_crf(image, unary, PRESETS["afa"]), wanted)


def test_dropping_absent_classes_hardly_changes_soft_results():
    image, inside = picture()
    probs = torch.zeros(81, *inside.shape)
    probs[[0, 7, 30]] = noisy(inside, 3)
    unary = unary_from_probabilities(probs)
    every = dense_crf(image, unary, PRESETS["more"])
    few = dense_crf(image, unary, PRESETS["more"], present=[30, 0, 7])
    assert not few[[k for k in range(81) if k not in (0, 7, 30)]].any()
    torch.testing.assert_close(few.sum(0), torch.ones(inside.shape))
    assert 0 < float((every - few).abs().max()) < 0.01
    assert float((every.argmax(0) != few.argmax(0)).float().mean()) <= 0.001


def test_label_rule_decides_how_much_a_wrong_label_costs():
    image, inside = picture()
    labels = noisy(inside, 2).argmax(0) * 20
    params = PRESETS["label_50_5"]
    everyone = crf_on_labels(image, labels, 21, params)
    present = crf_on_labels(image, labels, 21, dataclasses.replace(params, classes="present"))
    assert set(everyone.unique().tolist()) <= {0, 20}
    local = dense_crf(image, unary_from_labels(labels // 20, 2), params).argmax(0) * 20
    assert torch.equal(present, local)
    assert everyone.dtype == labels.dtype
    uniform = torch.full_like(labels, 3)
    assert torch.equal(crf_on_labels(image, uniform, 21, PRESETS["weaktr_label_voc"]), uniform)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_number_of_workers_changes_nothing(workers):
    pairs = []
    for seed in range(5):
        image, inside = picture(16 + seed % 2, 20, seed)
        pairs.append((image, unary_from_probabilities(noisy(inside, 4, seed))))
    wanted = [dense_crf(image, unary, PRESETS["afa"]) for image, unary in pairs]
    ours = list(dense_crf_many(iter(pairs), PRESETS["afa"], workers))
    assert len(ours) == 5
    assert all(torch.equal(a, b) for a, b in zip(ours, wanted, strict=True))


def test_reads_ahead_only_a_little():
    seen = []

    def endless():
        image, inside = picture(6, 6)
        while True:
            seen.append(1)
            yield image, unary_from_probabilities(noisy(inside, 2))

    stream = dense_crf_many(endless(), PRESETS["transcam_deeplab"], workers=2)
    next(stream)
    stream.close()
    assert len(seen) <= 5


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (30, 2)])
@pytest.mark.parametrize("num_labels", [1, 2])
def test_tiny_images_and_one_label(size, num_labels):
    image, inside = picture(*size)
    unary = unary_from_labels(inside.long() * (num_labels - 1), num_labels)
    marginals = dense_crf(image, unary, PRESETS["weaktr_label_voc"])
    torch.testing.assert_close(marginals.sum(0), torch.ones(size))


def test_computes_in_float32_under_autocast():
    image, inside = picture(12, 16)
    unary = unary_from_probabilities(noisy(inside, 3)).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        marginals = dense_crf(image, unary, PRESETS["more"])
    assert marginals.dtype == torch.float32
    assert torch.equal(marginals, dense_crf(image, unary.float(), PRESETS["more"]))


def test_unaries():
    soft = unary_from_probabilities(torch.tensor([[[0.0, 0.5, 3.0]]]))
    torch.testing.assert_close(soft, torch.tensor([[[11.5129, 0.6931, 0.0]]]), rtol=0, atol=1e-4)
    hard = unary_from_labels(torch.tensor([[0, 2]]), 4)
    wanted = -torch.log(torch.tensor([[0.7, 0.1], [0.1, 0.1], [0.1, 0.7], [0.1, 0.1]]))
    torch.testing.assert_close(hard, wanted.unsqueeze(1))


def test_unusable_input_is_refused():
    image, inside = picture(6, 8)
    crf = CRF(image, PRESETS["more"])
    unary = unary_from_probabilities(noisy(inside, 3))
    calls = {
        "uint8": lambda: CRF(image.float(), PRESETS["more"]),
        "repeat grey": lambda: CRF(image[..., :1], PRESETS["more"]),
        r"must be \(K, 6, 8\)": lambda: crf.marginals(unary.transpose(1, 2)),
        "unary energies hold NaN": lambda: crf.marginals(unary * float("nan")),
        "rows 0..2": lambda: crf.marginals(unary, present=[0, 3]),
        "some of the rows": lambda: crf.marginals(unary, present=[]),
        "probabilities hold NaN": lambda: unary_from_probabilities(unary / 0 * 0),
        "replace 255": lambda: unary_from_labels(torch.tensor([[0, 255]]), 21),
        "confidence in": lambda: unary_from_labels(torch.tensor([[0]]), 21, confidence=1.0),
        r"in 0..20, got 0..255": lambda: crf_on_labels(
            image, torch.full((6, 8), 255).triu(), 21, PRESETS["weaktr_label_voc"]
        ),
        "workers must be": lambda: next(dense_crf_many([], PRESETS["more"], workers=0)),
        "sigmas must be positive": lambda: CRFParams(0, 1, 1, 1, 1),
    }
    for complaint, call in calls.items():
        with pytest.raises(ValueError, match=complaint):
            call()
