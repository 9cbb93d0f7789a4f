// The page: what keys and buttons do. A press counts at once; what it changes is saved in the order of presses.
import { Outbox, getJson, postForFile, postForPacked, postJson, postPacked, pack, upload } from "/static/net.js";
import { forget, load, look, titleOf, enlarged } from "/static/images.js";
import { Colours, View } from "/static/view.js";
import { Paint } from "/static/paint.js";
import { List, stateOf } from "/static/list.js";
import { Classes, Pseudo, Strip } from "/static/panel.js";
import { keys } from "/static/keys.js";
import { lessons } from "/static/lessons.js";
import { Tags, Trust, expected } from "/static/trust.js";
import { busy, save, say } from "/static/messages.js";

const $ = (id) => document.getElementById(id);
const AHEAD = 3;

class Bench {
  constructor(run) {
    this.run = run;
    this.entries = run.names.map((name, i) => {
      const [verdict, kept] = run.verdicts[name] || ["", ""];
      return { name, score: run.scores[i], part: run.parts[i], shown: run.shown[i], tags: run.tags[i], verdict, kept };
    });
    this.byName = new Map(this.entries.map((entry) => [entry.name, entry]));
    this.name = null;
    this.item = null;
    this.choice = null;
    this.pressed = null;
    this.history = [];
    this.versions = new Map();
    this.outbox = new Outbox((error) => say(error.message, true));
    this.colours = new Colours(run.colours);
    this.view = new View($("canvas"), this.colours);
    this.view.drawn = (item) => this.painted(item);
    this.classes = new Classes(run.classes, run.colours, {
      picked: (label) => say(`Drawing ${label ? run.classes[label - 1] : "background"}.`),
      tagged: (tags) => this.retag(tags),
    });
    this.strip = new Strip(this.colours, (id) => this.chooseLayer(id));
    this.pseudo = new Pseudo(run.kinds, run.background, () => this.thresholds());
    this.paint = new Paint(this.view, {
      target: () => this.target(), label: () => this.classes.label,
      blank: (layer) => (layer.id === "scribbles" ? 255 : 0),
      changed: (item, layer) => this.mended(item, layer), say,
    });
    this.list = new List(this.entries, run.classes, (name) => this.open(name));
    this.counts();
  }

  // Opening.

  open(name, remember = true) {
    if (!name) return;
    this.flush();
    this.writeNote();
    this.name = name;
    this.item = null;
    this.list.choose(name);
    if (remember) history.replaceState(null, "", `?image=${encodeURIComponent(name)}`);
    this.place();
    const found = busy(`Opening ${name}`, load(name));
    found.then((item) => { if (this.name === name) this.show(item); }, (error) => {
      if (this.name === name) { this.view.show(null, null); say(error.message, true); }
    });
    this.ahead(name);
    return found;
  }

  // A moment later, so that a decision made by the same key is saved first.
  ahead(name) {
    clearTimeout(this.fetching);
    this.fetching = setTimeout(() => {
      for (let step = 1; step <= AHEAD; step++) {
        const entry = this.list.beside(name, step);
        if (entry && !entry.upload) load(entry.name, "low").catch(() => {});
      }
    }, 90);
  }

  async show(item) {
    this.item = item;
    if (!this.versions.has(item.name)) this.versions.set(item.name, item.version);
    $("note").value = item.note;
    this.refresh();
    // Once a new model was taken, what the run stored is no longer what the model says.
    if (this.taught && !item.predicted) return this.ask(item, null, true);
    if (!item.stored && !item.predicted && !item.layers.has("corrected")) {
      await this.ask(item, null, true);
      if (this.name === item.name) await this.ask(item, null, false);
    }
  }

  // One view first, so that something is there at once; then all of them.
  async ask(item, tags, quick) {
    try {
      await busy(quick ? "First look (one view)" : "Full look (all views)", look(item, tags, quick));
      if (!quick) say(`${item.name}: looked at from all views.`);
    } catch (error) { say(error.message, true); }
    if (this.item === item) this.refresh();
  }

  retag(tags) {
    if (!this.item) return;
    this.choice = "now";
    this.ask(this.item, tags, false);
  }

  refresh() {
    const { item } = this;
    if (!item) return;
    if (!item.layers.has("pseudo") && (this.choice === "pseudo" || !item.layers.size)) this.pseudo.make(item);
    const layer = this.shown();
    this.view.show(item, layer);
    this.place();
    this.strip.show(item, layer && layer.id);
    const said = this.classes.show(item, layer);
    $("canvas").setAttribute("aria-label", layer ? `${titleOf(layer.id)} of ${item.name}: ${said}` : `image ${item.name}`);
    if (!item.layers.has("pseudo")) {
      setTimeout(() => {
        if (this.item === item && this.pseudo.make(item)) this.strip.show(item, layer && layer.id);
      }, 80);
    }
  }

