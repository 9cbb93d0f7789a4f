"""Files of every kind go the whole way with tags only; masks come out in their grid, by other libraries."""

from __future__ import annotations

import base64
import io
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from tagmask.app.pack import unpack
from tagmask.store.labels import read_mask
from tests.cli import TINY, tagmask
from tests.cli.kinds import FIX, KINDS

FEW = (
    "--iterations=40", "--no-holdout", "--set=segment.scales=[1.0]", "--set=segment.flip=none",
    "--set=model.seg_from=5", "--set=model.mct_from=99", "--set=model.ptc_from=99", "--set=model.lir_from=99",
)  # fmt: skip
"""As many updates as give masks that are not empty, and one look at every image."""


def ran(*words):
    done = tagmask(*words)
    assert done.exit_code == 0, (words, done.stdout, done.stderr)
    return done.stdout


def for_people(numbers, run):
    """What people have to see of the file's numbers, (H, W, 3), by the range in the model."""
    ends = json.loads((run / "model/meta.json").read_text())["extra"]["pixels"]["ranges"]
    low, high = np.array([ends[k % len(ends)] for k in range(len(numbers))]).T[..., None, None]
    levels = np.nan_to_num(np.clip(np.rint((numbers - low) * 255 / (high - low)), 0, 255))
    return np.stack([levels[k % len(levels)] for k in range(3)], 2).astype(np.uint8)


def page_of(run, inbox):
    """The app's addresses."""
    pytest.importorskip("uvicorn")
    from tagmask.app import server
    from tagmask.app.desk import Desk
    from tests.app.test_routes import Caller

    options = server.AppOptions(device="cpu")
    lab, library, background, _ = server._prepare(run, options, print)
    inbox.mkdir()
    return Caller(server.application(Desk(lab, library, run, inbox), "run", background, options))


def look(run, first, seen, tmp_path):
    """Review, report and app list every image and show the first as people have to see it."""
    names = sorted(path.relative_to(run / "masks").as_posix()[:-4] for path in run.glob("masks/**/*.png"))
    ran("review", run)
    for page in ("review/index.html", "report.html"):
        text = (run / page).read_text()
        assert all(name in text for name in names), page
        shown = re.search(r'src="data:image/jpeg;base64,([^"]+)"', text)
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(shown[1]))))
        assert picture.std() > 20, page
    ask = page_of(run, tmp_path / "inbox")
    assert sorted(json.loads(ask("/api/run")[1])["names"]) == names
    picture = np.asarray(Image.open(io.BytesIO(ask("/api/picture", query={"name": first})[1])))
    assert np.abs(picture.astype(int) - seen).mean() < 10
    _, arrays = unpack(ask("/api/image", query={"name": first})[1])
    np.testing.assert_array_equal(arrays["masks"], read_mask(run / f"masks/{first}.png"))


