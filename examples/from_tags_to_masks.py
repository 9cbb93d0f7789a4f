# %% [markdown]
# # From tags to masks
#
# Scenes are generated with up to two of five textures in each. tagmask is told *which* textures a scene
# shows and learns *where* they are. The backbone ships with the package; nothing is downloaded. A real
# folder of images works the same way, see the page "Tutorial" of the documentation.

# %%
import os
from pathlib import Path

from PIL import Image

import tagmask
from tagmask.data.datasets.scenes import write_dataset

folder = Path("tour")
# The real demo (`tagmask demo`) takes 1000 scenes and 600 updates; this is a taste of it.
updates = int(os.environ.get("TOUR_UPDATES", "60"))
data = write_dataset(folder / "data", num_train=160, num_val=12, size=96)
print((data / "tags.csv").read_text()[:160])

# %% [markdown]
# ## Check the data first

# %%
report = tagmask.check_data(data)
print(report.text())

# %% [markdown]
# ## Train, localize, refine, segment, score
#
# One call for the whole workflow. Called again it does nothing; called with other settings, only what they
# change.

# %%
part = updates // 2
settings = {"train.iterations": updates, "train.eval_every": 0, "runtime.device": "cpu"}
settings |= {f"model.{name}": part for name in ("mct_from", "ptc_from", "lir_from", "seg_from")}
run = tagmask.run("demo", data, out=folder / "run", settings=settings, progress=False)
for what, score in run.scores.items():
    print(f"{what:14} mIoU {100 * score:5.1f}")

# %% [markdown]
# Maps are scored with the true tags of the validation scenes; the segmentation gets no tags. Few
# updates give low scores; what matters here is that every step leaves files that the next one, or another
# program, can read.

# %%
model = tagmask.load(folder / "run", device="cpu")
dataset = tagmask.open_dataset(data, "folder", "val", masks=True)
tags = [model.classes[k] for k in dataset.tags(0).nonzero().flatten().tolist()]
result = model.predict(dataset.image(0), tags=tags)
print("tags:", tags, "- in the mask:", result.present)

# %%
figure = result.plot()
figure.set_size_inches(8, 2.2)
figure.savefig(folder / "picture.png", dpi=60)
Image.open(folder / "picture.png").convert("P", palette=Image.Palette.ADAPTIVE)

# %% [markdown]
# ## Share the model
#
# A folder in the Hugging Face convention: weights, configuration, model card.

# %%
published = model.save_pretrained(folder / "published", data="160 generated scenes", license="apache-2.0")
again = tagmask.Model.from_pretrained(published, device="cpu")
assert (again.predict(dataset.image(0), tags=tags).mask == result.mask).all()
print(sorted(path.name for path in published.iterdir()))