  shown() {
    const { item } = this;
    if (this.choice && item.layers.has(this.choice)) return item.layers.get(this.choice);
    return item.layers.get(item.primary());
  }

  chooseLayer(id) {
    this.choice = id;
    this.refresh();
  }

  cycle() {
    if (!this.item) return;
    const ids = [...this.item.layers.keys()], now = this.shown();
    if (ids.length) this.chooseLayer(ids[(ids.indexOf(now && now.id) + 1) % ids.length]);
  }

  async thresholds() {
    const { item } = this;
    if (!item || !this.pseudo.make(item)) return;
    this.chooseLayer("pseudo");
    clearTimeout(this.refining);
    if (this.pseudo.controls().method === "none") return;
    this.refining = setTimeout(async () => {
      try {
        const layer = await busy("Refining", this.pseudo.refined(item));
        if (layer && this.item === item) this.refresh();
      } catch (error) { say(error.message, true); }
    }, 200);
  }

  place() {
    const entry = this.byName.get(this.name), place = this.list.places.get(this.name);
    const facts = [entry.upload ? "uploaded" : place === undefined ? "not among the found images" : `${place + 1} of ${this.list.found.length}`];
    if (entry.score !== null) facts.push(`doubt ${entry.score.toFixed(2)}`);
    if (entry.trust) facts.push(expected(entry));
    facts.push(stateOf(entry) || "not decided");
    $("name").textContent = this.name;
    $("facts").textContent = `· ${facts.join(" · ")}`;
    const why = this.item ? this.item.why : "";
    if ($("why").textContent !== why) $("why").textContent = why;
  }

  painted(item) {
    if (!this.pressed || item.name !== this.name) return;
    performance.measure("next", { start: this.pressed, detail: item.name });
    this.pressed = null;
  }

  step(by, pressed = performance.now()) {
    const entry = this.list.beside(this.name, by);
    if (!entry) return say(by > 0 ? "This is the last of the found images." : "This is the first of the found images.");
    this.pressed = pressed;
    this.open(entry.name);
  }

  // Deciding.

  decide(verdict, pressed = performance.now()) {
    const { name } = this;
    const entry = this.byName.get(name);
    if (!entry) return;
    this.flush();
    this.writeNote();
    const before = { verdict: entry.verdict, kept: entry.kept };
    const choice = this.choice, controls = this.pseudo.controls(), item = this.item;
    Object.assign(entry, { verdict, kept: verdict === "accepted" ? "mask" : "" });
    this.counts();
    this.list.update(entry, false);
    this.history.push({ name });
    this.outbox.add(async () => {
      try {
        const { head, arrays } = verdict === "accepted" ? await this.kept(name, item, choice, controls) : { head: { kept: "" }, arrays: {} };
        const found = await load(name).catch(() => null);
        const answer = await postPacked("decide", { name, verdict, note: found ? found.note : "", ...head }, arrays);
        performance.measure("decision", { start: pressed, detail: name });
        this.versions.set(name, answer.version);
        entry.kept = head.kept;
        if (found) Object.assign(found, { verdict, kept: head.kept, saves: 0, edits: [], redos: [] });
        if (found && verdict === "rejected") for (const id of ["corrected", "scribbles"]) found.layers.delete(id);
        this.list.update(entry, verdict === "rejected" || head.kept !== "mask");
        this.trust?.later();
        say(`${name}: ${verdict}.`);
      } catch (error) {
        Object.assign(entry, before);
        this.history = this.history.filter((one) => one.name !== name);
        this.list.update(entry, false);
        this.counts();
        throw new Error(`${name} was not ${verdict}: ${error.message}`);
      }
    });
    const following = entry.upload ? null : this.list.beside(name, 1);
    if (following) { this.pressed = pressed; this.open(following.name); } else this.place();
  }

  // What an acceptance keeps: what was drawn, else the labels in sight, else the run's own mask.
  async kept(name, known, choice, controls) {
    const item = known || (await load(name));
    const chosen = choice && item.layers.get(choice);
    const id = chosen && chosen.kind === "labels" ? choice : item.primary();
    const layer = item.layers.get(id);
    const tags = item.tags.map((key) => this.run.classes[key]);
    if (!layer || layer.kind !== "labels") throw new Error("nothing is shown yet that could be kept");
    if (id === "masks") return { head: { kept: "mask", tags }, arrays: {} };
    if (id === "corrected" || id === "scribbles") {
      return { head: { kept: id === "corrected" ? "mended" : "scribbles", tags }, arrays: this.whole(item, layer) };
    }
    const settings = id === "pseudo" ? controls : {};
    return { head: { kept: id === "now" ? "mask" : "pseudo label", tags, settings }, arrays: this.whole(item, layer) };
  }

