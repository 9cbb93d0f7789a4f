from __future__ import annotations

from pathlib import Path

from PIL import Image

from tests.cli import tagmask


def test_animate_draws_a_film_with_any_method(finished: Path, toy: Path, tmp_path: Path):
    film = tmp_path / "film.gif"
    done = tagmask("animate", finished, toy / "images", film, "--limit", "2", "--fps", "4", "--device", "cpu")
    assert done.exit_code == 0, done.stderr
    assert "2 frames, 4 per second" in done.stdout
    with Image.open(film) as picture:
        assert picture.n_frames == 2


def test_animate_names_what_cannot_be_used(finished: Path, tmp_path: Path):
    done = tagmask("animate", finished, tmp_path / "nothing.mp4", tmp_path / "film.gif", "--device", "cpu")
    assert done.exit_code == 2
    assert "does not exist" in done.stderr
    done = tagmask("animate", finished, tmp_path, tmp_path / "film.gif", "--panels", "image,depth")
    assert done.exit_code == 2
    assert "panels" in done.stderr
