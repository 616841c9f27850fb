// Numbers with their units, as people write them.

const pad = (n) => String(n).padStart(2, "0");

/** A span of time: "12.5 s", "40 min", "4 h 20 min", "3 d 4 h". */
export function span(seconds) {
  if (seconds === null || seconds === undefined || !isFinite(seconds)) return "unknown";
  const s = Math.abs(seconds), sign = seconds < 0 ? "−" : "";
  if (s === 0) return "0 s";
  if (s < 99.95) return `${sign}${s < 9.995 ? s.toFixed(1) : s.toFixed(0)} s`;
  const min = Math.round(s / 60);
  if (min < 100) return `${sign}${min} min`;
  if (min < 48 * 60) return `${sign}${Math.floor(min / 60)} h ${pad(min % 60)} min`;
  const hours = Math.round(min / 60);
  return `${sign}${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** How long a run is, as the axis of a plot: the divisor of seconds, and the unit's name. */
export function axisOf(seconds) {
  if (seconds < 120) return { by: 1, unit: "s" };
  if (seconds < 2 * 3600) return { by: 60, unit: "min" };
  if (seconds < 4 * 86400) return { by: 3600, unit: "h" };
  return { by: 86400, unit: "d" };
}

/** A number to so many digits, without an exponent. */
export function digits(value, n = 3) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  const places = Math.max(0, n - 1 - Math.floor(Math.log10(Math.abs(value))));
  return value.toFixed(Math.min(places, 6));
}

/** A dry mass, with the unit that suits it: pg, ng or µg; a relative one keeps its own. */
export function mass(value, sd = null, unit = "pg") {
  if (value === null || value === undefined) return "not known";
  let by = 1, name = unit;
  if (unit === "pg" && Math.abs(value) >= 1e6) [by, name] = [1e6, "µg"];
  else if (unit === "pg" && Math.abs(value) >= 1e3) [by, name] = [1e3, "ng"];
  if (sd === null || !(sd > 0)) return `${digits(value / by)} ${name}`;
  // As many decimals as the second digit of the deviation has.
  const places = Math.min(4, Math.max(0, 1 - Math.floor(Math.log10(sd / by))));
  return `${(value / by).toFixed(places)} ± ${(sd / by).toFixed(places)} ${name}`;
}

export function bytes(n) {
  if (n >= 1e12) return `${digits(n / 1e12)} TB`;
  if (n >= 1e9) return `${digits(n / 1e9)} GB`;
  return `${digits(n / 1e6)} MB`;
}

export const ms = (value) => (value === null || value === undefined ? "–" : `${digits(value, value < 1 ? 1 : 3)} ms`);
export const percent = (share) => (share === null || share === undefined ? "not known" : `${(100 * share).toFixed(0)} %`);
export const count = (n) => n.toString().replace(/\B(?=(\d{3})+$)/g, "\u202f");
export const length = (um) => (um >= 1000 ? `${um / 1000} mm` : um >= 1 ? `${um} µm` : `${Math.round(um * 1000)} nm`);

/** A moment on the clock of whoever looks: the time today, with the date on other days. */
export function clock(iso) {
  const at = new Date(iso);
  if (!iso || isNaN(at)) return "";
  const time = `${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}`;
  return at.toDateString() === new Date().toDateString() ? time : `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())} ${time}`;
}