  whole(item, layer) {
    return { mask: { shape: [item.height, item.width], data: enlarged(layer, item.height, item.width) } };
  }

  // Drawing.

  target() {
    const scribbles = $("scribbles").checked;
    const now = this.shown();
    const from = now && now.kind === "labels" && now.id !== "scribbles" ? now.id : this.item.primary();
    const source = this.item.layers.get(from);
    const fits = !scribbles && source && source.kind === "labels" && from !== "scribbles";
    const layer = this.item.editable(scribbles ? "scribbles" : "corrected", fits ? from : null);
    if (this.choice !== layer.id) this.chooseLayer(layer.id);
    return layer;
  }

  // A stroke ended: saved shortly after, several quick ones together.
  mended(item, layer) {
    this.pending = { item, layer };
    clearTimeout(this.saving);
    this.saving = setTimeout(() => this.flush(), 250);
    this.refresh();
  }

  flush() {
    clearTimeout(this.saving);
    const { item, layer } = this.pending || {};
    this.pending = null;
    if (!item) return;
    const { name } = item, entry = this.byName.get(name), kept = layer.id === "scribbles" ? "scribbles" : "mended";
    const mask = { shape: [layer.h, layer.w], data: layer.data.slice() };
    const merge = item.saves > 0;
    item.saves += 1;
    if (!merge) this.history.push({ name, mend: true });
    Object.assign(entry, { verdict: "accepted", kept });
    Object.assign(item, { verdict: "accepted", kept });
    this.counts();
    this.place();
    this.outbox.add(async () => {
      const tags = item.tags.map((key) => this.run.classes[key]);
      const answer = await postPacked("decide", { name, verdict: "accepted", kept, note: item.note, tags, merge }, { mask });
      this.versions.set(name, answer.version);
      this.list.update(entry, true);
      this.trust?.later();
      say(`${name}: ${kept === "scribbles" ? "scribbles" : "correction"} saved.`);
    });
  }

  async spread() {
    const { item } = this;
    if (!item) return;
    const scribbles = item.layers.get("scribbles");
    if (!scribbles) return say("Turn scribbles on and draw a stroke on each class, and one on the background.", true);
    const marked = new Set(scribbles.data);
    marked.delete(255);
    const source = item.layers.get(["corrected", "masks", "now", "walks", "labels"].find((id) => item.layers.has(id)));
    const arrays = { strokes: { shape: [item.height, item.width], data: scribbles.data } };
    // One label alone could only fill everything; what was there before then holds the rest.
    if (marked.size < 2 && source) arrays.prior = { shape: [item.height, item.width], data: enlarged(source, item.height, item.width) };
    try {
      const found = await busy("Spreading the strokes", postForPacked("spread", pack({ name: item.name }, arrays)));
      if (this.item !== item) return;
      const layer = item.editable("corrected", source ? source.id : null);
      this.chooseLayer("corrected");
      $("scribbles").checked = false;
      this.paint.replace(layer, found.arrays.spread.data);
    } catch (error) { say(error.message, true); }
  }

  undo() {
    const { item } = this;
    if (item && item.edits.length) {
      const layer = this.paint.undo(item);
      if (item.edits.length) return this.mended(item, layer);
      clearTimeout(this.saving);
      this.pending = null;
      if (!item.saves) { item.layers.delete(layer.id); return this.refresh(); }
    }
    const last = this.history.pop();
    if (!last) return say("There is nothing to take back.");
    const { name } = last, entry = this.byName.get(name);
    this.outbox.add(async () => {
      const found = await postJson("undo", { name, version: this.versions.get(name) ?? -1 });
      this.versions.set(name, found.version);
      Object.assign(entry, { verdict: found.verdict, kept: found.kept });
      forget(name);
      this.list.update(entry, true);
      this.counts();
      this.trust?.later();
      say(`${name}: taken back, now ${stateOf(entry) || "not decided"}.`);
      this.open(name);
    });
  }

  redo() {
    if (!this.item) return;
    const layer = this.paint.redo(this.item);
    if (layer) this.mended(this.item, layer);
  }

  writeNote() {
    const { item } = this;
    const text = $("note").value.trim();
    if (!item || text === item.note) return;
    item.note = text;
    this.outbox.add(async () => {
      const answer = await postJson("note", { name: item.name, note: text });
      this.versions.set(item.name, answer.version);
      say(`${item.name}: note written.`);
    });
  }

