"""Numbers in a section that cites result files are in the files; other sections hold no measurements.

Checked are decimals and numbers with thousands separators outside of code, after rounding, in percent, and in
other units. What is in no file is listed below with what it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.docs.blocks import PAGES, ROOT

RESULTS = ROOT / "benchmarks" / "results"
UNITS = (
    1,
    100,
    1 / 60,
    1 / 3600,
    1e-3,
    1e3,
    1e-6,
    1 / 1024,
    1 / 223,
    1 / 927,
)  # also per image of the runs told
NUMBER = re.compile(r"(?<![\w.,/-])(\d[\d,]*\.\d+|\d{1,3}(?:,\d{3})+)(?![\w.]\d|\w)")
ELSEWHERE = {
    ("docs/concepts/refinement.md", "100,000"): "pixels, a condition",
    ("docs/guide/review-and-correct.md", "2,112"): "images of the first training, in more_small_animals.json",
    ("docs/guide/review-and-correct.md", "0.2"): "a setting",
    ("docs/guide/review-and-correct.md", "1.6"): "68.3 - 66.7",
    ("docs/guide/review-and-correct.md", "6.5"): "68.3 - 61.8",
    ("docs/methods/aream.md", "8.9"): "67.1 - 58.2",
    ("docs/methods/weaktr.md", "2.31"): "seconds of the network's passes, measured once beside the file",
    ("docs/methods/weaktr.md", "1.47"): "the ceiling that follows from them",
}
# Sections without result files that may hold numbers: settings, conditions, and what the authors published.
FREE = re.compile(
    r"Published|Settings|Commands|Install|differs|does$|^# |Dense CRF|filter|Signals|MoRe|AFA|annotation"
    r"|original|renamed|black and white|FiftyOne|Studio|CVAT"
)


def values(content: Any) -> Iterator[float]:
    """All numbers of a result file, those within its texts included."""
    if isinstance(content, dict | list):
        for inner in content.values() if isinstance(content, dict) else content:
            yield from values(inner)
    elif isinstance(content, str):
        yield from (float(found.replace(",", "")) for found in re.findall(r"\d[\d,]*(?:\.\d+)?", content))
    elif isinstance(content, int | float) and not isinstance(content, bool):
        yield float(content)


def sections() -> Iterator[tuple[str, str, list[str]]]:
    """(page, section, result files it cites)."""
    for page in PAGES:
        name = page.relative_to(ROOT).as_posix()
        if name == "docs/reference/errors.md":  # compared with the commands' own answers elsewhere
            continue
        for part in re.split(r"^(?=## )", page.read_text(encoding="utf-8"), flags=re.MULTILINE):
            cited = re.findall(r"(\w[\w.-]*\.(?:json|csv))", part)
            yield name, part, [file for file in cited if (RESULTS / file).is_file()]


def numbers(part: str) -> list[str]:
    plain = re.sub(r"`[^`\n]*`", "", re.sub(r"```.*?```", "", part, flags=re.DOTALL))
    return NUMBER.findall(plain)


def told(number: str, measured: list[float]) -> bool:
    """Whether a measured value, in some unit, is this number when rounded to its digits."""
    half = 0.5001 * 10.0 ** -len(number.partition(".")[2])
    value = float(number.replace(",", ""))
    return any(abs(found * unit - value) <= half for found in measured for unit in UNITS)


def test_numbers_come_from_the_files_that_are_cited():
    missing, checked = [], 0
    for page, part, files in sections():
        texts = [(RESULTS / file).read_text(encoding="utf-8") for file in files]
        measured = [
            value
            for file, text in zip(files, texts, strict=True)
            for value in values(json.loads(text) if file.endswith(".json") else text)
        ]
        for number in numbers(part) if files else ():
            checked += 1
            if not told(number, measured) and (page, number) not in ELSEWHERE:
                missing.append(f"{page}, {part.splitlines()[0]}: {number} is in none of {files}")
    assert missing == []
    assert checked > 100


def test_sections_without_a_file_hold_settings_and_published_numbers_only():
    bare = [
        f"{page}, {part.splitlines()[0]}: {numbers(part)}"
        for page, part, files in sections()
        if not files and numbers(part) and not FREE.search(part.splitlines()[0])
    ]
    assert bare == []


@pytest.mark.parametrize(
    ("number", "measured", "right"),
    [
        ("49.7", [0.4973], True),
        ("49.8", [0.4973], False),
        ("2,112", [2112.0], True),
        ("21.0", [1257.8], True),
    ],
)
def test_rounding_and_units(number, measured, right):
    assert told(number, measured) is right
