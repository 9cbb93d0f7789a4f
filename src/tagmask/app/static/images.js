// What is known of an image: its picture, the layers stored of it, what a person drew; kept for a few images.
import { getPacked, getPicture, postForPacked } from "/static/net.js";

export const UNKNOWN = 255;
const KEPT = 14;
const cache = new Map();

export const titles = { corrected: "corrected", scribbles: "scribbles", masks: "mask", now: "mask (now)",
  walks: "random walk", labels: "pseudo label", pseudo: "thresholds" };
export const titleOf = (id) => titles[id] || (id.startsWith("map:") ? id.slice(4).replaceAll("_", " ").replace(/\b[cl]am\b/g, (word) => word.toUpperCase()) : id);
const ORDER = ["corrected", "scribbles", "masks", "now", "walks", "labels"];

export class Item {
  constructor(head, arrays, picture) {
    this.name = head.name;
    this.picture = picture;
    [this.height, this.width] = head.size;
    this.stored = head.stored;
    this.upload = head.upload;
    this.tags = head.tags || [];
    this.layers = new Map();
    this.edits = [];
    this.redos = [];
    this.saves = 0;
    this.predicted = false;
    Object.assign(this, { score: head.score, why: head.why, verdict: head.verdict, kept: head.kept,
      note: head.note, version: head.version });
    this.take(head, arrays);
  }

  // Adds layers as they came; scribbles are kept apart, since what they leave out is unknown.
  take(head, arrays) {
    for (const [name, { shape, data }] of Object.entries(arrays)) {
      const id = name === "corrected" && this.kept === "scribbles" ? "scribbles" : name;
      if (id.startsWith("map:")) {
        const [n, h, w] = shape;
        this.layers.set(id, { id, kind: "maps", n, h, w, data, keys: head.keys[id.slice(4)] });
      } else {
        this.layers.set(id, { id, kind: "labels", h: shape[0], w: shape[1], data });
      }
    }
  }

  // Labels to look at first.
  primary() {
    const id = ORDER.find((one) => this.layers.has(one));
    return id || (this.layers.has("pseudo") ? "pseudo" : [...this.layers.keys()][0]);
  }

  kinds() {
    return [...this.layers.keys()].filter((id) => id.startsWith("map:")).map((id) => id.slice(4));
  }

  // A layer in the image's own size to draw on.
  editable(id, from) {
    const size = this.height * this.width;
    let layer = this.layers.get(id);
    if (layer && layer.h === this.height && layer.w === this.width) {
      if (!layer.own) layer.data = layer.data.slice();
      layer.own = true;
      return layer;
    }
    const source = from && this.layers.get(from);
    const data = source ? enlarged(source, this.height, this.width) : new Uint8Array(size).fill(id === "scribbles" ? UNKNOWN : 0);
    layer = { id, kind: "labels", h: this.height, w: this.width, data, own: true };
    this.layers.set(id, layer);
    return layer;
  }
}

export function enlarged(layer, height, width) {
  const { data, h, w } = layer;
  if (h === height && w === width) return data.slice();
  const result = new Uint8Array(height * width);
  const columns = Int32Array.from({ length: width }, (_, x) => Math.min(w - 1, Math.floor(((x + 0.5) * w) / width)));
  for (let y = 0; y < height; y++) {
    const row = Math.min(h - 1, Math.floor(((y + 0.5) * h) / height)) * w;
    for (let x = 0; x < width; x++) result[y * width + x] = data[row + columns[x]];
  }
  return result;
}

// Labels of maps: the strongest class above the threshold; undecided inside the band around it.
export function thresholded(layer, background, band) {
  const { n, h, w, data, keys } = layer;
  const size = h * w;
  const result = new Uint8Array(size);
  const high = 255 * (band ? Math.min(1, background + band / 2) : background);
  const low = 255 * (band ? Math.max(0, background - band / 2) : background);
  for (let p = 0; p < size; p++) {
    let best = -1, value = -1;
    for (let k = 0; k < n; k++) {
      const found = data[k * size + p];
      if (found > value) { value = found; best = k; }
    }
    result[p] = value > high ? keys[best] + 1 : value > low ? UNKNOWN : 0;
  }
  return { id: "pseudo", kind: "labels", h, w, data: result };
}

export function load(name, priority = "high") {
  if (cache.has(name)) {
    const known = cache.get(name);
    cache.delete(name);
    cache.set(name, known);
    return known;
  }
  const found = Promise.all([getPacked("image", { name }, priority), getPicture(name, priority)])
    .then(([{ head, arrays }, picture]) => new Item(head, arrays, picture));
  cache.set(name, found);
  found.catch(() => cache.delete(name));
  for (const old of cache.keys()) {
    if (cache.size <= KEPT) break;
    if (old !== name) cache.delete(old);
  }
  return found;
}

export function forget(name) {
  cache.delete(name);
}

export function forgetAll() {
  cache.clear();
}

// What the model says now: one view, or all of them; tags of null leave the choice to it.
export async function look(item, tags, quick) {
  const { head, arrays } = await postForPacked("look", { name: item.name, tags, quick });
  item.take(head, arrays);
  item.tags = head.tags;
  item.predicted = true;
  for (const layer of item.layers.values()) layer.canvas = null;
  return item;
}
