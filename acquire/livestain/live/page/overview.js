// The positions: a small picture of each, on its plate where there is one.

import { make } from "./channels.js";
import { blend, fetchPlanes } from "./frames.js";
import { $ } from "./health.js";

const PAUSE_MS = 150; // between two: the run's disk and processor come first

export class Overview {
  /** `newest(image)` gives the time point to show, -1 for none; `channels()` what is shown; `chosen` is called with a position. */
  constructor(run, { newest, channels, chosen }) {
    Object.assign(this, { run, newest, channels, chosen });
    this.tiles = run.images.map((image, number) => this.tile(image, number));
    this.waiting = new Set();
    this.visible = new Set();
    $("positions").hidden = run.images.length < 2;
    if (run.images.length < 2) return;
    if (run.plate) this.layPlate();
    else this.layRow();
    const look = new IntersectionObserver((entries) => entries.forEach(({ target, isIntersecting }) => {
      const number = Number(target.dataset.image);
      if (isIntersecting) this.visible.add(number);
      else this.visible.delete(number);
      this.work();
    }));
    this.tiles.forEach((tile) => look.observe(tile));
  }

  tile(image, number) {
    const name = image.name || `position ${number + 1}`;
    const button = make("button", { class: "tile", "data-image": number, title: name, "aria-label": `Show ${name}`, onclick: () => this.chosen(number) }, make("canvas", { width: 1, height: 1 }));
    if (!this.run.plate) button.append(make("span", {}, name));
    return button;
  }

  layRow() {
    $("overview").className = "row";
    $("overview").replaceChildren(...this.tiles);
  }

  layPlate() {
    const [, rows, columns] = this.run.plate, plate = $("overview"), wells = new Map();
    plate.className = "plate";
    plate.style.gridTemplateColumns = `1.4em repeat(${columns}, minmax(0, 1fr))`;
    this.run.images.forEach(({ well }, number) => {
      const key = `${well[0]}${Number(well[1])}`;
      wells.set(key, [...(wells.get(key) ?? []), this.tiles[number]]);
    });
    const cells = [make("span")];
    for (let c = 1; c <= columns; c++) cells.push(make("span", { class: "mark" }, String(c)));
    for (let r = 0; r < rows; r++) {
      const letter = rowName(r);
      cells.push(make("span", { class: "mark" }, letter));
      for (let c = 1; c <= columns; c++) {
        const fields = wells.get(`${letter}${c}`) ?? [];
        const well = make("span", { class: fields.length ? "well" : "well none" }, ...fields);
        well.style.gridTemplateColumns = `repeat(${Math.ceil(Math.sqrt(fields.length)) || 1}, 1fr)`;
        cells.push(well);
      }
    }
    plate.replaceChildren(...cells);
  }

  mark(image) {
    this.tiles.forEach((tile, number) => tile.setAttribute("aria-current", String(number === image)));
  }

  /** Say which positions have something new; all, without. */
  renew(images = this.run.images.keys()) {
    if (this.run.images.length < 2) return;
    for (const image of images) this.waiting.add(Number(image));
    this.work();
  }

  async work() {
    if (this.working) return;
    this.working = true;
    try {
      for (;;) {
        const next = [...this.waiting].find((image) => this.visible.has(image));
        if (next === undefined || document.hidden) break;
        this.waiting.delete(next);
        await this.draw(next);
        await new Promise((done) => setTimeout(done, PAUSE_MS));
      }
    } finally {
      this.working = false;
    }
  }

  async draw(image) {
    const t = this.newest(image), tile = this.tiles[image];
    if (t < 0) return;
    const wide = Math.max(24, tile.clientWidth * Math.min(2, window.devicePixelRatio || 1));
    const factor = Math.min(256, Math.max(1, Math.floor(this.run.width / wide)));
    const whole = { y: 0, x: 0, h: this.run.height, w: this.run.width, factor };
    try {
      const z = Math.floor(this.run.images[image].n_z / 2);
      const planes = (await fetchPlanes(image, t, z, await this.channels(), whole)).filter(Boolean);
      if (planes.length) blend(planes, tile.querySelector("canvas"));
    } catch { /* the next news of this position asks again */ }
  }
}

const rowName = (r) => (r < 26 ? "" : String.fromCharCode(64 + Math.floor(r / 26))) + String.fromCharCode(65 + (r % 26));
