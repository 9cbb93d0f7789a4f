// The number to trust: what the masks checked so far say of the others; and doubted tags as cards.
import { address, getJson, postJson } from "/static/net.js";
import { say } from "/static/messages.js";

const $ = (id) => document.getElementById(id);
const percent = (value) => (value === null ? "–" : `${(100 * value).toFixed(0)} %`);
const span = (low, high) => (low === null ? "" : `${(100 * low).toFixed(0)} to ${(100 * high).toFixed(0)}`);

// What is expected of a mask, in words; "" while nobody knows.
export function expected(entry) {
  if (!entry.trust) return "";
  const [iou, low, high, checked] = entry.trust;
  return checked ? `IoU ${percent(iou)} (checked)` : `IoU ${percent(iou)} expected (${span(low, high)})`;
}

export class Trust {
  constructor(bench) {
    this.bench = bench;
    this.found = null;
    $("open-trust").addEventListener("click", () => { $("trust").showModal(); this.refresh(); });
    $("trust-draw").addEventListener("click", () => this.draw());
    setTimeout(() => this.refresh(), 300);
  }

  // A moment after the last change, so that quick decisions are weighed once.
  later() {
    if (this.found && !this.found.reviewed) return;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.refresh(), 1500);
  }

  async refresh() {
    clearTimeout(this.timer);
    let found;
    try { found = await getJson("trust"); } catch (error) { return say(error.message, true); }
    this.found = found;
    $("open-trust").hidden = !found.reviewed;
    const { bench } = this, images = found.images || {}, places = new Map((found.draw || []).map((name, place) => [name, place]));
    for (const entry of bench.entries) {
      entry.trust = images[entry.name] || null;
      entry.draw = places.get(entry.name) ?? Infinity;
    }
    const options = $("order").options;
    options[1].disabled = !found.images;
    options[2].disabled = !found.draw;
    bench.list.again();
    if (bench.name) bench.place();
    this.tell();
  }

  tell() {
    const { found } = this;
    const few = `${found.checked} masks checked. From ${found.needed} on, every other mask and every class gets a predicted IoU with an interval; 50 make it narrow. The interval holds if the checked masks are a random draw, so check them in random order.`;
    $("trust-text").textContent = found.text || few;
    const table = $("trust-classes");
    table.hidden = !found.classes;
    table.tBodies[0].replaceChildren(...(found.classes || []).map(([name, iou, low, high, checked]) => {
      const row = document.createElement("tr");
      for (const text of [name, percent(iou), span(low, high), String(checked)]) row.insertCell().textContent = text;
      return row;
    }));
    $("open-trust").textContent = found.text ? `Trust: IoU ${percent(found.iou)}` : "Trust";
  }

  draw() {
    $("trust").close();
    $("order").value = "draw";
    $("by-state").value = "undecided";
    const { bench } = this;
    bench.list.filter();
    if (bench.list.found.length) bench.open(bench.list.found[0].name);
    say("Random order, undecided images only: accept what is right, correct what is not.");
  }
}

export class Tags {
  constructor(bench) {
    this.bench = bench;
    $("open-tags").hidden = !bench.run.reviewed;
    $("open-tags").addEventListener("click", () => { $("tags").showModal(); this.load(); });
  }

  async load() {
    let found;
    try { found = await getJson("doubts"); } catch (error) { $("tags-text").textContent = error.message; return; }
    const strong = found.cards.filter((card) => card.strong).length;
    const head = found.cards.length
      ? `${found.cards.length + found.more} tags that the model doubts, ${strong} of them strongly; the likeliest first. Stop where most prove right.`
      : "The model doubts no tag.";
    const how = found.mends ? " A click changes the tag file at once." : " These tags do not come from a tag file that this app may write, so change them where they come from.";
    $("tags-text").textContent = head + (found.cards.length ? how : "");
    $("cards").replaceChildren(...found.cards.map((card) => this.card(card, found.mends)));
  }

  card(card, mends) {
    const box = document.createElement("div");
    box.className = "card";
    const picture = document.createElement("img");
    Object.assign(picture, { src: address("thumb", { name: card.name }), alt: card.name, loading: "lazy" });
    const text = document.createElement("span");
    const told = card.kind === "wrong" ? `tagged ${card.tag}; the model doubts it` : `not tagged ${card.tag}; the model sees it`;
    text.textContent = `${card.name}: ${told} (${percent(card.chance)}${card.strong ? ", strong" : ""})`;
    const look = document.createElement("button");
    Object.assign(look, { type: "button", textContent: "Look" });
    look.addEventListener("click", () => { $("tags").close(); this.bench.open(card.name); });
    box.append(picture, text, look);
    if (mends) box.append(this.repair(card));
    return box;
  }

  // One button that changes the tag and, pressed again, changes it back.
  repair(card) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "main";
    const before = card.kind === "wrong";
    const write = () => {
      const done = card.tagged !== before;
      button.textContent = done ? `Take back (${card.tag} ${card.tagged ? "added" : "removed"})` : card.tagged ? `Remove ${card.tag}` : `Add ${card.tag}`;
      button.classList.toggle("main", !done);
    };
    button.addEventListener("click", async () => {
      button.disabled = true;
      try {
        const found = await postJson("mend", { name: card.name, tag: card.tag, present: !card.tagged });
        card.tagged = !card.tagged;
        const entry = this.bench.byName.get(card.name);
        if (entry) entry.tags = found.tags;
        this.bench.retagged(card.name);
        say(`${card.name}: ${card.tag} ${card.tagged ? "added" : "removed"} in ${found.file}.`);
      } catch (error) { $("tags-text").textContent = error.message; say(error.message, true); }
      button.disabled = false;
      write();
    });
    write();
    return button;
  }
}
