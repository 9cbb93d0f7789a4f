"""The notebook of examples/from_tags_to_masks.py, executed (needs nbformat, nbclient and ipykernel).

python tools/make_notebook.py
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

SCRIPT = Path(__file__).parent.parent / "examples" / "from_tags_to_masks.py"


def main() -> None:
    book = nbformat.v4.new_notebook()
    for number, cell in enumerate(
        re.split(r"^# %%", SCRIPT.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    ):
        head, _, text = cell.partition("\n")
        if "markdown" in head:
            made = nbformat.v4.new_markdown_cell(re.sub(r"^# ?", "", text.strip(), flags=re.MULTILINE))
        else:
            made = nbformat.v4.new_code_cell(text.strip())
        made["id"] = f"cell-{number}"
        book.cells.append(made)
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(book, timeout=1200, resources={"metadata": {"path": folder}}).execute()
    for cell in book.cells:
        cell.get("metadata", {}).pop("execution", None)
        # Warnings name folders of this machine.
        if cell.cell_type == "code":
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
    nbformat.write(book, SCRIPT.with_suffix(".ipynb"))


if __name__ == "__main__":
    main()
