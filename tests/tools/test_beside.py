"""Tagged pictures that nobody corrected are learned from beside the corrections."""

from __future__ import annotations

import numpy as np

from tagmask.integrations.label_studio.teaching import Beside


def picture(value, side=8):
    return np.full((side, side, 3), value, np.uint8), np.full((side, side), value % 3, np.uint8), (1,)


def test_the_newest_sixty_are_kept_and_a_second_look_replaces_the_first():
    beside = Beside()
    for number in range(70):
        beside.put(f"1-{number}", *picture(number))
    beside.put("1-15", *picture(200))
    found = beside.lessons()
    assert len(found) == 60
    assert [one.name for one in found[:2]] == ["1-10", "1-11"]
    assert found[-1].name == "1-15"
    assert int(found[-1].image[0, 0, 0]) == 200
    assert found[-1].tags == (1,)


def test_pictures_that_would_fill_the_memory_are_left_out():
    beside = Beside()
    beside.put("1-1", np.zeros((2000, 2000, 3), np.uint8), np.zeros((2000, 2000), np.uint8), ())
    beside.put("1-2", np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.uint8), ())
    assert beside.lessons() == []
