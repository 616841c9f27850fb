// How the run, the stain and the machine are.

import { make } from "./channels.js";
import { bytes, clock, count, ms, percent, span } from "./units.js";

const BOUNDARIES = {
  net_ms: ["network", "inside the network"],
  host_to_host_ms: ["memory → memory", "planes in memory to prediction in memory"],
  camera_to_screen_ms: ["camera → viewers", "frame in the core to prediction for viewers"],
  camera_to_disk_ms: ["camera → disk", "frame in the core to prediction on disk"],
};
const STATES = {
  running: ["running", "good"], silent: ["silent", "bad"], completed: ["completed", "done"],
  canceled: ["stopped early", "done"], errored: ["ended with an error", "bad"], recovered: ["recovered after a crash", "amber"],
};

export const $ = (id) => document.getElementById(id);

const fact = (name, value, title = null, kind = "") => make("div", { title, class: kind }, make("dt", {}, name), make("dd", {}, value));

export function drawState(health) {
  let [text, kind] = STATES[health.state] ?? [health.state, "amber"];
  if (health.phase === "ending") text = "ending";
  if (health.phase === "finishing") text = "finishing what is owed";
  $("state").textContent = text;
  $("state").className = `badge ${kind}`;
  $("state").title = "";
}

/** The line at the top: what one sees from the door. */
export function drawGlance(health, at) {
  const p99 = health.latency.camera_to_disk_ms;
  const facts = [fact("time point", at.n_t ? `${count(at.n_t)}${at.of ? ` of ${count(at.of)}` : ""}` : "none yet"), fact("since the start", span(at.time_s))];
  if (p99?.n) facts.push(fact("to disk, p99", ms(p99.p99), "camera to disk, predictions of the last five minutes"));
  facts.push(health.disk_full_in_s === null ? fact("disk free", bytes(health.disk_free_bytes)) : fact("disk full in", span(health.disk_full_in_s), `${bytes(health.disk_free_bytes)} free`));
  if (health.pending) facts.push(fact("predictions owed", count(health.pending), null, "amber"));
  if (health.missing) facts.push(fact("frames missing", count(health.missing), null, "bad"));
  $("glance").replaceChildren(...facts);
}

export function drawHealth(health) {
  const ended = health.state !== "running";
  const rows = Object.entries(BOUNDARIES).map(([key, [name, about]]) => {
    const found = health.latency[key];
    return make("tr", { title: about }, make("th", { scope: "row" }, name), make("td", {}, found?.n ? ms(found.p50) : "–"), make("td", {}, found?.n ? ms(found.p99) : "–"));
  });
  const n = health.latency.camera_to_disk_ms?.n ?? 0;
  $("latency").replaceChildren(
    make("caption", {}, `Latency of predictions, ${ended ? "the run's last" : "last"} five minutes (${count(n)})`),
    make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "from → to"), make("th", { scope: "col" }, "p50"), make("th", { scope: "col" }, "p99"))),
    make("tbody", {}, ...rows));
  const facts = [
    fact("frames acquired", `${count(health.acquired)}${health.expected ? ` of ${count(health.expected)}` : ""}`),
    fact("predictions", count(health.stained)),
    fact("predictions owed", count(health.pending), "raw frames on disk whose prediction is still to come", health.pending ? "amber" : ""),
    fact("frames that never came", count(health.missing), null, health.missing ? "bad" : ""),
    fact("frame rate", health.frames_per_s === null ? "not known" : `${health.frames_per_s.toPrecision(3)} frames/s`, "of the camera, last five minutes"),
    fact("newest frame", health.last_frame ? clock(health.last_frame) : "none yet"),
  ];
  if (health.disk_buffer !== null) facts.push(fact("waiting for the disk", `${health.waiting_for_disk} of ${health.disk_buffer} planes`, "how full the write buffer is", health.waiting_for_disk > health.disk_buffer / 2 ? "bad" : ""));
  if (health.camera_buffer_fill !== null) facts.push(fact("camera's buffer", `${percent(health.camera_buffer_fill)} full`, null, health.camera_buffer_fill > 0.5 ? "bad" : ""));
  facts.push(fact("disk free", bytes(health.disk_free_bytes)));
  if (!ended) facts.push(fact("disk full in", health.disk_full_in_s === null ? "not known" : span(health.disk_full_in_s), "at the present rate", health.disk_full_in_s !== null && health.disk_full_in_s < 86400 ? "amber" : ""));
  if (health.next_event_at_ms !== null) facts.push(make("div", {}, make("dt", {}, "next exposure"), make("dd", { id: "next" }, nextText(health))));
  $("counts").replaceChildren(...facts);
  const warnings = [...health.warnings].reverse();
  $("warnings").replaceChildren(...(warnings.length ? warnings.map((warn) => make("li", {}, make("time", { datetime: warn.time }, clock(warn.time) || "time unknown"), ` ${warn.text}`)) : [make("li", { class: "quiet" }, "none")]));
}

export const nextText = (health) => {
  const in_s = (health.next_event_at_ms - Date.now()) / 1000;
  return in_s < 0.5 ? "now" : `in ${in_s < 10 ? `${Math.ceil(in_s)} s` : span(in_s)}`;
};
