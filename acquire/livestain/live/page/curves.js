// The figures of the newest measured time point, and the curves that grow.

import { api, json } from "./api.js";
import { make } from "./channels.js";
import { $ } from "./health.js";
import { axis, band, CONFIG, FAINT, PALETTE, plotly, sheet } from "./plots.js";
import { axisOf, count, mass, percent, span } from "./units.js";

const ROWS = [
  { key: "cells", label: "cells" },
  { key: "viability", label: "viability (%)", by: 0.01, low: "viability_low", high: "viability_high", band: "95 % interval" },
  { key: "total_dry_mass_pg", label: "total dry mass", sd: "total_dry_mass_sd_pg", mass: true },
  { key: "median_dry_mass_pg", label: "median dry mass", sd: "median_dry_mass_sd_pg", mass: true },
];
const FEW = 6; // curves that have a colour each

export class Curves {
  /** `go` is called with a time point that was clicked. */
  constructor(run, { go }) {
    Object.assign(this, { run, go });
    this.div = $("curves");
    this.by = run.groups.condition ? "condition" : "position";
    this.drawChoice();
  }

  drawChoice() {
    const names = { condition: "each well", position: "each position" };
    const choices = Object.keys(this.run.groups).length > 1 ? ["condition", "position"] : [];
    $("by").hidden = !choices.length;
    $("by").replaceChildren(...choices.map((name) => make("option", { value: name, selected: name === this.by }, names[name])));
    $("by").onchange = () => { this.by = $("by").value; this.rows = -1; this.update(this.wanted); };
  }

  /** Fetch and draw if there is something new; never twice at once, and rarely where it is much to draw. */
  async update(rows, image = this.image) {
    this.wanted = rows;
    const other = image !== this.image;
    this.image = image;
    if (this.busy || document.hidden) return;
    if (rows === this.rows && !other) return;
    this.busy = true;
    try {
      if (rows !== this.rows) this.data = await json(api(`curves?by=${this.by}`));
      this.rows = rows;
      await this.draw();
    } finally {
      const points = this.data?.curves.reduce((n, curve) => n + curve.t.length, 0) ?? 0;
      setTimeout(() => { this.busy = false; if (this.wanted !== this.rows) this.update(this.wanted); }, Math.max(400, points / 2));
    }
  }

  get mine() {
    return this.data.curves.findIndex((curve) => this.run.groups[this.by][curve.name].includes(this.image));
  }

  async draw() {
    const some = this.data.curves.some((curve) => curve.t.length);
    this.div.hidden = !some;
    if (!some) return;
    const Plotly = await plotly(this.run.plotly);
    const last = Math.max(...this.data.curves.map((curve) => curve.time_s.at(-1) ?? 0));
    this.scale = axisOf(last);
    const rows = ROWS.filter((row) => this.data.curves.some((curve) => curve[row.key].some((value) => value !== null)));
    const traces = rows.flatMap((row, number) => this.traces(row, number));
    await Plotly.react(this.div, traces, this.layout(rows), CONFIG);
    if (!this.listening) {
      this.div.on("plotly_click", (event) => { const t = event.points[0]?.customdata; if (t !== undefined) this.go(t); });
      this.listening = true;
    }
    if (!this.div.contains(this.line)) { this.line = $("now") ?? make("div", { id: "now" }); this.div.append(this.line); }
    this.drawNow(this.now);
  }

  traces(row, number) {
    const { curves } = this.data, few = curves.length <= FEW, mine = Math.max(0, this.mine), by = this.unit(row).by;
    const axes = { xaxis: "x", yaxis: number ? `y${number + 1}` : "y" };
    const order = curves.map((_, i) => i).sort((a, b) => (a === mine) - (b === mine)); // the chosen one on top
    return order.flatMap((i) => {
      const curve = curves[i], colour = few ? PALETTE[i] : i === mine ? PALETTE[0] : FAINT;
      const x = curve.time_s.map((s) => (s === null ? null : s / this.scale.by)), y = curve[row.key].map((v) => (v === null ? null : v / by));
      const found = [];
      if (few || i === mine) {
        const sd = row.sd && curve[row.sd];
        const low = sd ? curve[row.key].map((v, k) => bound(v, sd[k], -1, by)) : row.low && curve[row.low].map((v) => (v === null ? null : v / by));
        const high = sd ? curve[row.key].map((v, k) => bound(v, sd[k], 1, by)) : row.high && curve[row.high].map((v) => (v === null ? null : v / by));
        if (low) found.push(band(x, low, high, colour, axes));
      }
      const one = x.length < 2 ? "markers" : "lines";
      found.push({ x, y, customdata: curve.t, mode: one, name: curve.name, showlegend: number === 0, legendrank: i, line: { color: colour, width: few || i === mine ? 1.8 : 0.8 },
        marker: { color: colour, size: 5 }, hovertemplate: `%{y:.4~g} ${row.mass ? this.unit(row).name : row.key === "viability" ? "%" : "cells"}<br>%{x:.3~g} ${this.scale.unit}<extra>${curves.length > 1 ? escaped(curve.name) : ""}</extra>`, ...axes });
      return found;
    });
  }

