// Brush, eraser, polygon and fill on the labels of an image; strokes can be taken back without limit.
import { getPacked } from "/static/net.js";

export class Paint {
  constructor(view, hooks) {
    this.view = view;
    this.hooks = hooks; // target(), label(), changed(item), say(text, problem)
    this.tool = "move";
    this.size = 16;
    this.polygon = [];
    this.pointers = new Map();
    this.stroke = null;
    this.hover = null;
    view.over = (context) => this.outline(context);
    const { canvas } = view;
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => this.moved(event));
    canvas.addEventListener("pointerup", (event) => this.up(event));
    canvas.addEventListener("pointercancel", (event) => this.up(event));
    canvas.addEventListener("pointerleave", () => { this.hover = null; view.redraw(); });
    canvas.addEventListener("dblclick", () => this.close());
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      const { x, y } = view.at(event);
      view.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), x, y);
    }, { passive: false });
  }

  choose(tool) {
    this.tool = tool;
    this.polygon = [];
    this.view.canvas.style.cursor = tool === "move" ? "grab" : "crosshair";
    if (tool === "fill") this.regions(this.view.item);
    this.view.redraw();
  }

  down(event) {
    if (!this.view.item) return;
    this.view.canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, this.view.at(event));
    if (this.pointers.size === 2) { this.cancel(); this.pinch = this.spread(); return; }
    const pans = this.tool === "move" || event.button === 1 || event.button === 2 || event.shiftKey;
    if (pans) { this.pan = { x: event.clientX, y: event.clientY }; return; }
    const { column, row } = this.view.at(event);
    if (this.tool === "polygon") return this.corner(column, row);
    this.begin();
    this.last = { column, row };
    this.mark(column, row);
  }

  moved(event) {
    const place = this.view.at(event);
    this.hover = place;
    if (this.pointers.has(event.pointerId)) this.pointers.set(event.pointerId, place);
    if (this.pinch && this.pointers.size === 2) {
      const now = this.spread();
      this.view.move(now.x - this.pinch.x, now.y - this.pinch.y);
      this.view.zoom(now.apart / Math.max(1, this.pinch.apart), now.x, now.y);
      this.pinch = now;
    } else if (this.pan) {
      const ratio = this.view.ratio || 1;
      this.view.move((event.clientX - this.pan.x) * ratio, (event.clientY - this.pan.y) * ratio);
      this.pan = { x: event.clientX, y: event.clientY };
    } else if (this.stroke) {
      this.mark(place.column, place.row);
    }
    if (this.tool !== "move") this.view.redraw();
  }

  up(event) {
    this.pointers.delete(event.pointerId);
    this.pan = null;
    if (this.pointers.size < 2) this.pinch = null;
    if (this.stroke) this.finish();
  }

  spread() {
    const [a, b] = [...this.pointers.values()];
    return { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, apart: Math.hypot(a.x - b.x, a.y - b.y) };
  }

  begin() {
    const layer = this.hooks.target();
    this.stroke = { item: this.view.item, layer, before: layer.data.slice(), box: null };
  }

  cancel() {
    if (!this.stroke) return;
    this.stroke.layer.data.set(this.stroke.before);
    this.view.colours.paint(this.stroke.layer);
    this.stroke = null;
    this.view.redraw();
  }

  finish() {
    const { item, layer, before, box } = this.stroke;
    this.stroke = null;
    if (!box) return;
    item.edits.push(patch(layer, before, box));
    item.redos = [];
    this.hooks.changed(item, layer);
  }

  mark(column, row) {
    const { layer } = this.stroke;
    if (this.tool === "fill") return this.region(column, row);
    const label = this.tool === "erase" ? this.hooks.blank(layer) : this.hooks.label();
    const radius = Math.max(0.5, this.size / 2);
    const steps = Math.max(1, Math.ceil(Math.hypot(column - this.last.column, row - this.last.row) / Math.max(1, radius / 2)));
    for (let step = 1; step <= steps; step++) {
      const t = step / steps;
      this.disc(layer, this.last.column + (column - this.last.column) * t, this.last.row + (row - this.last.row) * t, radius, label);
    }
    this.last = { column, row };
  }

  disc(layer, column, row, radius, label) {
    const top = Math.max(0, Math.floor(row - radius)), bottom = Math.min(layer.h, Math.ceil(row + radius));
    const left = Math.max(0, Math.floor(column - radius)), right = Math.min(layer.w, Math.ceil(column + radius));
    for (let y = top; y < bottom; y++) {
      for (let x = left; x < right; x++) {
        if (Math.hypot(x + 0.5 - column, y + 0.5 - row) <= Math.max(radius, 0.71)) layer.data[y * layer.w + x] = label;
      }
    }
    this.touch(left, top, right - left, bottom - top);
  }

  touch(x, y, width, height) {
    if (width <= 0 || height <= 0) return;
    this.stroke.box = joined(this.stroke.box, { x, y, width, height });
    this.view.colours.paint(this.stroke.layer, { x, y, width, height });
    this.view.redraw();
  }

  async regions(item) {
    if (!item || item.regions) return;
    try {
      const { arrays } = await getPacked("regions", { name: item.name });
      const { shape, data } = arrays.regions;
      item.regions = { h: shape[0], w: shape[1], at: (p) => data[2 * p] | (data[2 * p + 1] << 8) };
    } catch (error) { this.hooks.say(error.message, true); }
  }

  region(column, row) {
    const { layer, item } = this.stroke;
    if (!item.regions) {
      this.regions(item);
      this.hooks.say("The regions of this picture are being cut; click again in a moment.");
      return;
    }
    const { h, w, at } = item.regions;
    const x = Math.floor((column * w) / layer.w), y = Math.floor((row * h) / layer.h);
    if (x < 0 || y < 0 || x >= w || y >= h) return;
    const wanted = at(y * w + x), label = this.hooks.label();
    let box = null;
    for (let v = 0; v < layer.h; v++) {
      const from = Math.min(h - 1, Math.floor(((v + 0.5) * h) / layer.h)) * w;
      for (let u = 0; u < layer.w; u++) {
        if (at(from + Math.min(w - 1, Math.floor(((u + 0.5) * w) / layer.w))) === wanted) {
          layer.data[v * layer.w + u] = label;
          box = joined(box, { x: u, y: v, width: 1, height: 1 });
        }
      }
    }
    if (box) this.touch(box.x, box.y, box.width, box.height);
  }

  corner(column, row) {
    const [first] = this.polygon;
    const near = first && Math.hypot(first[0] - column, first[1] - row) * this.view.scale < 10 * (this.view.ratio || 1);
    if (near && this.polygon.length > 2) return this.close();
    const last = this.polygon.at(-1);
    if (!last || Math.hypot(last[0] - column, last[1] - row) * this.view.scale > 2) this.polygon.push([column, row]);
    this.view.redraw();
  }

  // Fills the polygon: a pixel is inside if a line to the left crosses its edges an odd number of times.
  close() {
    const corners = this.polygon;
    this.polygon = [];
    if (this.tool !== "polygon" || corners.length < 3) return this.view.redraw();
    this.begin();
    const { layer } = this.stroke;
    const label = this.hooks.label();
    const rows = corners.map((c) => c[1]), columns = corners.map((c) => c[0]);
    const top = Math.max(0, Math.floor(Math.min(...rows))), bottom = Math.min(layer.h, Math.ceil(Math.max(...rows)));
    for (let y = top; y < bottom; y++) {
      const crossings = [];
      corners.forEach(([ax, ay], i) => {
        const [bx, by] = corners[(i + 1) % corners.length];
        if (ay > y + 0.5 !== by > y + 0.5) crossings.push(ax + ((y + 0.5 - ay) / (by - ay)) * (bx - ax));
      });
      crossings.sort((a, b) => a - b);
      for (let i = 0; i + 1 < crossings.length; i += 2) {
        const from = Math.max(0, Math.round(crossings[i])), to = Math.min(layer.w, Math.round(crossings[i + 1]));
        if (to > from) layer.data.fill(label, y * layer.w + from, y * layer.w + to);
      }
    }
    const left = Math.max(0, Math.floor(Math.min(...columns))), right = Math.min(layer.w, Math.ceil(Math.max(...columns)));
    this.touch(left, top, right - left, bottom - top);
    this.finish();
  }

  // Takes labels from elsewhere as one step.
  replace(layer, data) {
    this.stroke = { item: this.view.item, layer, before: layer.data.slice(), box: null };
    layer.data.set(data);
    this.touch(0, 0, layer.w, layer.h);
    this.finish();
  }

  undo(item) {
    return this.step(item, item.edits, item.redos);
  }

  redo(item) {
    return this.step(item, item.redos, item.edits);
  }

  step(item, from, to) {
    const old = from.pop();
    if (!old) return null;
    const layer = item.layers.get(old.id);
    to.push(patch(layer, layer.data, old.box));
    const { x, y, width, height } = old.box;
    for (let row = 0; row < height; row++) {
      layer.data.set(old.data.subarray(row * width, (row + 1) * width), (y + row) * layer.w + x);
    }
    this.view.colours.paint(layer, old.box);
    this.view.redraw();
    return layer;
  }

  outline(context) {
    const { view } = this;
    const thin = 1 / view.scale;
    const draw = (path) => {
      for (const [colour, width] of [["#000", 3], ["#fff", 1.5]]) {
        context.strokeStyle = colour;
        context.lineWidth = width * thin;
        context.beginPath();
        path();
        context.stroke();
      }
    };
    if (this.polygon.length) {
      draw(() => {
        this.polygon.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
        if (this.hover) context.lineTo(this.hover.column, this.hover.row);
      });
    }
    if (this.hover && (this.tool === "brush" || this.tool === "erase")) {
      draw(() => context.arc(this.hover.column, this.hover.row, Math.max(0.7, this.size / 2), 0, 7));
    }
  }
}

function joined(a, b) {
  if (!a) return { ...b };
  const x = Math.min(a.x, b.x), y = Math.min(a.y, b.y);
  return { x, y, width: Math.max(a.x + a.width, b.x + b.width) - x, height: Math.max(a.y + a.height, b.y + b.height) - y };
}

// What lay under a box before.
function patch(layer, before, box) {
  const data = new Uint8Array(box.width * box.height);
  for (let row = 0; row < box.height; row++) {
    const from = (box.y + row) * layer.w + box.x;
    data.set(before.subarray(from, from + box.width), row * box.width);
  }
  return { id: layer.id, box: { ...box }, data };
}
