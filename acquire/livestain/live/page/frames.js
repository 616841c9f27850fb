// A picture: the planes of the channels that are shown, fetched and added up in their colours.

import { api, plane } from "./api.js";

const MOST_PIXELS = 1.6e6; // a larger field is fetched in the part that is seen

/** The part of the field to fetch for what is seen, and how far the server averages it down. */
export function region(run, seen, pixelsPerPixel) {
  const factor = Math.min(256, Math.max(1, Math.floor(1 / pixelsPerPixel + 1e-6)));
  const whole = { y: 0, x: 0, h: run.height, w: run.width, factor };
  if ((run.height / factor) * (run.width / factor) <= MOST_PIXELS) return whole;
  const step = 128 * factor; // few different addresses, so that the browser's cache has them again
  const y = Math.max(0, Math.floor(seen.y / step) * step), x = Math.max(0, Math.floor(seen.x / step) * step);
  const bottom = Math.min(run.height, Math.ceil((seen.y + seen.h) / step) * step);
  const right = Math.min(run.width, Math.ceil((seen.x + seen.w) / step) * step);
  return { y, x, h: Math.max(1, bottom - y), w: Math.max(1, right - x), factor };
}

const part = (r) => `y=${r.y}&x=${r.x}&h=${r.h}&w=${r.w}&factor=${r.factor}`;

/** Fetch the planes of one time point: [{channel, data, height, width}], null in place of one that is not there. */
export function fetchPlanes(image, t, z, channels, r, signal) {
  return Promise.all(channels.map(async (channel) => {
    const { low, high } = channel.window;
    const address = api(`plane/${image}/${t}/${channel.number}/${z}?low=${low}&high=${high}&${part(r)}`);
    try {
      return { channel, ...(await plane(address, signal)) };
    } catch (error) {
      if (error.missing) return null;
      throw error;
    }
  }));
}

export const fetchLabels = (image, t, r, signal) => plane(api(`labels/${image}/${t}?${part(r)}`), signal);

/** Add the planes up, light on light, into a canvas of their size. */
export function blend(planes, canvas) {
  const { height, width } = planes[0];
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d", { alpha: false });
  const picture = context.createImageData(width, height);
  const out = new Uint32Array(picture.data.buffer); // little-endian: alpha, blue, green, red
  const tables = planes.map(({ channel }) => tint(channel.color));
  const greys = planes.map(({ data }) => data);
  if (greys.length === 1) {
    const [grey] = greys, [table] = tables;
    for (let i = 0; i < out.length; i++) out[i] = table.all[grey[i]];
  } else if (greys.length === 2) {
    const [grey, other] = greys, [a, b] = tables;
    for (let i = 0; i < out.length; i++) out[i] = added(a.all[grey[i]], b.all[other[i]]);
  } else {
    for (let i = 0; i < out.length; i++) {
      let sum = tables[0].all[greys[0][i]];
      for (let k = 1; k < greys.length; k++) sum = added(sum, tables[k].all[greys[k][i]]);
      out[i] = sum;
    }
  }
  context.putImageData(picture, 0, 0);
}

/** Add two pixels, each colour clipped at 255. */
function added(a, b) {
  const blueRed = (a & 0xff00ff) + (b & 0xff00ff), green = (a & 0xff00) + (b & 0xff00);
  const red = blueRed & 0x1ff, blue = (blueRed >>> 16) & 0x1ff, g = green >>> 8;
  return (0xff000000 | ((blue > 255 ? 255 : blue) << 16) | ((g > 255 ? 255 : g) << 8) | (red > 255 ? 255 : red)) >>> 0;
}

const tables = new Map();

/** Each grey level in a colour. */
function tint(color) {
  if (!tables.has(color)) {
    const [red, green, blue] = [0, 2, 4].map((i) => parseInt(color.slice(i, i + 2), 16) / 255);
    const all = new Uint32Array(256);
    for (let g = 0; g < 256; g++) all[g] = (0xff000000 | (Math.round(g * blue) << 16) | (Math.round(g * green) << 8) | Math.round(g * red)) >>> 0;
    tables.set(color, { all });
  }
  return tables.get(color);
}

/** The outlines of a label image as lines between pixels, in pixels of the camera, by the cells' states. */
export function outline(labels, r, stateOf) {
  const { data, height, width } = labels, paths = {};
  const pathOf = (id) => (paths[stateOf(id)] ??= new Path2D());
  const f = r.factor;
  for (let y = 0; y < height; y++) { // between a row and the one above it
    const row = y * width;
    for (let x = 0; x < width; x++) {
      const below = data[row + x], above = y ? data[row - width + x] : below;
      if (below === above) continue;
      const start = x;
      while (x + 1 < width && data[row + x + 1] === below && data[row - width + x + 1] === above) x++;
      const path = pathOf(below || above);
      path.moveTo(r.x + start * f, r.y + y * f);
      path.lineTo(r.x + (x + 1) * f, r.y + y * f);
    }
  }
  for (let x = 1; x < width; x++) { // between a column and the one to its left
    for (let y = 0; y < height; y++) {
      const right = data[y * width + x], left = data[y * width + x - 1];
      if (right === left) continue;
      const start = y;
      while (y + 1 < height && data[(y + 1) * width + x] === right && data[(y + 1) * width + x - 1] === left) y++;
      const path = pathOf(right || left);
      path.moveTo(r.x + x * f, r.y + start * f);
      path.lineTo(r.x + x * f, r.y + (y + 1) * f);
    }
  }
  return paths;
}
