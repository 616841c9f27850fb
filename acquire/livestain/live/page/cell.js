// One cell: what it is now, where it came from, what became of it.

import { api, json } from "./api.js";
import { make } from "./channels.js";
import { $ } from "./health.js";
import { axis, band, CONFIG, plotly, sheet } from "./plots.js";
import { STATE_COLOURS } from "./viewer.js";
import { axisOf, digits, mass, span } from "./units.js";

export class Cell {
  /** `go(cell, t)` shows another cell at a time point of its life; `closed` is called when it is put away. */
  constructor(run, { go, closed }) {
    Object.assign(this, { run, go, closed });
    this.section = $("cell");
  }

  async show(image, t, cell) {
    this.asked = cell;
    let found;
    try {
      found = await json(api(`cell/${image}/${t}/${cell}`));
    } catch (error) {
      if (this.asked === cell) this.say(`Cell ${cell}: ${error.message}`);
      return;
    }
    if (this.asked !== cell) return;
    Object.assign(this, { found, image });
    this.draw(t);
    await this.drawHistory();
  }

  hide() {
    this.asked = this.found = null;
    this.section.hidden = true;
    this.closed();
  }

  say(sentence) {
    this.section.hidden = false;
    this.section.replaceChildren(this.head(sentence));
  }

  head(title) {
    return make("h2", {}, title, make("button", { class: "close", "aria-label": "Close the cell", onclick: () => this.hide() }, "\u00D7"));
  }

  draw(t) {
    const { found } = this, { columns } = found;
    let at = columns.t.findIndex((other) => other >= t);
    if (at < 0) at = columns.t.length - 1;
    const relative = (name, list) => make("div", {}, make("dt", {}, name), make("dd", {}, ...(list.length ? list.map((other) =>
      make("button", { class: "link", onclick: () => this.go(other.cell, other.t) }, `cell ${other.cell}`)) : ["none known"])));
    const fact = (name, value) => make("div", {}, make("dt", {}, name), make("dd", {}, value));
    const state = columns.state[at] || "state not known", t0 = columns.time_s[0], t1 = columns.time_s.at(-1);
    this.section.hidden = false;
    this.section.replaceChildren(
      this.head(`Cell ${found.cell}`),
      make("dl", { class: "facts" },
        make("div", {}, make("dt", {}, "state"), make("dd", {}, make("i", { class: "dot", style: `background:${STATE_COLOURS[columns.state[at]]}` }), state)),
        fact("dry mass", mass(columns.dry_mass_pg[at], columns.dry_mass_sd_pg[at], found.unit)),
        fact("area", columns.area_um2[at] === null ? "not known" : `${digits(columns.area_um2[at])} µm²`),
        fact("seen", `${span(t0)} – ${span(t1)}`),
        relative("mother", found.mother ? [found.mother] : []),
        relative("daughters", found.daughters)),
      make("p", { class: "quiet" }, [columns.gap[at] && "Not seen at this time point: its place is interpolated.", columns.at_border[at] && "Cut off by the border: the mass is of the part in the field.", columns.reason[at] && `No value where there is none: ${columns.reason[at]}.`].filter(Boolean).join(" ")),
      make("div", { id: "history", role: "img", "aria-label": `Dry mass of cell ${found.cell} over time, coloured by its state` }));
  }

  async drawHistory() {
    const { columns, unit } = this.found, Plotly = await plotly(this.run.plotly), div = $("history");
    if (!div || !this.found) return;
    const known = columns.dry_mass_pg.some((value) => value !== null);
    const values = known ? columns.dry_mass_pg : columns.area_um2, axes = { xaxis: "x", yaxis: "y" };
    const ends = columns.time_s.filter((s) => s !== null), scale = axisOf(ends.at(-1) ?? 0);
    const x = columns.time_s.map((s) => (s === null ? null : s / scale.by));
    const shift = (sign) => values.map((v, i) => (v === null ? null : v + sign * (columns.dry_mass_sd_pg[i] ?? 0)));
    const traces = known ? [band(x, shift(-1), shift(1), "#9aa7b4", axes)] : [];
    traces.push({ x, y: values, mode: "lines+markers", line: { color: "#5b6773", width: 1.2 }, customdata: columns.t, text: columns.state,
      marker: { size: values.length > 400 ? 3 : 5, color: columns.state.map((s) => STATE_COLOURS[s] ?? STATE_COLOURS[""]) },
      hovertemplate: `%{y:.4~g} ${known ? (unit === "pg" ? "pg" : "") : "µm²"}, %{text}<br>%{x:.3~g} ${scale.unit}<extra></extra>` });
    const title = known ? `dry mass (${unit})` : "area (µm²)";
    const layout = sheet({ height: 150, margin: { l: 44, r: 10, t: 18, b: 34 },
      xaxis: axis({ title: { text: `time (${scale.unit})`, font: { size: 11 }, standoff: 4 }, nticks: 7 }), yaxis: axis({ nticks: 5, rangemode: "tozero" }),
      annotations: [{ text: title, x: 0, y: 1.02, xref: "paper", yref: "paper", xanchor: "left", yanchor: "bottom", showarrow: false, font: { size: 11, color: "#c3ccd5" } }] });
    await Plotly.react(div, traces, layout, CONFIG);
    div.on("plotly_click", (event) => { const t = event.points[0]?.customdata; if (t !== undefined) this.go(this.found.cell, t); });
  }
}
