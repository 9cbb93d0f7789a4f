// One large picture with a layer over it: zoom, drag, hide, compare. Positions are in pixels of the image.
import { UNKNOWN } from "/static/images.js";

const rgbOf = (text) => [1, 3, 5].map((i) => parseInt(text.slice(i, i + 2), 16));
const word = (r, g, b, a) => ((a << 24) | (b << 16) | (g << 8) | r) >>> 0;

export class Colours {
  constructor(colours) {
    this.rgb = colours.map(rgbOf);
    this.table = new Uint32Array(256);
    this.rgb.forEach(([r, g, b], k) => { this.table[k + 1] = word(r, g, b, 255); });
  }

  // The layer, or the part of it that changed, as a canvas of its own size.
  paint(layer, box = null) {
    const { h, w } = layer;
    const fresh = !layer.canvas;
    if (fresh) {
      layer.canvas = document.createElement("canvas");
      [layer.canvas.width, layer.canvas.height] = [w, h];
    }
    const { x, y, width, height } = fresh || !box ? { x: 0, y: 0, width: w, height: h } : box;
    if (width < 1 || height < 1) return layer.canvas;
    const pixels = new ImageData(width, height);
    const out = new Uint32Array(pixels.data.buffer);
    if (layer.kind === "maps") this.maps(layer, out);
    else this.labels(layer, out, x, y, width, height);
    layer.canvas.getContext("2d").putImageData(pixels, x, y);
    return layer.canvas;
  }

  labels(layer, out, x, y, width, height) {
    const clear = layer.id === "scribbles";
    const ground = word(255, 255, 255, 150);
    for (let row = 0; row < height; row++) {
      for (let column = 0; column < width; column++) {
        const label = layer.data[(y + row) * layer.w + x + column];
        let colour = this.table[label];
        if (label === UNKNOWN && !clear) colour = (x + column + y + row) % 8 < 4 ? word(255, 255, 255, 255) : word(0, 0, 0, 255);
        else if (label === 0 && clear) colour = ground;
        out[row * width + column] = colour;
      }
    }
  }

  maps(layer, out) {
    const { n, data, keys } = layer;
    const size = layer.h * layer.w;
    for (let p = 0; p < size; p++) {
      let best = 0, value = 0;
      for (let k = 0; k < n; k++) if (data[k * size + p] > value) { value = data[k * size + p]; best = k; }
      const [r, g, b] = n ? this.rgb[keys[best]] : [0, 0, 0];
      out[p] = word(r, g, b, value);
    }
  }
}

export class View {
  constructor(canvas, colours) {
    this.canvas = canvas;
    this.colours = colours;
    this.context = canvas.getContext("2d");
    this.item = null;
    this.layer = null;
    this.scale = 1;
    this.left = this.top = 0;
    this.hidden = false;
    this.opacity = 0.6;
    this.compare = 0;
    this.over = null;
    this.asked = false;
    this.drawn = null;
    new ResizeObserver(() => this.resized()).observe(canvas.parentElement);
  }

  show(item, layer) {
    const fresh = item !== this.item;
    this.item = item;
    this.layer = layer;
    if (fresh) this.fit();
    this.redraw();
  }

  resized() {
    const box = this.canvas.parentElement.getBoundingClientRect();
    const ratio = window.devicePixelRatio || 1;
    const atFit = this.atFit;
    this.canvas.width = Math.max(1, Math.round(box.width * ratio));
    this.canvas.height = Math.max(1, Math.round(box.height * ratio));
    this.ratio = ratio;
    if (atFit !== false) this.fit();
    this.redraw();
  }

  fit() {
    if (!this.item) return;
    const { width, height } = this.item;
    this.scale = Math.min(this.canvas.width / width, this.canvas.height / height);
    this.left = (this.canvas.width - width * this.scale) / 2;
    this.top = (this.canvas.height - height * this.scale) / 2;
    this.atFit = true;
    this.redraw();
  }

  zoom(factor, x = this.canvas.width / 2, y = this.canvas.height / 2) {
    const scale = Math.min(64, Math.max(0.02, this.scale * factor));
    this.left = x - ((x - this.left) * scale) / this.scale;
    this.top = y - ((y - this.top) * scale) / this.scale;
    this.scale = scale;
    this.atFit = false;
    this.redraw();
  }

  move(dx, dy) {
    this.left += dx;
    this.top += dy;
    this.atFit = false;
    this.redraw();
  }

  // Where an event is: on the canvas, and in the image.
  at(event) {
    const box = this.canvas.getBoundingClientRect();
    const x = (event.clientX - box.left) * (this.ratio || 1), y = (event.clientY - box.top) * (this.ratio || 1);
    return { x, y, column: (x - this.left) / this.scale, row: (y - this.top) / this.scale };
  }

  redraw() {
    if (this.asked) return;
    this.asked = true;
    requestAnimationFrame(() => { this.asked = false; this.draw(); });
  }

  draw() {
    const { context, canvas, item, layer } = this;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (!item) return;
    context.setTransform(this.scale, 0, 0, this.scale, this.left, this.top);
    context.imageSmoothingEnabled = this.scale < 4;
    context.drawImage(item.picture, 0, 0, item.width, item.height);
    if (layer && !this.hidden) {
      const from = item.width * this.compare;
      context.save();
      context.beginPath();
      context.rect(from, 0, item.width - from, item.height);
      context.clip();
      context.globalAlpha = this.opacity;
      context.imageSmoothingEnabled = layer.kind === "maps";
      context.drawImage(layer.canvas || this.colours.paint(layer), 0, 0, item.width, item.height);
      context.restore();
      if (this.compare > 0) this.line(from);
    }
    if (this.over) this.over(context);
    if (this.drawn) this.drawn(item);
  }

  line(at) {
    const { context } = this;
    for (const [colour, width] of [["#000", 4], ["#fff", 2]]) {
      context.strokeStyle = colour;
      context.lineWidth = width / this.scale;
      context.beginPath();
      context.moveTo(at, 0);
      context.lineTo(at, this.item.height);
      context.stroke();
    }
  }
}
