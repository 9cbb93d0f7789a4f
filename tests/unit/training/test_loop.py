from __future__ import annotations

import os
import signal

import pytest
import torch

from tagmask.engine.runtime import Runtime
from tagmask.engine.signals import Stopped
from tagmask.errors import CheckpointError, UserError
from tagmask.training.loop import Hooks
from tagmask.training.state import Progress, capture
from tagmask.types import StepResult
from tests.unit.training.tiny import Tiny, batches, train


def make(optimizer: str = "adamw") -> Tiny:
    torch.manual_seed(0)
    return Tiny(optimizer)


def weights(method: Tiny) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in method.layer.parameters()]).clone()


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_resumed_training_equals_uninterrupted_bit_by_bit(optimizer):
    whole = make(optimizer)
    train(whole, 20)
    first = make(optimizer)
    progress, optim, runtime = train(first, 9, total=20)
    saved = capture(first, optim, runtime, progress)
    saved = ({k: v.clone() for k, v in saved[0].items()}, saved[1])
    torch.rand(100)
    second = Tiny(optimizer)
    train(second, 20, saved=saved)
    assert torch.equal(weights(whole), weights(second))


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_non_finite_update_is_skipped_and_counted(optimizer):
    method = make(optimizer)
    method.poison = {0, 3}
    seen = []
    progress, optim, _ = train(method, 6, Hooks(log=lambda s, f: seen.append((s, dict(f)))), log_every=2)
    assert progress.skipped == 2
    assert torch.isfinite(weights(method)).all()
    assert [s for s, _ in seen] == [1, 2, 4, 6]
    assert "loss" not in seen[0][1]
    assert seen[2][1]["loss"] > 0
    steps = [s["step"].item() for s in optim.state_dict()["state"].values() if "step" in s]
    assert all(s == 4 for s in steps)


def test_skipped_update_leaves_weights_as_they_were():
    method = make("sgd")
    method.poison = set(range(100))
    before = weights(method)
    with pytest.raises(UserError, match="none of 5 updates"):
        train(method, 5)
    assert torch.equal(before, weights(method))


class Normed(Tiny):
    """Tiny with batch statistics, which a forward pass writes before anybody knows its loss."""

    def __init__(self) -> None:
        super().__init__("sgd")
        self.norm = torch.nn.BatchNorm2d(3)

    def forward(self, batch, step):
        images = batch.images * float("inf") if step in self.poison else batch.images
        loss = self.layer(self.norm(images).mean((2, 3))).square().mean()
        return StepResult(loss, {})


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_skipped_update_leaves_every_buffer_as_it_was(accumulate):
    torch.manual_seed(0)
    method, states = Normed(), []
    method.poison = {2}
    keep = lambda step: states.append({k: v.clone() for k, v in method.state_dict().items()})  # noqa: E731
    progress, _, _ = train(
        method, 5, Hooks(tick=lambda step: None, save=keep), save_every=1, accumulate=accumulate
    )
    assert progress.skipped == 1
    assert all(torch.equal(states[1][key], states[2][key]) for key in states[1])
    assert not torch.equal(states[2]["norm.running_mean"], states[3]["norm.running_mean"])
    assert states[-1]["norm.num_batches_tracked"] == 4 * accumulate


def test_weights_that_leave_the_finite_numbers_are_neither_saved_nor_evaluated():
    method, calls = make("sgd"), []

    def overflow(step):
        if step == 5:
            with torch.no_grad():
                method.layer.weight[0, 0] = float("inf")

    hooks = Hooks(tick=overflow, save=calls.append, evaluate=calls.append)
    with pytest.raises(UserError, match="after 6 updates the weights are no longer finite"):
        train(method, 10, hooks, save_every=2, eval_every=3)
    assert calls == [2, 3, 4]


