// The canvas: what part of the field is seen, its picture, outlines and ids over it, and the scale bar.

import { blend, outline } from "./frames.js";
import { length } from "./units.js";

export const STATE_COLOURS = { live: "#4fc37f", injured: "#e6a83c", dead: "#e5604d", "": "#9aa7b4" };
const MOST_SCALE = 40; // screen pixels for one of the camera
const CLICK_PX = 5;

export class Viewer {
  /** `seen` is called when another part is looked at, `clicked` with a place in pixels of the camera. */
  constructor(canvas, ruler, { seen, clicked }) {
    Object.assign(this, { canvas, ruler, seen, clicked });
    this.context = canvas.getContext("2d"); // for what lies over the picture
    // The picture is a canvas of its own, as large as it was fetched: the browser scales it as it puts the page
    // together, which costs half of drawing it again.
    this.tile = document.createElement("canvas");
    this.tile.id = "tile";
    canvas.before(this.tile);
    this.overlays = { outlines: null, ids: null, chosen: null };
    this.pointers = new Map();
    this.resized();
    new ResizeObserver(() => this.resized()).observe(canvas);
    this.listen();
  }

  begin(run) {
    this.run = run;
    this.fit();
  }

  // ------------------------------------------------------------ geometry

  get fitScale() { return Math.min(this.box.w / this.run.width, this.box.h / this.run.height); }
  /** Pixels of the screen for one of the camera. */
  get density() { return this.scale * (this.canvas.width / this.box.w); }

  fit() {
    this.scale = this.fitScale;
    this.fitted = true;
    this.y = this.run.height / 2;
    this.x = this.run.width / 2;
    this.moved();
  }

  resized() {
    const dpr = Math.min(2, window.devicePixelRatio || 1);
    // Kept: to ask for it in every picture would have the browser lay out the page each time.
    const { w, h } = (this.box = { w: this.canvas.clientWidth || 1, h: this.canvas.clientHeight || 1 });
    this.canvas.width = Math.round(w * dpr);
    this.canvas.height = Math.round(h * dpr);
    if (!this.run) return;
    if (this.fitted) this.fit();
    else this.moved();
  }

  /** Zoom by a factor, the place under (left, top) of the canvas staying where it is. */
  zoom(factor, left = this.box.w / 2, top = this.box.h / 2) {
    const before = this.at(left, top), most = Math.max(MOST_SCALE, this.fitScale);
    this.scale = Math.min(most, Math.max(this.fitScale, this.scale * factor));
    this.fitted = this.scale <= this.fitScale * 1.001;
    const after = this.at(left, top);
    this.x += before.x - after.x;
    this.y += before.y - after.y;
    this.moved();
  }

  full() {
    this.zoom(1 / this.density);
  }

  at(left, top) {
    return { x: this.x + (left - this.box.w / 2) / this.scale, y: this.y + (top - this.box.h / 2) / this.scale };
  }

  get window() {
    const a = this.at(0, 0), b = this.at(this.box.w, this.box.h);
    return { y: a.y, x: a.x, h: b.y - a.y, w: b.x - a.x };
  }

  moved() {
    const half = { w: this.box.w / 2 / this.scale, h: this.box.h / 2 / this.scale };
    const keep = (at, half, size) => (2 * half >= size ? size / 2 : Math.min(size - half, Math.max(half, at)));
    this.x = keep(this.x, half.w, this.run.width);
    this.y = keep(this.y, half.h, this.run.height);
    this.canvas.style.touchAction = this.fitted ? "pan-y" : "none";
    this.drawSoon();
    this.seen();
  }

  // ------------------------------------------------------------ what is shown

  show(planes, region) {
    this.region = region;
    this.empty = planes.length === 0;
    if (!this.empty) blend(planes, this.tile);
    this.drawSoon();
  }

  overlay(changes) {
    Object.assign(this.overlays, changes);
    this.drawSoon();
  }

  setLabels(labels, region, stateOf) {
    this.overlay({ outlines: labels && outline(labels, region, stateOf) });
  }

  drawSoon() {
    this.asked ??= requestAnimationFrame(() => { this.asked = null; this.draw(); });
  }

