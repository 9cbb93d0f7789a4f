"""Masks from an exported model with NumPy, ONNX Runtime and Pillow; neither PyTorch nor tagmask is needed.

tagmask export runs/first --out model.onnx        # where tagmask is installed
python onnx_only.py model.onnx picture.jpg        # anywhere else
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def main() -> None:
    parser = argparse.ArgumentParser(description="Picture to mask by an exported model.")
    parser.add_argument("model", type=Path, help="File written by 'tagmask export'.")
    parser.add_argument("pictures", type=Path, nargs="+")
    parser.add_argument("--tags", help="Classes that may appear, with commas; all if not given.")
    parser.add_argument("--out", type=Path, default=Path("."), help="Folder for the masks.")
    args = parser.parse_args()

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # the runtime's remarks on how it optimises concern nobody here
    session = onnxruntime.InferenceSession(str(args.model), options, providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map["tagmask"])
    if about.get("pixels"):
        raise SystemExit(f"{args.model} takes {about['input']}; this example reads photographs only")
    args.out.mkdir(parents=True, exist_ok=True)
    for path in args.pictures:
        image = read(path, about["smallest_side"])
        found = dict(zip(about["outputs"], session.run(None, {"images": image}), strict=True))
        tags = args.tags.split(",") if args.tags else None
        mask = labels(found, about, tags)
        target = args.out / f"{path.stem}.png"
        write(target, mask, about["palette"])
        shown = [about["classes"][value] for value in np.unique(mask) if value]
        print(f"{target}: {', '.join(shown) or 'background only'}")


def read(path: Path, smallest: int) -> np.ndarray:
    """RGB in [0, 1], float32, (1, 3, H, W); tiny pictures are enlarged to what the model takes."""
    picture = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    if min(picture.size) < smallest:
        factor = smallest / min(picture.size)
        picture = picture.resize([max(smallest, round(side * factor)) for side in picture.size])
    return (np.asarray(picture, np.float32) / 255).transpose(2, 0, 1)[None]


def labels(found: dict[str, np.ndarray], about: dict, tags: list[str] | None) -> np.ndarray:
    """Labels (H, W) uint8; with tags only these classes and the background."""
    if tags is None:
        return found["labels"][0]
    allowed = [0, *(about["classes"].index(tag) for tag in tags)]
    if "scores" in found:
        return np.array(allowed, np.uint8)[found["scores"][0][allowed].argmax(0)]
    kind = next(name for name in about["outputs"] if name not in ("tag_logits", "labels"))
    maps = found[kind][0]
    background = np.full((1, *maps.shape[1:]), about["background"], maps.dtype)
    chosen = np.concatenate([background, maps[[label - 1 for label in allowed[1:]]]])
    return np.array(allowed, np.uint8)[chosen.argmax(0)]


def write(path: Path, mask: np.ndarray, palette: list[list[int]]) -> None:
    """Indexed PNG: pixel values are labels, colours are the data set's."""
    picture = Image.fromarray(mask)
    picture.putpalette([value for colour in palette for value in colour])
    picture.save(path)


if __name__ == "__main__":
    main()