def export(run, numbers, mask, out):
    """The graph takes the file's numbers and says what the run says."""
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    ran("export", run, "--out", out, "--maps", "", "--set", "check_sizes=[[64,64],[75,130]]")
    given = np.stack([numbers[k % len(numbers)] for k in range(max(3, len(numbers)))])
    images = given[None].astype(np.float32)
    if out.suffix == ".onnx":
        labels = runtime.InferenceSession(str(out)).run(None, {"images": images})[-1]
    else:
        labels = torch.export.load(out).module()(torch.from_numpy(images))[-1].numpy()
    there = np.isfinite(numbers[0])
    assert (labels[0] == mask)[there].mean() > 0.995


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_whole_way(tmp_path, kind):
    one, root, run = KINDS[kind], tmp_path / "data", tmp_path / "run"
    root.mkdir()
    files = one.make(root)
    rows = [f"{file},{'ab'[k % 2]}" for k, file in enumerate(files)]
    (root / "tags.csv").write_text("\n".join(["image,tags", *rows]) + "\n")
    assert "no row names it" not in ran("data", "check", root, *one.settings)
    # The first of the flags names the method, which the recipe does.
    ran("run", "demo", "--data", root, "--out", run, *TINY[1:], *FEW, *one.settings)
    numbers, mask = one.numbers(root / files[0]), read_mask(run / f"masks/{one.first}.png")
    assert {0, 1} <= set(np.unique(mask)) <= {0, 1, 2}
    seen = for_people(numbers, run)
    assert seen.std() > 40
    look(run, one.first, seen, tmp_path)
    ran("predict", run, root, "--out", tmp_path / "out", "--tile=512")
    assert np.asarray(Image.open(next((tmp_path / "out/overlays").iterdir()))).std() > 20
    maps, native = tmp_path / "maps", ("annotate", "export", run, "--format", "native", "--out")
    assert kind in ran(*native, maps)
    for folder in (maps, tmp_path / "out/masks"):
        for file in files:
            one.same(folder / f"{file.partition('.')[0]}{one.ending}", root / file)
    if kind in ("GeoTIFF", "scans"):
        name = files[0].partition(".")[0]
        assert json.loads((maps / f"{name}.geojson").read_text())["features"]
        assert json.loads((tmp_path / f"out/polygons/{name}.geojson").read_text())["features"]
        assert (maps / f"{name}.gpkg").is_file() == (kind == "GeoTIFF")

    pictures, coco = tmp_path / "pictures", tmp_path / "to.json"
    ran("annotate", "export", run, "--format", "coco", "--out", coco, "--pictures", pictures)
    np.testing.assert_allclose(np.asarray(Image.open(pictures / f"{one.first}.png")), seen, atol=1)
    assert all((pictures / i["file_name"]).is_file() for i in json.loads(coco.read_text())["images"])
    ran("annotate", "import", coco, run, "--out", tmp_path / "back")
    np.testing.assert_array_equal(read_mask(tmp_path / f"back/{one.first}.png"), mask)

    one.correct(maps / f"{files[0].partition('.')[0]}{one.ending}", root / files[0])
    ran("annotate", "import", maps, run, "--out", tmp_path / "fixed")
    fixed = read_mask(tmp_path / f"fixed/{one.first}.png")
    assert (fixed[FIX] == 2).all()
    if kind in ("NIfTI", "scans"):
        fixed[FIX] = mask[FIX]
        inside = fixed != 255  # a tile reaches beyond the edge of its scan
        assert inside.mean() > 0.97
        np.testing.assert_array_equal(fixed[inside], mask[inside])
    assert "corrections" in ran("teach", run, "--corrections", maps, "--time", "2s", "--out", tmp_path / "v")
    # Writing ONNX takes three times as long, and what differs between the kinds is before either is written.
    export(run, numbers, mask, tmp_path / f"model{'.onnx' if kind == 'GeoTIFF' else '.pt2'}")


def test_data_check_takes_bands_and_range_alone(tmp_path):
    (tmp_path / "tags.csv").write_text(
        "\n".join(["image,tags", *(f"{name},a" for name in KINDS["GeoTIFF"].make(tmp_path))])
    )
    assert "5 bands" in tagmask("data", "check", tmp_path).stdout
    told = tagmask("data", "check", tmp_path, "--set", "data.bands=[4,1,2]", "--set", "data.range=[0,4095]")
    assert told.exit_code == 0, told.stdout
    assert "bands 4, 1, 2; black to white 0 to 4095" in told.stdout
    refused = tagmask("data", "check", tmp_path, "--set", "train.size=3")
    assert refused.exit_code == 2
    assert "takes --set data.bands=" in refused.stderr


def test_only_the_masks_of_a_run_with_a_grid_are_native(tmp_path):
    refused = tagmask("annotate", "export", tmp_path, "--format", "native", "--out", tmp_path / "x")
    assert refused.exit_code == 2
    assert "is no run folder" in refused.stderr
