// The classes to draw and to tag, the strip of layers, and what the thresholds make of the maps.
import { postForPacked } from "/static/net.js";
import { UNKNOWN, thresholded, titleOf } from "/static/images.js";

const $ = (id) => document.getElementById(id);

export class Classes {
  constructor(names, colours, hooks) {
    this.names = names;
    this.hooks = hooks; // picked(label), tagged(keys)
    this.label = names.length ? 1 : 0;
    this.typed = "";
    const body = $("classes").tBodies[0];
    this.rows = ["background", ...names].map((name, label) => {
      const row = body.insertRow();
      const button = document.createElement("button");
      button.type = "button";
      button.setAttribute("aria-pressed", label === this.label);
      button.addEventListener("click", () => this.pick(label));
      const chip = document.createElement("span");
      chip.className = "chip";
      if (label) chip.style.background = colours[label - 1];
      const number = document.createElement("kbd");
      number.textContent = label;
      button.append(number, chip, name);
      row.insertCell().append(button);
      const tag = row.insertCell();
      const share = row.insertCell();
      let box = null;
      if (label) {
        box = document.createElement("input");
        box.type = "checkbox";
        box.setAttribute("aria-label", `tag ${name}`);
        box.addEventListener("change", () => hooks.tagged(this.tags()));
        tag.append(box);
      }
      return { row, button, box, share };
    });
    const row = body.insertRow();
    const chip = document.createElement("span");
    chip.className = "chip striped";
    row.insertCell().append(chip, "undecided");
    row.insertCell();
    this.undecided = { row, share: row.insertCell() };
  }

  tags() {
    return this.rows.flatMap(({ box }, label) => (box && box.checked ? [label - 1] : []));
  }

  pick(label) {
    if (!this.rows[label]) return;
    this.rows[this.label].button.setAttribute("aria-pressed", false);
    this.label = label;
    this.rows[label].button.setAttribute("aria-pressed", true);
    this.rows[label].row.scrollIntoView({ block: "nearest" });
    this.hooks.picked(label);
  }

  // Digits that follow quickly make one number.
  digit(text) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => { this.typed = ""; }, 700);
    const longer = Number(this.typed + text);
    this.typed = this.typed && this.rows[longer] ? this.typed + text : text;
    this.pick(Number(this.typed));
  }

  // Tags of the image and shares of the layer; gives the shares in words.
  show(item, layer) {
    const counts = new Uint32Array(256);
    if (layer && layer.kind === "labels") for (const value of layer.data) counts[value] += 1;
    const total = layer && layer.kind === "labels" ? layer.data.length : 1;
    const said = [];
    const write = (cell, count) => { cell.textContent = count ? `${((100 * count) / total).toFixed(1)} %` : ""; };
    this.rows.forEach(({ box, share }, label) => {
      if (box) box.checked = item.tags.includes(label - 1);
      write(share, counts[label]);
      if (label && counts[label]) said.push(`${this.names[label - 1]} ${((100 * counts[label]) / total).toFixed(0)} %`);
    });
    write(this.undecided.share, counts[UNKNOWN]);
    if (layer && layer.kind === "maps") return layer.keys.map((key) => this.names[key]).join(", ") || "no class";
    return said.join(", ") || "background only";
  }
}

export class Strip {
  constructor(colours, choose) {
    this.colours = colours;
    this.choose = choose;
    this.box = $("strip");
  }

  show(item, current) {
    clearTimeout(this.timer);
    for (const button of this.box.children) button.setAttribute("aria-checked", button.dataset.layer === current);
    // After the large picture, so that turning pages never waits for small ones.
    this.timer = setTimeout(() => this.fill(item, current), 60);
  }

  fill(item, current) {
    const buttons = [...item.layers.values()].map((layer) => {
      const button = document.createElement("button");
      button.type = "button";
      button.setAttribute("role", "radio");
      button.dataset.layer = layer.id;
      button.setAttribute("aria-checked", layer.id === current);
      const canvas = document.createElement("canvas");
      canvas.height = 58;
      canvas.width = Math.min(110, Math.max(30, Math.round((58 * item.width) / item.height)));
      const context = canvas.getContext("2d");
      context.drawImage(item.picture, 0, 0, canvas.width, canvas.height);
      context.globalAlpha = 0.75;
      context.imageSmoothingEnabled = false;
      context.drawImage(layer.canvas || this.colours.paint(layer), 0, 0, canvas.width, canvas.height);
      button.append(canvas, titleOf(layer.id));
      button.addEventListener("click", () => this.choose(layer.id));
      return button;
    });
    this.box.replaceChildren(...buttons);
  }
}

export class Pseudo {
  constructor(kinds, background, changed, failed) {
    this.changed = changed;
    this.failed = failed;
    for (const kind of kinds) $("kind").add(new Option(titleOf(`map:${kind}`), kind));
    $("pseudo").hidden = !kinds.length;
    $("background").value = background;
    for (const id of ["kind", "background", "band", "method", "iterations"]) $(id).addEventListener("input", () => this.touched());
    this.write();
  }

  controls() {
    return { maps: $("kind").value, background: Number($("background").value), band: Number($("band").value),
      method: $("method").value, iterations: Number($("iterations").value) };
  }

  write() {
    $("background-value").textContent = Number($("background").value).toFixed(2);
    $("band-value").textContent = Number($("band").value).toFixed(2);
    $("iterations-value").textContent = $("iterations").value;
  }

  touched() {
    this.write();
    this.changed();
  }

  // The layer of these settings; without refinement it is made here, at once.
  make(item) {
    const { maps, background, band } = this.controls();
    const source = item.layers.get(`map:${maps}`) || item.layers.get(`map:${item.kinds()[0]}`);
    if (!source) return null;
    const layer = thresholded(source, background, band);
    item.layers.set("pseudo", layer);
    return layer;
  }

  // The same after a refinement, which the server makes.
  async refined(item) {
    const controls = this.controls();
    if (controls.method === "none" || !item.layers.has(`map:${controls.maps}`)) return null;
    const { arrays } = await postForPacked("refine", { name: item.name, controls, now: item.predicted });
    const { shape, data } = arrays.label;
    const layer = { id: "pseudo", kind: "labels", h: shape[0], w: shape[1], data };
    item.layers.set("pseudo", layer);
    return layer;
  }
}