  draw() {
    const { context, canvas, density } = this;
    if (!this.run) return;
    this.placeTile(density);
    const over = Object.values(this.overlays).some(Boolean);
    if (over || this.drawnOver) {
      context.setTransform(1, 0, 0, 1, 0, 0);
      context.clearRect(0, 0, canvas.width, canvas.height);
      context.setTransform(density, 0, 0, density, canvas.width / 2 - this.x * density, canvas.height / 2 - this.y * density);
      this.drawOverlays(context, density);
    }
    this.drawnOver = over;
    this.drawRuler();
  }

  placeTile(density) {
    this.tile.hidden = !this.region || this.empty;
    if (this.tile.hidden) return;
    const { y, x, factor } = this.region, { w, h } = this.box;
    const left = w / 2 + (x - this.x) * this.scale, top = h / 2 + (y - this.y) * this.scale;
    const transform = `translate(${left}px, ${top}px) scale(${factor * this.scale})`;
    if (this.tile.style.transform !== transform) this.tile.style.transform = transform;
    this.tile.style.imageRendering = density * factor < 3 ? "auto" : "pixelated"; // further in, pixels as they are
  }

  drawOverlays(context, density) {
    const { outlines, ids, chosen } = this.overlays;
    context.lineWidth = Math.max(1.25, Math.min(2.5, density * 0.6)) / density;
    for (const [state, path] of Object.entries(outlines ?? {})) {
      context.strokeStyle = STATE_COLOURS[state] ?? STATE_COLOURS[""];
      context.stroke(path);
    }
    if (chosen) {
      context.strokeStyle = "#f2f5f7";
      context.lineWidth = 2 / density;
      context.setLineDash([5 / density, 4 / density]);
      context.beginPath();
      context.arc(chosen.x, chosen.y, Math.max(chosen.radius, 14 / density), 0, 2 * Math.PI);
      context.stroke();
      context.setLineDash([]);
    }
    if (!ids) return;
    const size = 11 * (this.canvas.width / this.box.w);
    context.font = `${size / density}px system-ui, sans-serif`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.lineWidth = 3 / density;
    context.strokeStyle = "rgba(0,0,0,.75)";
    context.fillStyle = "#dfe6ec";
    for (const { id, x, y } of ids) {
      context.strokeText(id, x, y);
      context.fillText(id, x, y);
    }
  }

  drawRuler() {
    const um = this.run.pixel_size_um;
    this.ruler.hidden = !um;
    if (!um) return;
    const fits = (this.box.w * 0.2 / this.scale) * um, power = 10 ** Math.floor(Math.log10(fits));
    const bar = Number(([5, 2, 1].find((n) => n * power <= fits * 1.000001) * power).toPrecision(1));
    this.ruler.style.width = `${(bar / um) * this.scale}px`;
    this.ruler.firstElementChild.textContent = length(bar);
  }

  // ------------------------------------------------------------ hands

  listen() {
    const { canvas } = this, place = (event) => {
      const box = canvas.getBoundingClientRect();
      return { left: event.clientX - box.left, top: event.clientY - box.top };
    };
    canvas.addEventListener("wheel", (event) => {
      if (!this.run) return;
      event.preventDefault();
      const { left, top } = place(event);
      this.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015) * (event.ctrlKey ? 4 : 1)), left, top);
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, place(event));
      this.down = this.pointers.size === 1 ? place(event) : null;
    });
    canvas.addEventListener("pointermove", (event) => {
      const before = this.pointers.get(event.pointerId);
      if (!before || !this.run) return;
      const now = place(event), others = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, p]) => p);
      if (others.length) {
        const [fixed] = others, apart = (p) => Math.hypot(p.left - fixed.left, p.top - fixed.top);
        this.zoom(apart(now) / Math.max(1, apart(before)), (now.left + fixed.left) / 2, (now.top + fixed.top) / 2);
      } else {
        this.x -= (now.left - before.left) / this.scale;
        this.y -= (now.top - before.top) / this.scale;
        this.moved();
      }
      this.pointers.set(event.pointerId, now);
    });
    const up = (event) => {
      this.pointers.delete(event.pointerId);
      const now = place(event);
      const still = this.down && Math.hypot(now.left - this.down.left, now.top - this.down.top) < CLICK_PX;
      if (event.type === "pointerup" && still && this.run) this.clicked(this.at(now.left, now.top));
      this.down = null;
    };
    canvas.addEventListener("pointerup", up);
    canvas.addEventListener("pointercancel", up);
  }
}
