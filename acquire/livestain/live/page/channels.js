// The row of channels: each with its switch, colour and contrast.

import { api, json } from "./api.js";
import { count } from "./units.js";

const WHITE_SHOWN_AS = "B4B8BC"; // white fields glare in a dark room, and leave a stain on them no room

/** Make an element: `make("b", {class: "x"}, "text", child)`. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

export class Channels {
  /** `changed` is called after anything did; `place()` says which plane the contrast is about. */
  constructor(row, panel, run, { changed, place }) {
    Object.assign(this, { row, panel, run, changed, place });
    this.all = run.channels.map((channel, number) => ({
      ...channel, number, on: channel.shown, missing: false, window: null,
      color: channel.kind === "camera" && channel.color === "FFFFFF" ? WHITE_SHOWN_AS : channel.color,
    }));
    this.more = false;
    this.draw();
  }

  /** Those that are shown and whose window is known; asks for what is not. */
  async shown() {
    const on = this.all.filter((channel) => channel.on);
    await Promise.all(on.filter((channel) => !channel.window).map((channel) => this.findWindow(channel)));
    return on.filter((channel) => channel.window);
  }

  async findWindow(channel) {
    const { image, t, z } = this.place();
    this.chosen ??= {};
    try {
      const window = (await (this.chosen[image] ??= json(api(`windows/${image}`))))[channel.number];
      if (!window) delete this.chosen[image]; // not chosen so far: asked again another time
      if (window) channel.window = { low: window[0], high: window[1] };
      else await this.auto(channel, { image, t, z });
      channel.first = channel.window;
    } catch (error) {
      if (!error.missing) throw error;
    }
  }

  async auto(channel, { image, t, z } = this.place()) {
    const levels = await json(api(`levels/${image}/${t}/${channel.number}/${z}`));
    channel.levels = levels;
    channel.window = { low: levels.low, high: levels.high };
  }

  mark(channel, missing) {
    if (channel.missing === missing) return;
    channel.missing = missing;
    this.draw();
  }

  draw() {
    const usual = this.all.filter((channel) => channel.shown || channel.on || this.more);
    const hidden = this.all.length - usual.length;
    const chips = usual.map((channel) => this.chip(channel));
    if (hidden || this.more) {
      chips.push(make("button", { class: "more", "aria-expanded": String(this.more), onclick: () => { this.more = !this.more; this.draw(); } },
        this.more ? "fewer" : `+ ${hidden} more`));
    }
    this.row.querySelectorAll(":scope > .chip, :scope > .more").forEach((old) => old.remove());
    this.row.prepend(...chips);
  }

  chip(channel) {
    const toggle = make("button", {
      class: "name", "aria-pressed": String(channel.on), title: channel.about || channel.name,
      onclick: () => { channel.on = !channel.on; this.draw(); this.changed(); },
    }, make("i", { style: `background:#${channel.color}` }), channel.name.replace(" (predicted)", ""),
    channel.kind === "camera" ? null : make("small", {}, "predicted"),
    channel.on && channel.missing ? make("small", { class: "amber" }, "not at this time") : null);
    const adjust = make("button", {
      class: "adjust", "aria-label": `Colour and contrast of ${channel.name}`, title: "Colour and contrast",
      "aria-expanded": String(this.open === channel), onclick: () => this.adjust(this.open === channel ? null : channel),
    }, "\u25BE");
    return make("div", { class: `chip${channel.on ? " on" : ""}` }, toggle, adjust);
  }

  // ------------------------------------------------------------ colour and contrast of one channel

  async adjust(channel) {
    this.open = channel;
    this.panel.hidden = !channel;
    this.draw();
    if (!channel) return;
    if (!channel.on) { channel.on = true; this.draw(); this.changed(); }
    this.panel.replaceChildren(make("p", {}, `${channel.name}: reading its grey levels`));
    try {
      const { image, t, z } = this.place();
      if (!channel.window) await this.findWindow(channel);
      channel.levels = await json(api(`levels/${image}/${t}/${channel.number}/${z}`));
      this.drawPanel(channel);
    } catch (error) {
      this.panel.replaceChildren(make("p", {}, `${channel.name}: ${error.message}`), this.closer());
    }
  }

  closer() {
    return make("button", { class: "close", "aria-label": "Close", onclick: () => this.adjust(null) }, "\u00D7");
  }

  drawPanel(channel) {
    const top = Math.ceil(Math.max(channel.levels.top, channel.window.high * 1.05));
    const set = (low, high) => {
      channel.window = { low: Math.min(low, high - 1), high: Math.max(high, low + 1) };
      this.drawPanelValues(channel, top);
      clearTimeout(this.waiting);
      this.waiting = setTimeout(() => this.changed(), 60);
    };
    const slider = (which, label) => make("label", {}, make("span", {}, label),
      make("input", { type: "range", min: 0, max: top, step: Math.max(1, Math.round(top / 1000)), "data-of": which, "aria-label": `${label}: grey level`,
        oninput: (event) => set(...(which === "low" ? [Number(event.target.value), channel.window.high] : [channel.window.low, Number(event.target.value)])) }),
      make("output", { "data-for": which }));
    this.panel.replaceChildren(
      make("div", { class: "head" }, make("b", {}, channel.name),
        make("label", { class: "colour" }, "colour", make("input", { type: "color", value: `#${channel.color}`, oninput: (event) => {
          channel.color = event.target.value.slice(1).toUpperCase(); this.draw(); this.changed();
        } })), this.closer()),
      make("canvas", { width: 256, height: 44, role: "img", "aria-label": `How often each grey level is, from 0 to ${top}` }),
      slider("low", "dark at"), slider("high", "full at"),
      make("div", { class: "buttons" },
        make("button", { onclick: async () => { await this.auto(channel); this.drawPanel(channel); this.changed(); } }, "Auto (this picture)"),
        make("button", { disabled: !channel.first, onclick: () => { set(channel.first.low, channel.first.high); } }, "As at first")));
    this.drawPanelValues(channel, top);
  }

  drawPanelValues(channel, top) {
    for (const which of ["low", "high"]) {
      this.panel.querySelector(`[data-of=${which}]`).value = channel.window[which];
      this.panel.querySelector(`[data-for=${which}]`).textContent = count(Math.round(channel.window[which]));
    }
    const canvas = this.panel.querySelector("canvas"), context = canvas.getContext("2d");
    const { counts, top: of } = channel.levels, most = Math.log1p(Math.max(...counts));
    context.clearRect(0, 0, canvas.width, canvas.height);
    const x = (level) => (level / top) * canvas.width;
    context.fillStyle = "#2a323b";
    context.fillRect(x(channel.window.low), 0, Math.max(1, x(channel.window.high) - x(channel.window.low)), canvas.height);
    context.fillStyle = `#${channel.color}`;
    counts.forEach((n, i) => {
      const high = (Math.log1p(n) / most) * (canvas.height - 2), wide = x(of / counts.length);
      context.fillRect(x((i * of) / counts.length), canvas.height - high, Math.max(1, wide - 0.5), high);
    });
  }
}
