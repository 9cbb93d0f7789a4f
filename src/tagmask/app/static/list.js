// The images as rows or a grid of small pictures, filtered; only those in sight are elements of the page.
import { address } from "/static/net.js";
import { expected } from "/static/trust.js";

const $ = (id) => document.getElementById(id);
const ROW = 56, CELL = 78;
const words = { accepted: "accepted", rejected: "rejected", mended: "corrected", "": "not decided" };

export const stateOf = (entry) =>
  entry.verdict === "accepted" && ["mended", "scribbles"].includes(entry.kept) ? "mended" : entry.verdict;

export class List {
  constructor(entries, classes, open) {
    this.entries = entries;
    entries.forEach((entry, place) => { entry.place = place; });
    this.classes = classes;
    this.open = open;
    this.current = null;
    this.found = [];
    this.places = new Map();
    this.elements = new Map();
    this.box = $("rows");
    this.inner = document.createElement("div");
    this.inner.className = "inner";
    this.box.append(this.inner);
    classes.forEach((name, key) => $("by-class").add(new Option(name, key)));
    for (const part of [...new Set(entries.map((entry) => entry.part))].filter(Boolean)) $("by-part").add(new Option(part, part));
    $("by-part").closest("label").hidden = $("by-part").length < 3;
    $("by-doubt").closest("label").hidden = !entries.some((entry) => entry.score !== null);
    for (const id of ["by-name", "by-class", "by-state", "by-part", "by-doubt", "order"]) $(id).addEventListener("input", () => this.filter());
    $("as-grid").addEventListener("click", () => this.asGrid());
    this.box.addEventListener("scroll", () => this.draw());
    new ResizeObserver(() => { this.clear(); this.draw(); }).observe(this.box);
    this.filter();
  }

  filter() {
    const name = $("by-name").value.trim().toLowerCase(), key = $("by-class").value, state = $("by-state").value;
    const part = $("by-part").value, doubt = Number($("by-doubt").value);
    $("doubt-value").textContent = doubt.toFixed(2);
    const wanted = (entry) =>
      (!name || entry.name.toLowerCase().includes(name)) &&
      (key === "" || [...(entry.shown || []), ...(entry.tags || [])].includes(Number(key))) &&
      (!state || (state === "undecided" ? !entry.verdict : stateOf(entry) === state)) &&
      (!part || entry.part === part) && (!doubt || (entry.score ?? 0) >= doubt);
    this.found = this.sorted(this.entries.filter(wanted));
    this.places = new Map(this.found.map((entry, place) => [entry.name, place]));
    $("found").textContent = `${this.found.length} of ${this.entries.length}`;
    this.clear();
    this.box.scrollTop = 0;
    this.draw();
  }

  // As the review has it, or by what is expected of the masks (those checked come last), or as a random draw.
  sorted(entries) {
    const order = $("order").value;
    const keys = {
      iou: (entry) => (entry.trust ? entry.trust[0] + 2 * entry.trust[3] : 9),
      draw: (entry) => entry.draw ?? Infinity,
    };
    const key = keys[order];
    if (!key) return entries;
    return entries.slice().sort((a, b) => (key(a) === key(b) ? a.place - b.place : key(a) - key(b)));
  }

  // New figures for what is in sight; the order stays until somebody chooses one.
  again() {
    for (const entry of this.found) {
      const element = this.elements.get(entry.name);
      if (element) this.write(entry, element);
    }
  }

  asGrid() {
    const on = this.box.classList.toggle("grid");
    $("as-grid").setAttribute("aria-pressed", on);
    this.clear();
    this.reveal();
  }

  // The image so many places further among those found; null at the ends.
  beside(name, step) {
    const place = this.places.get(name);
    if (place === undefined) return step > 0 ? this.found[0] || null : null;
    return this.found[place + step] || null;
  }

  choose(name) {
    this.current = name;
    for (const [known, element] of this.elements) element.setAttribute("aria-current", known === name);
    this.reveal();
  }

  reveal() {
    const place = this.places.get(this.current);
    if (place !== undefined) {
      const { columns, side } = this.shape();
      const top = Math.floor(place / columns) * side;
      if (top < this.box.scrollTop) this.box.scrollTop = top;
      else if (top + side > this.box.scrollTop + this.box.clientHeight) this.box.scrollTop = top + side - this.box.clientHeight;
    }
    this.draw();
  }

  shape() {
    const grid = this.box.classList.contains("grid");
    return { columns: grid ? Math.max(1, Math.floor(this.box.clientWidth / CELL)) : 1, side: grid ? CELL : ROW };
  }

  clear() {
    this.elements.clear();
    this.inner.replaceChildren();
  }

  draw() {
    if (!this.box.clientHeight) return;
    const { columns, side } = this.shape();
    this.inner.style.height = `${Math.ceil(this.found.length / columns) * side}px`;
    const first = Math.max(0, Math.floor(this.box.scrollTop / side) - 2) * columns;
    const last = Math.min(this.found.length, (Math.ceil((this.box.scrollTop + this.box.clientHeight) / side) + 2) * columns);
    const seen = new Set();
    for (let place = first; place < last; place++) {
      const entry = this.found[place];
      seen.add(entry.name);
      if (!this.elements.has(entry.name)) this.elements.set(entry.name, this.element(entry, place, columns, side));
    }
    for (const [name, element] of this.elements) {
      if (!seen.has(name)) { element.remove(); this.elements.delete(name); }
    }
  }

  element(entry, place, columns, side) {
    const button = document.createElement("button");
    button.type = "button";
    button.style.top = `${Math.floor(place / columns) * side}px`;
    if (columns > 1 || this.box.classList.contains("grid")) button.style.left = `${(place % columns) * CELL}px`;
    button.setAttribute("aria-current", entry.name === this.current);
    button.addEventListener("click", () => this.open(entry.name));
    const picture = document.createElement("img");
    picture.alt = entry.name;
    picture.loading = "lazy";
    picture.decoding = "async";
    picture.src = address("thumb", { name: entry.name, v: entry.changes || 0 });
    const text = document.createElement("span");
    text.className = "text";
    button.append(picture, text);
    this.write(entry, button);
    this.inner.append(button);
    return button;
  }

  write(entry, button) {
    const state = stateOf(entry), doubt = entry.score === null ? "" : entry.score.toFixed(2);
    const known = entry.trust ? `IoU ${(100 * entry.trust[0]).toFixed(0)} %` : doubt;
    const mark = { accepted: "✓", mended: "✎", rejected: "✗" }[state] || "";
    const text = button.querySelector(".text");
    const line = (kind, content) => {
      const span = document.createElement("span");
      span.className = kind;
      span.textContent = content;
      return span;
    };
    text.replaceChildren(line("line name", entry.name), line("line small", [mark, known].filter(Boolean).join(" ")));
    button.setAttribute("aria-label", [entry.name, entry.upload ? "uploaded" : words[state], entry.trust ? expected(entry) : doubt && `doubt ${doubt}`].filter(Boolean).join(", "));
  }

  // Shows what is new about an entry; a new mask gives a new small picture.
  update(entry, redraw) {
    if (redraw) entry.changes = (entry.changes || 0) + 1;
    const element = this.elements.get(entry.name);
    if (!element) return;
    this.write(entry, element);
    if (redraw) element.querySelector("img").src = address("thumb", { name: entry.name, v: entry.changes });
  }

  addFirst(entry) {
    entry.place = -this.entries.length;
    this.entries.unshift(entry);
    this.filter();
  }
}
