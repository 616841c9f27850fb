// The page: what is looked at, and what happens when it changes. Everything is asked of this server, nothing of others.

import { api, follow, json, useKey } from "./api.js";
import { Cell } from "./cell.js";
import { Channels, make } from "./channels.js";
import { Curves, drawFigures } from "./curves.js";
import { fetchLabels, fetchPlanes, region } from "./frames.js";
import { $, drawGlance, drawHealth, drawState, nextText } from "./health.js";
import { Overview } from "./overview.js";
import { learn, rest } from "./rests.js";
import { clock, span } from "./units.js";
import { Viewer } from "./viewer.js";

const PLAY_EVERY_MS = 250; // four time points a second: the processor may be the run's
const PATIENCE_MS = 80; // that a picture waits for its outlines
const NEAR = 3; // a channel that is up to so many time points behind is on its way; one further behind is a rare one

const STATE_NOTES = {
  silent: ["This run has no end, and has given no sign of life for half a minute: it was killed, or this folder no longer hears of it. If it is over, `livestain recover` mends the folder and `livestain backfill` makes the predictions it owes."],
  errored: ["This run ended with an error; its cause is in run.log. What is on disk is shown."],
};

const look = { image: 0, t: -1, z: 0, live: true, playing: false, outlines: true, ids: false };
const known = { images: {}, rows: 0, times: [], health: null, cells: null };
let run, viewer, channels, curves, cell, overview;

// ------------------------------------------------------------ what there is

const images = (image = look.image) => known.images[image] ?? { n_t: 0, last: [], measured_t: -1 };

/** The newest time point at which the channels that are shown are there. */
function newest(image = look.image) {
  const { n_t, last } = images(image);
  const shown = channels.all.filter((channel) => channel.on).map((channel) => last[channel.number] ?? -1);
  const near = shown.filter((t) => t >= n_t - 1 - NEAR);
  return near.length ? Math.min(...near) : Math.max(n_t - 1, -1);
}

const timeAt = (t) => known.times[t] ?? null;

async function readTimes() {
  const image = look.image, since = known.times.length;
  if (since >= images().n_t) return;
  const more = await json(api(`times/${image}?since=${since}`));
  if (image === look.image && since === known.times.length) known.times.push(...more);
}

async function told(message) {
  learn(message.rests);
  Object.assign(known.images, message.images);
  known.rows = message.rows;
  known.health = message.health;
  drawNotes([...message.notes, ...(STATE_NOTES[message.health.state] ?? [])]);
  const health = JSON.stringify(message.health);
  if (health !== known.healthText) { drawState(message.health); drawHealth(message.health); }
  known.healthText = health;
  overview.renew(Object.keys(message.images));
  readTimes().then(() => { labelTime(); glance(); });
  const { n_t } = images();
  $("time").max = Math.max(0, n_t - 1);
  glance();
  const before = look.t;
  if (n_t && (look.live || look.t < 0)) go(newest());
  if (look.t === before && message.images[look.image]) refreshShown(message.images[look.image]);
  await rendering; // the picture first: plotly.js is large
  curves.update(known.rows, look.image);
}

const glance = () => known.health && drawGlance(known.health, { n_t: images().n_t, of: run.n_t, time_s: timeAt(images().n_t - 1) });

/** Something came at the time point that is shown: a plane that was missing, or its cells. */
function refreshShown() {
  const missing = channels.all.some((channel) => channel.on && channel.missing && (images().last[channel.number] ?? -1) >= look.t);
  const measured = images().measured_t >= look.t && !known.cells?.summary;
  if (missing || measured || look.t < 0) render();
}

function drawNotes(notes) {
  $("notes").hidden = !notes.length;
  $("notes").replaceChildren(...notes.map((note) => make("li", {}, note)));
}

// ------------------------------------------------------------ what is shown

