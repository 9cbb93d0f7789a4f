// Single keys, and the table that explains them.
const $ = (id) => document.getElementById(id);
// The only thing to focus is the button at the end, which a small window would scroll to.
const help = () => { $("help").showModal(); $("help").scrollTop = 0; };

export const table = [
  ["J, K", "next and previous image"], ["A, R", "accept or reject, and move on"], ["U, Ctrl+Z", "take back a stroke or a decision"],
  ["Ctrl+Y", "make a stroke again"], ["N, Esc", "write a note, leave the field"], ["D", "download the shown labels"],
  ["Space (hold)", "hide the colours"], ["L", "next layer of the strip"], ["wheel, +, -", "zoom"], ["Z", "fit into the window"],
  ["drag with V, or Shift and drag", "move the picture"], ["B, E", "brush, eraser"], ["P", "polygon; double click or Enter closes it, Esc drops it"],
  ["F", "fill the region under the pointer"], ["[, ]", "smaller or larger brush"], ["0 to 9", "class to draw; two digits make one number"],
  ["S", "scribbles on and off"], ["T", "spread the strokes"], ["?", "this table"],
];

export const opened = () => document.querySelector("dialog[open]");
const writes = (element) => element.closest("input:not([type=range], [type=checkbox]), textarea, select, [contenteditable]");

function acts(bench, tool) {
  const step = (by) => { bench.paint.size = Math.min(120, Math.max(1, Math.round(bench.paint.size * by))); $("brush-size").value = bench.paint.size; bench.view.redraw(); };
  return {
    j: (event) => bench.step(1, event.timeStamp), k: (event) => bench.step(-1, event.timeStamp),
    a: (event) => bench.decide("accepted", event.timeStamp), r: (event) => bench.decide("rejected", event.timeStamp),
    u: () => bench.undo(), d: () => bench.download(), l: () => bench.cycle(), n: () => $("note").focus(),
    "+": () => bench.view.zoom(1.25), "=": () => bench.view.zoom(1.25), "-": () => bench.view.zoom(0.8), z: () => bench.view.fit(),
    v: () => tool(bench, "move"), b: () => tool(bench, "brush"), e: () => tool(bench, "erase"), p: () => tool(bench, "polygon"), f: () => tool(bench, "fill"),
    "[": () => step(0.8), "]": () => step(1.25), s: () => { $("scribbles").click(); }, t: () => bench.spread(),
    enter: () => bench.paint.close(), "?": help,
  };
}

export function keys(bench, tool) {
  const act = acts(bench, tool);
  for (const [key, what] of table) {
    const row = $("keys").insertRow();
    const head = document.createElement("th");
    head.scope = "row";
    const mark = document.createElement("kbd");
    mark.textContent = key;
    head.append(mark);
    row.append(head);
    row.insertCell().textContent = what;
  }
  $("open-help").addEventListener("click", help);
  document.addEventListener("keydown", (event) => pressed(event, bench, act));
  document.addEventListener("keyup", (event) => {
    if (event.key === " " && bench.view.hidden) { bench.view.hidden = false; bench.view.redraw(); event.preventDefault(); }
  });
  window.addEventListener("blur", () => { bench.view.hidden = false; bench.view.redraw(); });
  // A button pressed by mouse gives the keyboard back, so that Space hides instead of pressing it again.
  document.addEventListener("click", (event) => { if (event.detail && event.target.closest("button")) event.target.closest("button").blur(); });
}

function pressed(event, bench, act) {
  const { target } = event;
  if (event.key === "Escape" && !opened()) {
    bench.paint.polygon = [];
    bench.view.redraw();
    if (writes(target)) target.blur();
    return;
  }
  if (opened() || writes(target)) return;
  const key = event.key.toLowerCase();
  if (event.ctrlKey || event.metaKey) {
    if (key === "z" && !event.shiftKey) bench.undo();
    else if (key === "y" || key === "z") bench.redo();
    else return;
    event.preventDefault();
    return;
  }
  if (!$("shortcuts").checked || event.altKey) return;
  if (key === " ") {
    if (target.closest("button, input, label")) return;
    bench.view.hidden = true;
    bench.view.redraw();
  } else if (/^[0-9]$/.test(key) && !event.repeat) {
    bench.classes.digit(key);
  } else if (act[key] && !(key === "enter" && target.closest("button"))) {
    if (event.repeat && !["j", "k", "+", "=", "-", "[", "]", "u"].includes(key)) return;
    act[key](event);
  } else {
    return;
  }
  event.preventDefault();
}
