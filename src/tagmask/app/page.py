"""The page: its controls, and which of them asks what of the desk. Gradio lives here and in `server`."""

from __future__ import annotations

import json
from base64 import b64encode
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from tagmask.app.desk import Desk, Visit
from tagmask.app.lab import Controls
from tagmask.app.pictures import PALETTES, colours_of, legend, panels
from tagmask.errors import UserError

__all__ = ["build"]

_LISTED = 2000
_HOUR = 3600
_KEYS = "J next · K previous · A accept · R reject · N note · D download · Esc leaves a field"


def build(desk: Desk, title: str, background: float) -> gr.Blocks:
    """The page for a desk.

    Args:
        desk: What it works on.
        title: Shown on top.
        background: First value of the threshold.
    """
    return _Page(desk, title, background).blocks


class _Page:
    def __init__(self, desk: Desk, title: str, background: float) -> None:
        self.desk, self.classes = desk, desk.lab.classes
        self.blocks = gr.Blocks(
            title=f"tagmask: {title}", analytics_enabled=False, fill_width=True, delete_cache=(_HOUR, _HOUR)
        )
        with self.blocks:
            self.visit = gr.State(Visit(), time_to_live=_HOUR)
            gr.HTML(f"<h1>tagmask <span>{escape(title)}</span></h1>", elem_id="tm-head")
            with gr.Row(elem_id="tm-main"):
                with gr.Column(scale=4, min_width=280, elem_id="tm-work"):
                    self._choice()
                    self._work()
                with gr.Column(scale=1, min_width=280, elem_id="tm-controls"):
                    self._controls(background)
            self.status = gr.HTML(_status(""), elem_id="tm-status")
            self.payload = gr.Textbox(visible="hidden", elem_id="tm-payload", show_label=False)
            self._wire()

    def _choice(self) -> None:
        names = [entry.name for entry in self.desk.library.entries[:_LISTED]]
        with gr.Row():
            self.picker = gr.Dropdown(
                names,
                value=names[0] if names else None,
                label="Image",
                elem_id="tm-picker",
                allow_custom_value=True,
                min_width=200,
            )
            self.files = gr.File(
                label="Open or drop pictures",
                file_count="multiple",
                file_types=["image"],
                height=150,
                elem_id="tm-files",
                min_width=200,
            )

    def _controls(self, background: float) -> None:
        self.tags = gr.CheckboxGroup(list(self.classes), label="Tags in the image", elem_id="tm-tags")
        kinds = list(self.desk.lab.kinds)
        there = bool(kinds)
        with gr.Group(visible=there):
            self.kind = gr.Radio(
                kinds, value=kinds[0] if kinds else None, label="Pseudo label from", elem_id="tm-kind"
            )
            self.background = gr.Slider(
                0, 1, background, step=0.01, label="Background threshold", elem_id="tm-background"
            )
            self.band = gr.Slider(0, 0.6, 0, step=0.02, label="Undecided band", elem_id="tm-band")
            self.method = gr.Radio(
                [("none", "none"), ("PAR", "par"), ("CRF", "crf")],
                value="none",
                label="Refinement",
                elem_id="tm-method",
            )
            self.iterations = gr.Slider(1, 20, 10, step=1, label="PAR steps", elem_id="tm-iterations")
        with gr.Group():
            self.opacity = gr.Slider(
                0, 100, 65, step=5, label="Opacity of the colours (%)", elem_id="tm-opacity"
            )
            self.zoom = gr.Slider(1, 8, 1, step=0.5, label="Zoom", elem_id="tm-zoom")
            self.palette = gr.Radio(list(PALETTES), value=PALETTES[0], label="Colours", elem_id="tm-palette")
            self.keys = gr.Checkbox(True, label="Single-key shortcuts", elem_id="tm-keys")

    def _work(self) -> None:
        self.place = gr.HTML(elem_id="tm-place")
        self.panels = gr.HTML(elem_id="tm-pictures")
        with gr.Row(elem_id="tm-review"):
            with gr.Column(scale=2, min_width=280):
                self.use = gr.Radio(
                    ["mask", "pseudo label"], value="mask", label="Accept or download the", elem_id="tm-use"
                )
                self.note = gr.Textbox(label="Note", lines=2, max_length=4000, elem_id="tm-note")
                with gr.Row():
                    self.accept = gr.Button(
                        "Accept (A)", variant="primary", elem_id="tm-accept", min_width=120
                    )
                    self.reject = gr.Button("Reject (R)", elem_id="tm-reject", min_width=120)
                with gr.Row():
                    self.back = gr.Button("Previous (K)", elem_id="tm-back", min_width=120)
                    self.next = gr.Button("Next (J)", elem_id="tm-next", min_width=120)
                self.download = gr.Button("Download (D)", elem_id="tm-download")
            with gr.Column(scale=1, min_width=260):
                self.legend = gr.HTML(elem_id="tm-legend")
        gr.HTML(f'<p class="tm-hint">{_KEYS}</p>')

    def _wire(self) -> None:
        self.inputs = [self.kind, self.background, self.band, self.method, self.iterations, self.palette]
        whole = [
            self.visit, self.picker, self.tags, self.note, self.place, self.panels, self.legend, self.status,
        ]  # fmt: skip
        drawn = [self.visit, self.panels, self.legend, self.status]
        named = [self.visit, self.picker, *self.inputs]
        # Without Gradio's queue: its stream of answers sometimes closes before the last one, and the page
        # then waits for ever. `Lab` bounds how many may wait.
        quick: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "queue": False}
        newest = {**quick, "trigger_mode": "always_last"}
        self.blocks.load(self.open, named, whole, **quick)
        self.picker.input(self.open, named, whole, **newest)
        self.files.upload(self.upload, [self.visit, self.files, *self.inputs], [self.files, *whole], **quick)
        self.tags.input(self.retag, [self.visit, self.tags, *self.inputs], drawn, **newest)
        for control in (self.kind, self.background, self.band, self.method, self.iterations):
            control.input(self.relabel, [self.visit, *self.inputs], drawn, **newest)
        self.palette.input(self.redraw, [self.visit, *self.inputs], drawn, **newest)
        self.next.click(self.forward, named, whole, **quick)
        self.back.click(self.backward, named, whole, **quick)
        given = [self.visit, self.picker, self.note, self.use, *self.inputs]
        self.accept.click(self.accepted, given, whole, **quick)
        self.reject.click(self.rejected, given, whole, **quick)
        self.note.blur(self.noted, [self.visit, self.picker, self.note], [self.status], **quick)
        self.download.click(
            self.take, [self.visit, self.picker, self.use], [self.payload, self.status], **quick
        ).success(None, [self.payload], None, js="(text) => tagmask.download(text)")
        self.opacity.input(None, [self.opacity], None, js="(v) => tagmask.opacity(v)")
        self.zoom.input(None, [self.zoom], None, js="(v) => tagmask.zoom(v)")
        self.keys.input(None, [self.keys], None, js="(v) => tagmask.keys(v)")

    # What the controls ask for. Errors become a sentence in the status line; nothing else changes then.

    def open(self, visit: Visit, name: str | None, *values: Any) -> Any:
        if not name:
            return [visit, *[gr.skip()] * 6, _status("Open or drop a picture to begin.")]
        try:
            return self._whole(self.desk.open(visit, name, _chosen(values)), values, "")
        except UserError as error:
            return [visit, *[gr.skip()] * 6, _status(str(error), problem=True)]

    def upload(self, visit: Visit, files: list[str] | None, *values: Any) -> Any:
        visit, names, problems = self.desk.upload(visit, [Path(file) for file in files or ()])
        said = " ".join(problems)
        if not names:
            return [None, visit, *[gr.skip()] * 6, _status(said, problem=True)]
        shown = self.open(visit, names[0], *values)
        listed = [entry.name for entry in self.desk.library.entries[:_LISTED]]
        known = [*dict(shown[0].uploads), *listed]
        shown[1] = gr.update(choices=known, value=names[0])
        if problems:
            shown[-1] = _status(said, problem=True)
        return [None, *shown]

    def retag(self, visit: Visit, words: list[str], *values: Any) -> Any:
        return self._drawn(visit, lambda: self.desk.retag(visit, words, _chosen(values)), values)

    def relabel(self, visit: Visit, *values: Any) -> Any:
        return self._drawn(visit, lambda: self.desk.relabel(visit, _chosen(values)), values)

    def redraw(self, visit: Visit, *values: Any) -> Any:
        return self._drawn(visit, lambda: visit, values)

    def forward(self, visit: Visit, name: str, *values: Any) -> Any:
        return self._step(visit, name, 1, values, "This is the last image of the queue.")

    def backward(self, visit: Visit, name: str, *values: Any) -> Any:
        return self._step(visit, name, -1, values, "This is the first image of the queue.")

    def accepted(self, visit: Visit, name: str, note: str, use: str, *values: Any) -> Any:
        return self._decide(visit, name, "accepted", note, use, values)

    def rejected(self, visit: Visit, name: str, note: str, use: str, *values: Any) -> Any:
        return self._decide(visit, name, "rejected", note, use, values)

    def noted(self, visit: Visit, name: str, note: str) -> Any:
        try:
            new = bool(name) and self.desk.note(visit, name, note)
        except UserError as error:
            return _status(str(error), problem=True)
        return _status(f"{name}: note written.") if new else gr.skip()

    def take(self, visit: Visit, name: str, use: str) -> Any:
        try:
            file, content = self.desk.download(visit, name, use)
        except UserError as error:
            return "", _status(str(error), problem=True)
        return json.dumps({"name": file, "content": b64encode(content).decode()}), _status(
            f"{file} downloaded; a copy is in reviewed/downloads."
        )

    def _decide(
        self, visit: Visit, name: str, verdict: str, note: str, use: str, values: tuple[Any, ...]
    ) -> Any:
        try:
            self.desk.decide(visit, name, verdict, note, use, _chosen(values))
        except UserError as error:
            return [visit, *[gr.skip()] * 6, _status(str(error), problem=True)]
        said = f"{name}: {verdict}."
        following = None if name in dict(visit.uploads) else self.desk.beside(name, 1)
        if following is None:
            return self._whole(visit, values, said)
        shown = self.open(visit, following, *values)
        shown[-1] = _status(said) if shown[0] is not visit else shown[-1]
        return shown

    def _step(self, visit: Visit, name: str, step: int, values: tuple[Any, ...], at_end: str) -> Any:
        following = self.desk.beside(name, step)
        if following is None:
            return [visit, *[gr.skip()] * 6, _status(at_end)]
        return self.open(visit, following, *values)

    def _drawn(self, visit: Visit, change: Any, values: tuple[Any, ...]) -> Any:
        try:
            visit = change()
        except UserError as error:
            return [visit, gr.skip(), gr.skip(), _status(str(error), problem=True)]
        if visit.view is None:
            return [visit, gr.skip(), gr.skip(), gr.skip()]
        colours = colours_of(values[-1], len(self.classes))
        return [
            visit, panels(visit.view, colours, self.classes), legend(visit.view, colours, self.classes),
            _status(""),
        ]  # fmt: skip

    def _whole(self, visit: Visit, values: tuple[Any, ...], said: str) -> Any:
        view = visit.view
        assert view is not None  # only called with an open image
        _, pictures, table, _ = self._drawn(visit, lambda: visit, values)
        decision = self.desk.decision(visit, view.name)
        words = [self.classes[key] for key in view.tags]
        place = self._place(visit, view.name, decision.verdict)
        return [visit, view.name, words, decision.note, place, pictures, table, _status(said)]

    def _place(self, visit: Visit, name: str, verdict: str) -> str:
        library, state = self.desk.library, verdict or "not decided"
        if name in dict(visit.uploads):
            return f"<p><b>{escape(name)}</b> · uploaded · <b>{state}</b></p>"
        entry = library.entries[library.place(name)]
        score = "" if entry.score is None else f" · doubt {entry.score:.2f}"
        done = self.desk.decisions.count("accepted") + self.desk.decisions.count("rejected")
        total = len(library.entries)
        why = f"<p class='tm-why' tabindex='0'>{escape(entry.why)}</p>" if entry.why else ""
        if not library.reviewed:
            why = "<p class='tm-why'>Run tagmask review to see the doubtful images first.</p>"
        counts = f"{library.place(name) + 1} of {total}, {done} decided"
        return f"<p><b>{escape(name)}</b> · {counts}{score} · <b>{state}</b></p>{why}"


def _chosen(values: tuple[Any, ...]) -> Controls:
    kind, background, band, method, iterations, _ = values
    return Controls(str(kind), float(background), float(band), method, int(iterations))


def _status(text: str, problem: bool = False) -> str:
    kind = "tm-problem" if problem else "tm-said"
    return f'<div role="status" aria-live="polite" class="{kind}">{escape(text)}</div>'