/** Look at another time point, position or z. */
function go(t = look.t, { image = look.image, z = look.z } = {}) {
  const other = image !== look.image;
  if (!other && t === look.t && z === look.z) return;
  look.image = image;
  look.z = Math.min(z, run.images[image].n_z - 1);
  look.t = Math.min(Math.max(t, 0), Math.max(0, images().n_t - 1));
  if (other) {
    known.times = [];
    readTimes().then(() => { labelTime(); glance(); });
    cell.hide();
    drawPlace();
    drawDepth();
    curves.update(known.rows, image);
    $("time").max = Math.max(0, images().n_t - 1);
  }
  if (other || !moving()) labelTime(); // a hand sees at once where it is
  render();
}

/** Whether pictures follow one another by themselves: time and picture change in one paint then, for half the work. */
const moving = () => look.playing || look.live;

function labelTime() {
  $("time").value = look.t;
  const at = look.t < 0 ? "no picture yet" : timeAt(look.t) === null ? `t = ${look.t}` : span(timeAt(look.t));
  $("when").replaceChildren(make("b", {}, at), look.t < 0 ? "" : make("small", {}, `t = ${look.t}`));
  $("time").setAttribute("aria-valuetext", `time point ${look.t}, ${at} after the first frame`);
  $("live").setAttribute("aria-pressed", String(look.live));
  $("live").textContent = known.health && known.health.state !== "running" ? "Newest" : "Live";
  $("play").textContent = look.playing ? "\u275A\u275A" : "\u25B6";
  $("play").setAttribute("aria-label", look.playing ? "Pause" : "Play");
  curves?.drawNow(timeAt(look.t));
}

let rendering = null, again = false;

/** Fetch and draw what is looked at; while that goes on, only the newest wish is kept. */
function render() {
  again = true;
  rendering ??= (async () => {
    while (again) {
      await rest();
      again = false;
      try {
        await renderOnce();
      } catch (error) {
        $("message").textContent = `The picture could not be read: ${error.message}`;
        labelTime();
      }
    }
    rendering = null;
  })();
  return rendering;
}

async function renderOnce() {
  const { image, t, z } = look;
  if (t < 0 || !images().n_t) {
    labelTime();
    $("message").textContent = !known.health ? "" : known.health.state === "running" ? "There is no frame yet." : "This run has no frame.";
    return;
  }
  const r = region(run, viewer.window, viewer.density), shown = await channels.shown();
  const on = channels.all.filter((channel) => channel.on);
  const measured = images().measured_t >= t;
  const overlays = Promise.all([
    look.outlines && measured ? fetchLabels(image, t, r).catch(missingIsNull) : null,
    measured ? json(api(`cells/${image}/${t}`)).catch(missingIsNull) : null,
  ]);
  overlays.catch(() => {}); // it is awaited below, unless the planes fail first
  const planes = await fetchPlanes(image, t, z, shown, r);
  const inTime = await Promise.race([overlays, new Promise((done) => setTimeout(done, PATIENCE_MS))]);
  if (image !== look.image) { again = true; return; } // of another position: not shown for a moment even
  const there = planes.filter(Boolean);
  on.forEach((channel) => channels.mark(channel, !there.some((plane) => plane.channel === channel)));
  $("message").textContent = there.length ? "" : on.length ? "There is no picture of these channels at this time." : "No channel is switched on.";
  if (!inTime) viewer.overlay({ outlines: null, ids: null, chosen: null }); // those of another time would deceive
  viewer.show(there, r);
  if (moving()) labelTime();
  viewer.canvas.dataset.shown = `${image},${t},${z}`; // for tests
  const [labels, cells] = await overlays;
  if (image !== look.image) return;
  known.cells = cells;
  known.labels = labels && { labels, r, t };
  drawOverlays(labels, r);
  drawFigures(cells, { rows: known.rows, t: images().measured_t, ended: known.health?.state !== "running" }, timeAt(t));
}

function missingIsNull(error) {
  if (!error.missing) throw error;
  return null;
}

function drawOverlays(labels, r) {
  const columns = known.cells?.columns, states = new Map(columns?.cell.map((id, i) => [id, columns.state[i]]));
  viewer.setLabels(labels, r, (id) => states.get(id) ?? "");
  const um = run.pixel_size_um, i = columns && cell.asked ? columns.cell.indexOf(cell.asked) : -1;
  viewer.overlay({
    ids: look.ids && columns && um ? columns.cell.map((id, k) => ({ id, x: columns.x_um[k] / um, y: columns.y_um[k] / um })) : null,
    chosen: i >= 0 && um ? { x: columns.x_um[i] / um, y: columns.y_um[i] / um, radius: 24 } : null,
  });
}

