"""The container file, read as builders read it: nothing in it is made up, its parts are the package's."""

from __future__ import annotations

import json
import re
import tomllib

from tagmask.cli.main import app
from tests.docs.blocks import ROOT

FILE = ROOT / "Containerfile"
KNOWN = {
    "FROM", "ARG", "ENV", "WORKDIR", "COPY", "RUN", "USER", "VOLUME", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT",
    "CMD",
}  # fmt: skip


def steps() -> list[tuple[str, str]]:
    lines = [
        line for line in FILE.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")
    ]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined.splitlines())]


def test_it_has_only_known_instructions_and_begins_from_a_named_image():
    words = [word for word, _ in steps()]
    assert set(words) <= KNOWN
    assert words[0] == "FROM"
    assert [words.count(word) for word in ("FROM", "HEALTHCHECK", "ENTRYPOINT", "CMD")] == [1, 1, 1, 1]
    image = dict(steps())["FROM"]
    assert re.fullmatch(r"docker\.io/library/python:3\.\d+-slim", image)
    oldest = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert int(image.split(":3.")[1].split("-")[0]) >= int(oldest.split(".")[1])


def test_what_it_copies_and_installs_is_there():
    for word, rest in steps():
        if word == "COPY":
            *sources, _ = rest.split()
            assert all((ROOT / source).exists() for source in sources), sources
    (install,) = [rest for word, rest in steps() if word == "RUN"]
    extras = re.findall(r'"\.\[([\w,-]+)\]"', install)[0].split(",")
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras) <= set(known)
    assert "/whl/cpu" in dict(steps())["ARG"]


def test_its_command_is_the_page_on_the_mounted_folder_and_no_root_runs_it():
    found = dict(steps())
    command = json.loads(found["CMD"])
    assert json.loads(found["ENTRYPOINT"]) == ["tagmask"]
    assert command[:2] == ["app", found["VOLUME"]]
    assert command[command.index("--port") + 1] == found["EXPOSE"]
    assert found["EXPOSE"] in found["HEALTHCHECK"]
    assert {name for name in (info.name for info in app.registered_commands) if name} >= {"app"}
    order = [word for word, _ in steps()]
    assert order.index("USER") < order.index("CMD")