def test_a_run_under_a_gradient_scaler_that_learns_nothing_stops(monkeypatch):
    class Overflowing(Tiny):
        def forward(self, batch, step):
            # The loss is finite, its gradient never: infinity times the slope of a vanishing number.
            return StepResult((self.layer.weight.sum() * 0.0).sqrt() + 1.0, {})

    monkeypatch.setattr(Runtime, "scaler", property(lambda self: scaler))
    monkeypatch.setattr(Runtime, "backward", lambda self, loss: scaler.scale(loss).backward())
    scaler = torch.amp.GradScaler("cpu")
    with pytest.raises(UserError, match="43 updates in a row"):
        train(Overflowing(), 200, max_bad=3)
    scaler = torch.amp.GradScaler("cpu")
    with pytest.raises(UserError, match="none of 10 updates"):
        train(Overflowing(), 10)


def test_too_many_non_finite_updates_stop_with_image_names():
    method = make()
    method.poison = set(range(4, 100))
    with pytest.raises(UserError, match="5 updates in a row") as error:
        train(method, 60, log_every=20, max_bad=5)
    assert "4-0" in str(error.value)


def test_non_finite_updates_that_are_not_in_a_row_stop_nothing():
    method = make()
    method.poison = set(range(0, 40, 4)) | {9, 10}
    progress, _, _ = train(method, 40, log_every=20, max_bad=5)
    assert (progress.step, progress.skipped) == (40, 12)


def test_images_of_skipped_updates_are_told_with_their_step():
    method = make()
    method.poison = {2, 5}
    told = []
    train(method, 8, Hooks(skipped=lambda step, names: told.append((step, names))), log_every=4)
    assert told == [(3, ("2-0", "2-1", "2-2", "2-3")), (6, ("5-0", "5-1", "5-2", "5-3"))]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_out_of_memory_says_which_setting_to_change(monkeypatch, error):
    def fail(*_):
        raise error

    method = make()
    monkeypatch.setattr(method, "forward", fail)
    with pytest.raises(UserError, match=r"memory ran out at step 0 .* Raise train\.accumulate to 4"):
        train(method, 2, accumulate=2)


def test_other_failures_are_not_taken_for_lack_of_memory(monkeypatch):
    def fail(*_):
        raise RuntimeError("shapes do not match")

    method = make()
    monkeypatch.setattr(method, "forward", fail)
    with pytest.raises(RuntimeError, match="shapes"):
        train(method, 2)


def test_gradients_of_micro_batches_are_averaged():
    method, twin = make("sgd"), make("sgd")
    method.drop = twin.drop = 0.0
    train(method, 1, accumulate=2)
    stream = batches(0)
    loss = (twin(next(stream), 0).loss + twin(next(stream), 0).loss) / 2
    loss.backward()
    weight = twin.layer.weight
    assert torch.allclose(method.layer.weight, weight - 0.05 * (weight.grad + 0.01 * weight), atol=1e-7)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_finishes_the_step_saves_and_stops(signum, code):
    saved = []

    def tick(step):
        if step == 3:
            os.kill(os.getpid(), signum)

    with pytest.raises(Stopped) as stopped:
        train(make(), 10, Hooks(tick=tick, save=saved.append))
    assert saved == [3]
    assert stopped.value.exit_code == code


def test_hooks_come_in_order_and_at_their_steps():
    calls = []
    hooks = Hooks(
        log=lambda s, f: calls.append(("log", s)),
        evaluate=lambda s: calls.append(("evaluate", s)),
        save=lambda s: calls.append(("save", s)),
    )
    train(make(), 6, hooks, log_every=100, eval_every=4, save_every=3)
    first = [("log", 1), ("log", 3), ("save", 3), ("log", 4), ("evaluate", 4)]
    assert calls == [*first, ("log", 6), ("evaluate", 6), ("save", 6)]


def test_state_of_another_model_is_refused():
    first = make()
    progress, optim, runtime = train(first, 1)
    tensors, values = capture(first, optim, runtime, progress)
    tensors["model.layer.weight"] = torch.zeros(5, 3)
    with pytest.raises(CheckpointError, match="does not fit"):
        train(Tiny(), 2, saved=(tensors, values))


def test_progress_survives_capture():
    method = make()
    progress, optim, runtime = train(method, 2)
    progress.best, progress.best_step, progress.scores = 0.5, 2, {"cam": 0.5}
    _, values = capture(method, optim, runtime, progress)
    assert Progress(**values["progress"]) == progress