/** A click: the cell under it, or none. */
async function pick({ x, y }) {
  if (images().measured_t < look.t) {
    cell.say("The cells of this time point are not measured yet.");
    return;
  }
  const { image, t } = look, at = { y: Math.floor(y), x: Math.floor(x), h: 1, w: 1, factor: 1 };
  if (at.x < 0 || at.y < 0 || at.x >= run.width || at.y >= run.height) return;
  try {
    const [id] = (await fetchLabels(image, t, at)).data;
    if (!id) cell.hide();
    else await show(id, t);
  } catch (error) {
    cell.say(error.message);
  }
}

async function show(id, t) {
  if (t !== look.t) { pause(); look.live = false; go(t); }
  cell.asked = id;
  drawOverlays(known.labels?.labels ?? null, known.labels?.r);
  await cell.show(look.image, t, id);
  await render();
  if (window.innerWidth > 900) $("cell").scrollIntoView({ block: "nearest" });
}

// ------------------------------------------------------------ hands

function pause() { look.playing = false; labelTime(); }

async function play() {
  look.playing = !look.playing;
  look.live = false;
  labelTime();
  while (look.playing) {
    const began = performance.now(), step = Number($("stride").value), last = newest();
    go(look.t >= last ? 0 : Math.min(last, look.t + step));
    await rendering;
    await new Promise((done) => setTimeout(done, Math.max(20, PLAY_EVERY_MS - (performance.now() - began))));
  }
}

function follow_live() {
  look.live = !look.live;
  look.playing = false;
  labelTime();
  if (look.live && images().n_t) go(newest());
}

const step = (by) => { pause(); look.live = false; labelTime(); go(look.t + by); };

function drawPlace() {
  $("place").hidden = run.images.length < 2;
  $("place").textContent = run.images[look.image].name;
  overview.mark(look.image);
}

function drawDepth() {
  const { n_z, z_step_um } = run.images[look.image];
  $("depth").hidden = n_z < 2;
  $("z").max = n_z - 1;
  $("z").value = look.z;
  const of = z_step_um ? `${((look.z - (n_z - 1) / 2) * z_step_um).toFixed(1).replace("-", "−")} µm` : "";
  $("z-where").textContent = `${look.z + 1} of ${n_z}${of ? `, ${of} from the middle` : ""}`;
}

const setZ = (z) => { if (run.images[look.image].n_z > 1) { go(look.t, { z: Math.max(0, z) }); drawDepth(); } };

function toggles() {
  const toggle = (name, label, title) => make("button", {
    class: "chip overlay", id: `toggle-${name}`, "aria-pressed": String(look[name]), title,
    onclick: (event) => { look[name] = !look[name]; event.currentTarget.setAttribute("aria-pressed", String(look[name])); render(); },
  }, label);
  $("channels").append(make("span", { class: "overlays" },
    toggle("outlines", "outlines", "Outlines of the cells: green live, orange injured, red dead, grey not known (O)"), toggle("ids", "ids", "Numbers of the cells (I)")));
}

