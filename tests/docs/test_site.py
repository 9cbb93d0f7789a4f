"""The site builds without a warning and loads nothing from elsewhere; its tables are the result files."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys

import pytest

import tagmask
from tagmask import recipes
from tagmask.pipeline.order import ALL_STEPS
from tests.docs.blocks import ROOT, site_pages


def tables():
    return loaded("benchmarks/tables.py")


def loaded(place):
    spec = importlib.util.spec_from_file_location("loaded", ROOT / place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_result_file_has_its_section_with_command_and_machine():
    text = tables().page()
    files = {f for kind in ("json", "csv") for f in (ROOT / "benchmarks" / "results").glob(f"*.{kind}")}
    assert set(tables().files()) == files
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == [tables().title(f) for f in sorted(files)]
    measured = json.loads((ROOT / "benchmarks/results/more_small_animals.json").read_text())["miou"]
    part = text[text.index("## MoRe small animals") :]
    for kind, value in measured.items():
        assert f"| {kind.replace('_', ' ')} | {value:.4g} |" in part


OLDER = {  # from before every file named its command and seed; the page lists them
    "bulk.json": {"seed"},
    "bulk_memory.csv": {"machine"},
    "domains.json": {"command"},
    "more_small_animals.json": {"command", "seed"},
    "mutants.json": {"seed"},
    "odd_sizes.json": {"seed"},
    "tiles.json": {"seed"},
    "workbench.json": {"seed"},
}


def test_what_a_file_does_not_record_is_listed_and_no_new_file_lacks_anything():
    for name, keys in tables().gaps().items():
        assert set(keys) <= OLDER.get(name, set()), f"{name} does not say its {', '.join(keys)}"
    text = tables().page().partition("\n## ")[0]
    assert all(f"`{name}` ({', '.join(keys)})" in text for name, keys in tables().gaps().items())


def test_a_range_is_shown_only_where_seeds_differ():
    spread = loaded("docs/evidence.py").spread
    assert spread([21.64, 21.64]) == spread([21.64]) == "21.6"
    assert spread([38.3, 39.1]) == "38.7<br><small>38.3 to 39.1</small>"


def test_columns_and_rows_of_the_domains_do_not_follow_the_order_of_the_file():
    evidence = loaded("docs/evidence.py")
    rows = [
        {"set": name, "seed": 0, "what": what, "miou": 0.5}
        for name in ("wbc", "neuseg")
        for what in ("segmentation", "labels", "background", "something new")
    ]
    head, _, *lines = evidence.domains_table(rows).splitlines()
    assert head == "| images | all background | labels | masks | something new | seeds |"
    assert [line.split("`")[1] for line in lines] == ["neuseg", "wbc"]
    written = json.loads((ROOT / "benchmarks/results/domains.json").read_text(encoding="utf-8"))
    assert {row["set"] for row in evidence.domain_rows(written)} <= set(evidence.SETS)  # none is left out


def test_every_measured_method_is_in_the_table_of_its_network():
    rows = json.loads((ROOT / "benchmarks/results/methods_scenes.json").read_text(encoding="utf-8"))["rows"]
    evidence = loaded("docs/evidence.py")
    for row in rows:
        text = evidence.methods() if row["network"] == "tagmask_demo" else evidence.own_networks()
        mean = f"{sum(row['miou']) / len(row['miou']):.1f}"
        assert re.search(rf"^\| `{row['method']}` \|.* {mean}", text, re.MULTILINE), row["method"]


def test_titles_spell_the_methods_as_their_papers_do(tmp_path):
    spelled = {"afa_mit_b0_scenes.json": "AFA mit b0 scenes", "more_step.csv": "MoRe step", "odd.json": "Odd"}
    assert {name: tables().title(tmp_path / name) for name in spelled} == spelled


def test_a_long_list_is_thinned_out_and_says_so(tmp_path):
    path = tmp_path / "memory.csv"
    path.write_text("seconds,all_mib\n" + "".join(f"{k},{k}\n" for k in range(100)), encoding="utf-8")
    text = tables().body(path)
    assert "100 rows; one of every 3 is shown" in text
    assert "| seconds | all mib |" in text
    assert text.count("\n| ") == 2 + 34  # head, line, a third of the rows


def test_tables_keep_what_lies_deep():
    record = {"about": {"seed": 0}, "results": [{"a": {"b": 0.123456}, "c": "x|y"}], "size": 3}
    text = tables().section(record)
    assert "| seed | 0 |" in text
    assert "| size | 3 |" in text
    assert "| a b | c |" in text
    assert "| 0.1235 | x\\|y |" in text


def test_a_long_text_in_a_row_is_cut_and_settings_are_not():
    text = tables().section({"settings": {"model": "x" * 999}, "rows": [{"said": "y" * 999}]})
    assert "x" * 999 in text
    assert f"| {'y' * tables().LETTERS} ... |" in text


def test_wide_rows_are_turned_over_and_settings_without_common_keys_become_a_list():
    wide = [{f"k{i}": 10 * row + i for i in range(20)} for row in range(2)]
    text = tables().section({"rows": wide})
    assert "|  | 1 | 2 |" in text
    assert "| k19 | 19 | 29 |" in text
    steps = {f"step{n}": {f"k{n}{i}": i for i in range(9)} for n in range(3)}
    text = tables().section({"settings": steps})
    assert "| step2 k28 | 8 |" in text
    assert text.count("|\n") == 2 + 27
    assert "<summary>settings: 27 rows</summary>" in text  # long, so it opens with a click


def test_settings_that_are_stored_as_a_text_are_shown_like_others():
    text = tables().section({"settings": {"recipe": json.dumps({"train": {"lr": 0.5, "labels": None}})}})
    assert "| recipe | 0.5 | None |" in text
    assert "train lr" in text
    assert "{" not in text
    assert not re.search(r'\{"', tables().page())


def test_every_row_of_a_generated_page_belongs_to_a_table():
    for place, text in site_pages().generated().items():
        for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
            lines = block.splitlines()
            assert re.fullmatch(r"(\| ?-{3} ?)+\|", lines[1]), f"{place}: {lines[0][:80]}"
            columns = {len(re.findall(r"(?<!\\)\|", line)) for line in lines}
            assert len(columns) == 1, f"{place}: {lines[0][:80]}"


def test_types_of_settings_are_written_as_somebody_would_write_them():
    text = site_pages().settings()
    assert "| `refine.method` | How labels follow the image" in text
    assert '"par" \\| "crf" \\| "none" |' in text
    assert "| `train.heads.starts` |" in text
    assert "| `train.eval_maps.size` |" in text
    assert not re.search(r"FieldInfo|Annotated|Literal|Optional|Union|<function", text)


def test_every_public_name_is_in_the_reference():
    text = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    told = set(re.findall(r"^::: tagmask\.(\w+)$", text, re.MULTILINE))
    assert {name for name in tagmask.__all__ if name not in ("__version__", "check_data")} <= told


def test_every_method_has_its_page():
    pages = {page.stem for page in (ROOT / "docs" / "methods").glob("*.md")}
    # The files, not the names: another test may have registered a method of its own in this process.
    files = {path.stem for path in (ROOT / "src" / "tagmask" / "methods").glob("*.py")} - {"__init__", "base"}
    assert files - {"affinity_net"} <= pages  # AffinityNet is PSA's second half, on its page


@pytest.mark.parametrize(("page", "names"), [("recipes", recipes.names()), ("file-formats", list(ALL_STEPS))])
def test_references_name_every_recipe_and_every_step(page, names):
    text = site_pages().filled((ROOT / "docs" / "reference" / f"{page}.md").read_text(encoding="utf-8"))
    assert [name for name in names if f"| `{name}` |" not in text] == []


@pytest.mark.parametrize("method", ["afa", "aream", "mctformer", "more", "psa", "transcam", "weaktr"])
def test_pages_of_methods_follow_one_template(method):
    text = (ROOT / "docs" / "methods" / f"{method}.md").read_text(encoding="utf-8")
    parts = ["What it does", "Commands", "Settings that matter", "Published numbers", "What differs from the"]
    places = [text.index(f"\n## {part}") for part in parts]
    assert places == sorted(places)


def test_cells_are_marked_by_what_they_hold():
    pytest.importorskip("mkdocs")
    mark = loaded("docs/hooks.py").on_page_content
    assert mark("<td>0.2 % (0.9 %)</td>") == '<td class="whole">0.2 % (0.9 %)</td>'
    assert mark("<td>a few words of text</td>") == '<td class="long">a few words of text</td>'
    assert mark("<td>short</td>") == "<td>short</td>"
    assert mark(f"<td>{'0, ' * 200}</td>").startswith('<td class="longest"><div class="tall">0, 0, ')
    assert "depth=4,<wbr>heads=2" in mark(f"<td>vit:depth=4,heads=2 {'on many images, ' * 5}</td>")
    assert mark("<code>--precision bf16</code>") == '<code class="whole">--precision bf16</code>'
    assert mark("<code>python --version</code>") == "<code>python --version</code>"


@pytest.mark.slow
def test_the_site_builds_without_warnings_and_loads_nothing_from_elsewhere(tmp_path):
    for package in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(package)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=False)
    assert found.returncode == 0, found.stderr
    assert "WARNING" not in found.stderr
    assert (tmp_path / "search" / "search_index.js").is_file()  # with the frame worker: search from disk
    assert "assets/iframe-worker.js" in (tmp_path / "index.html").read_text(encoding="utf-8")
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|img|iframe)[^>]+src="([^"]+)"', text)
        loaded += re.findall(r'<link[^>]+rel="(?:stylesheet|preconnect|preload)"[^>]+href="([^"]+)"', text)
        assert not [url for url in loaded if url.startswith(("http", "//"))], page


def test_what_all_rows_of_a_list_say_is_said_once():
    rows = [{"set": name, "miou": 0.5, "machine": "a CPU"} for name in ("cells", "steel")]
    text = tables().section(rows)
    assert text.count("a CPU") == 1
    assert "| 1 | cells | 0.5 |" in text