  unit(row) {
    if (!row.mass) return { by: row.by ?? 1, name: "" };
    const most = Math.max(...this.data.curves.flatMap((curve) => curve[row.key].filter((v) => v !== null)));
    return most >= 1e6 ? { by: 1e6, name: "µg" } : most >= 1e3 ? { by: 1e3, name: "ng" } : { by: 1, name: "pg" };
  }

  get legend() { return this.data.curves.length > 1 && this.data.curves.length <= FEW; }

  layout(rows) {
    const height = 1 / rows.length, gap = 0.065;
    const found = sheet({ margin: { l: 44, r: 10, t: 4 + (this.legend ? 18 : 0), b: 34 }, height: 92 * rows.length + 50 + (this.legend ? 18 : 0), annotations: [] });
    found.xaxis = axis({ anchor: rows.length > 1 ? `y${rows.length}` : "y", title: { text: `time (${this.scale.unit})`, font: { size: 11 }, standoff: 4 }, rangemode: "tozero", nticks: 7 });
    rows.forEach((row, i) => {
      const top = 1 - i * height, fields = this.data.curves.some((curve) => curve.fields > 1);
      const tops = row.key === "viability" ? { range: this.viabilityRange() } : { rangemode: "tozero" };
      found[i ? `yaxis${i + 1}` : "yaxis"] = axis({ domain: [Math.max(0, top - height + 0.012), top - gap], nticks: 4, ...tops });
      const unit = row.mass ? ` (${this.unit(row).name}${row.sd ? " ± sd" : ""}${fields && row.key.startsWith("median") ? ", mean of fields" : ""})` : row.band ? `, ${row.band}` : "";
      found.annotations.push({ text: row.label + unit, x: 0, y: top - gap + 0.004, xref: "paper", yref: "paper", xanchor: "left", yanchor: "bottom", showarrow: false, font: { size: 11, color: "#c3ccd5" } });
    });
    found.showlegend = this.legend;
    found.legend = { orientation: "h", x: 0, xanchor: "left", y: 1, yanchor: "bottom", font: { size: 10 }, bgcolor: "rgba(0,0,0,0)", itemclick: false, itemdoubleclick: false };
    return found;
  }

  viabilityRange() {
    const lows = this.data.curves.flatMap((curve) => curve.viability_low.filter((v) => v !== null));
    return [Math.max(0, Math.floor(10 * Math.min(...lows) - 0.001) * 10), 102];
  }

  /** Mark the time that is looked at; a line of our own, since plotly would draw everything again. */
  drawNow(time_s) {
    this.now = time_s;
    const axes = this.div._fullLayout;
    if (!this.line || !axes?.xaxis) return;
    const there = time_s !== null && time_s !== undefined && this.scale;
    const left = there ? axes.xaxis.l2p(time_s / this.scale.by) : -1;
    this.line.style.top = `${axes.margin.t}px`;
    this.line.hidden = !(left >= 0 && left <= axes.xaxis._length);
    this.line.style.transform = `translateX(${axes.margin.l + left}px)`;
  }
}

const bound = (value, sd, sign, by) => (value === null ? null : (value + sign * (sd ?? 0)) / by);
const escaped = (text) => text.replace(/[&<>]/g, (sign) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;" })[sign]);

/** The large figures: of the time point that is looked at. */
export function drawFigures(found, measured, time_s) {
  const row = found?.summary;
  $("figures").hidden = !row;
  $("cells-when").textContent = row ? `at ${span(time_s)}` : "";
  if (!row) {
    $("cells-note").textContent = measured.t >= 0 ? `The cells of this time point are not measured yet; those up to t = ${measured.t} are.` : measured.ended ? "No cell of this run is measured: `livestain measure` can do it from disk." : "No cell is measured yet: a time point is done once a few later ones are there.";
    return;
  }
  const interval = row.viability === null ? null : `${Math.round(100 * row.viability_low)} to ${Math.round(100 * row.viability_high)} %`;
  const tile = (name, value, more) => make("div", {}, make("dt", {}, name), make("dd", {}, value, more ? make("small", {}, more) : null));
  $("figures").replaceChildren(
    tile("cells", count(row.cells), row.gaps ? `${row.gaps} of them not seen just now` : null),
    tile("viability", percent(row.viability), interval ? `95 % interval ${interval}` : null),
    tile("total dry mass", mass(row.total_dry_mass_pg, row.total_dry_mass_sd_pg), row.total_dry_mass_pg === null ? null : `${row.cells - row.cells_without_mass} cells, cut ones too`),
    tile("median of a cell", mass(row.median_dry_mass_pg, row.median_dry_mass_sd_pg), "whole cells only"));
  $("cells-note").textContent = [row.reason, row.total_dry_mass_pg === null && row.why_without_mass].filter(Boolean).join(" ");
}