  async download() {
    const { item } = this, layer = item && this.shown();
    if (!layer || layer.kind !== "labels") return say("Choose a mask or label to download.", true);
    try {
      save(await postForFile("download", pack({ name: item.name, what: titleOf(layer.id).replace(/[()]/g, "") }, this.whole(item, layer))));
      say(`The ${titleOf(layer.id)} of ${item.name} is downloaded; a copy is in ${this.run.folder}/downloads.`);
    } catch (error) { say(error.message, true); }
  }

  // The tag file was changed: what is shown of the image follows.
  retagged(name) {
    forget(name);
    if (this.name === name) this.open(name, false);
  }

  counts() {
    const own = this.entries.filter((entry) => !entry.upload), decided = own.filter((entry) => entry.verdict).length;
    $("decided").max = Math.max(1, own.length);
    $("decided").value = decided;
    $("counts").textContent = `${decided} of ${own.length} decided`;
  }

  async upload(files) {
    for (const file of files) {
      try {
        const most = this.run.upload_limit;
        if (file.size > most) throw new Error(`at most ${Math.round(most / 2 ** 20)} MB at once are taken; make the picture smaller`);
        const { name } = await busy(`Uploading ${file.name}`, upload(file));
        if (!this.byName.has(name)) {
          const entry = { name, score: null, part: "", shown: [], tags: [], verdict: "", kept: "", upload: true };
          this.byName.set(name, entry);
          this.list.addFirst(entry);
        }
        say(`${file.name} is here.`);
        this.choice = null;
        this.open(name);
      } catch (error) { say(`${file.name}: ${error.message}`, true); }
    }
  }
}

function wire(bench) {
  const { view, paint } = bench;
  const on = (id, what, act) => $(id).addEventListener(what, act);
  on("accept", "click", (event) => bench.decide("accepted", event.timeStamp));
  on("reject", "click", (event) => bench.decide("rejected", event.timeStamp));
  on("next", "click", (event) => bench.step(1, event.timeStamp));
  on("back", "click", (event) => bench.step(-1, event.timeStamp));
  on("undo", "click", () => bench.undo());
  on("redo", "click", () => bench.redo());
  on("spread", "click", () => bench.spread());
  on("download", "click", () => bench.download());
  on("note", "change", () => bench.writeNote());
  on("opacity", "input", () => { view.opacity = $("opacity").value / 100; view.redraw(); });
  on("compare", "input", () => { view.compare = $("compare").value / 100; view.redraw(); });
  on("zoom-in", "click", () => view.zoom(1.5));
  on("zoom-out", "click", () => view.zoom(1 / 1.5));
  on("zoom-fit", "click", () => view.fit());
  on("brush-size", "input", () => { paint.size = Number($("brush-size").value); view.redraw(); });
  on("files", "change", () => { bench.upload([...$("files").files]); $("files").value = ""; });
  for (const button of $("brushes").children) button.addEventListener("click", () => tool(bench, button.dataset.tool));
  for (const id of ["list", "tools"]) on(`show-${id}`, "click", () => drawer(id));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => { event.preventDefault(); bench.upload([...event.dataTransfer.files]); });
  window.addEventListener("beforeunload", (event) => { bench.flush(); if (bench.outbox.waiting) event.preventDefault(); });
  window.addEventListener("popstate", () => bench.open(new URLSearchParams(location.search).get("image"), false));
}

export function tool(bench, name) {
  bench.paint.choose(name);
  for (const button of $("brushes").children) button.setAttribute("aria-checked", button.dataset.tool === name);
}

function drawer(id) {
  for (const one of ["list", "tools"]) {
    const open = one === id && !$(one).classList.contains("open");
    $(one).classList.toggle("open", open);
    $(`show-${one}`).setAttribute("aria-expanded", open);
  }
}

async function start() {
  const wanted = new URLSearchParams(location.search).get("image");
  if (wanted) load(wanted).catch(() => {});
  const run = await getJson("run");
  $("title").textContent = run.title;
  document.title = `tagmask: ${run.title}`;
  const bench = new Bench(run);
  wire(bench);
  keys(bench, tool);
  lessons(bench);
  bench.trust = new Trust(bench);
  new Tags(bench);
  const first = wanted && bench.byName.has(wanted) ? wanted : run.names[0];
  if (wanted && first !== wanted) say(`This run has no image '${wanted}'.`, true);
  else if (!run.reviewed && run.names.length) say("Run tagmask review to see the doubtful images first.");
  if (first) bench.open(first);
  else say("Upload or drop a picture to begin.");
  window.tagmask = bench;
}

start().catch((error) => say(error.message, true));
