from __future__ import annotations

import threading
import time

import pytest
import torch
from torch import nn

from tagmask.engine.lanes import in_lanes, lanes_for


def never(job):
    return False


@pytest.mark.parametrize("lanes", [1, 2, 3])
def test_jobs_come_back_in_order_each_when_it_is_done(lanes):
    done = set()

    def work(job):
        time.sleep(0.02 * (3 - job % 3))
        done.add(job)

    found = []
    for job in in_lanes(work, range(10), lanes, never):
        assert job in done
        found.append(job)
    assert found == list(range(10))


def test_lanes_work_at_the_same_time_on_a_share_of_the_threads_each():
    before, meet, seen = torch.get_num_threads(), threading.Barrier(2, timeout=20), []
    torch.set_num_threads(4)
    try:

        def work(job):
            meet.wait()
            seen.append(torch.get_num_threads())

        assert list(in_lanes(work, range(4), 2, never)) == [0, 1, 2, 3]
        assert seen == [2] * 4
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)


def test_nothing_is_done_beside_a_job_that_wants_to_be_alone():
    running, beside = set(), {}

    def work(job):
        running.add(job)
        time.sleep(0.03)
        beside[job] = set(running)
        running.discard(job)

    assert list(in_lanes(work, range(6), 2, lambda job: job == 3)) == list(range(6))
    assert beside[3] == {3}


def test_a_fault_comes_in_its_turn_and_what_is_not_begun_stays_undone():
    before, done = torch.get_num_threads(), []

    def work(job):
        if job == 2:
            raise ValueError("two")
        done.append(job)

    found = []
    with pytest.raises(ValueError, match="two"):
        found.extend(in_lanes(work, range(100), 2, never))
    assert len(done) < 10
    assert torch.get_num_threads() == before


def test_who_leaves_early_leaves_the_threads_as_they_were():
    before, done = torch.get_num_threads(), []
    working = in_lanes(done.append, range(100), 2, never)
    assert next(working) == 0
    working.close()
    assert len(done) < 10
    assert torch.get_num_threads() == before


def test_lanes_are_for_light_networks_on_a_processor_with_threads():
    before, cpu = torch.get_num_threads(), torch.device("cpu")
    try:
        torch.set_num_threads(2)
        light, heavy = nn.Linear(8, 8), nn.Linear(7000, 7000, device="meta")
        assert [lanes_for(cpu), lanes_for(cpu, light), lanes_for(cpu, heavy)] == [2, 2, 1]
        assert lanes_for(torch.device("cuda"), light) == 1
        torch.set_num_threads(1)
        assert lanes_for(cpu) == 1
    finally:
        torch.set_num_threads(before)