function keys(event) {
  if (event.target.matches("input:not([type=range]), select, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
  const zoom = { "+": 1.5, "=": 1.5, "-": 1 / 1.5 }[event.key], far = event.shiftKey ? 10 : 1;
  const does = {
    " ": play, ArrowLeft: () => step(-far), ArrowRight: () => step(far), ArrowUp: () => setZ(look.z + 1), ArrowDown: () => setZ(look.z - 1),
    Home: () => step(-look.t), End: () => step(images().n_t), l: follow_live, o: () => $("toggle-outlines").click(), i: () => $("toggle-ids").click(),
    0: () => viewer.fit(), 1: () => viewer.full(), "[": () => other(-1), "]": () => other(1), Escape: () => { channels.adjust(null); cell.hide(); },
  }[event.key.length === 1 ? event.key.toLowerCase() : event.key] ?? (zoom && (() => viewer.zoom(zoom)));
  if (!does || (event.target.matches("button, a") && event.key === " ") || (event.target.id === "z" && event.key.startsWith("Arrow"))) return;
  if (event.key.startsWith("ArrowUp") && run.images[look.image].n_z < 2) return;
  if (event.key.startsWith("ArrowDown") && run.images[look.image].n_z < 2) return;
  event.preventDefault();
  does();
}

function other(by) {
  const n = run.images.length;
  go(look.live ? newest((look.image + by + n) % n) : look.t, { image: (look.image + by + n) % n });
}

function listen() {
  $("time").oninput = () => { look.live = false; look.playing = false; go(Number($("time").value)); };
  $("z").oninput = () => setZ(Number($("z").value));
  $("live").onclick = follow_live;
  $("play").onclick = play;
  $("zoom-in").onclick = () => viewer.zoom(1.5);
  $("zoom-out").onclick = () => viewer.zoom(1 / 1.5);
  $("zoom-fit").onclick = () => viewer.fit();
  $("zoom-full").onclick = () => viewer.full();
  document.addEventListener("keydown", keys);
  // A button that was clicked lets go of the keys, so that space plays; who walks with the tab key keeps it.
  document.addEventListener("click", (event) => { if (event.detail > 0) event.target.closest("button")?.blur(); });
  setInterval(() => {
    const text = $("next") && known.health?.next_event_at_ms ? nextText(known.health) : null;
    if (text !== null && text !== $("next").textContent) $("next").textContent = text; // the same again would be painted again
  }, 1000);
}

// ------------------------------------------------------------ begin

function connected(is) {
  const was = !document.body.classList.contains("lost");
  document.body.classList.toggle("lost", !is);
  if (!is) {
    $("state").textContent = "page not connected";
    $("state").className = "badge bad";
    known.healthText = null;
    $("state").title = "The server of this page does not answer: what is shown is what it said last. It is tried again.";
  } else if (!was) {
    json("api/run").then((found) => { if (found.key !== run.key) location.reload(); }).catch(() => {});
  }
}

async function begin() {
  // The token is in a cookie by now: out of the address, which people copy and show.
  if (location.search) history.replaceState(null, "", location.pathname);
  run = await json("api/run");
  useKey(run.key);
  document.title = `${run.name} · livestain`;
  $("name").textContent = run.name;
  $("name").title = run.name;
  $("about").textContent = [run.models.length ? `Stained by ${run.models.join(", ")}.` : "", run.started ? `Begun ${clock(run.started)}.` : "",
    run.pixel_size_um ? `${run.width} × ${run.height} px of ${run.pixel_size_um} µm.` : `${run.width} × ${run.height} px, pixel size not known: there is no scale bar.`,
    "This page only reads the run folder."].filter(Boolean).join(" ");
  let waiting;
  viewer = new Viewer($("canvas"), $("ruler"), {
    seen: () => { clearTimeout(waiting); waiting = setTimeout(() => look.t >= 0 && render(), 90); }, clicked: pick,
  });
  channels = new Channels($("channels"), $("contrast"), run, { changed: () => { render(); overview.renew(); }, place: () => look });
  toggles();
  curves = new Curves(run, { go: (t) => { pause(); look.live = false; go(t); } });
  cell = new Cell(run, { go: show, closed: () => viewer.overlay({ chosen: null }) });
  overview = new Overview(run, {
    newest, channels: () => channels.shown(), chosen: (image) => go(look.live ? newest(image) : look.t, { image }),
  });
  look.z = Math.floor(run.images[0].n_z / 2);
  drawPlace();
  viewer.begin(run);
  drawDepth();
  drawNotes(run.notes);
  listen();
  follow(told, connected);
  // On its way meanwhile; it is run only once the first picture is there, since that takes a while.
  if (run.measured) document.head.append(make("link", { rel: "preload", as: "script", href: `static/${run.plotly}` }));
}

begin().catch((error) => { $("message").textContent = `This page could not begin: ${error.message}`; });
