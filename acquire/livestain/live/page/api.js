// What is asked of the server.

let key = "";
export const useKey = (given) => { key = given; };
export const api = (path) => `api/${key}/${path}`;

/** Fetch JSON; an Error with the server's sentence where it has none to give. `missing` marks what is not there (yet). */
export async function json(address, signal) {
  return (await answer(address, signal)).json();
}

/** Fetch a plane: {data, height, width}. */
export async function plane(address, signal) {
  const got = await answer(address, signal);
  const [height, width] = got.headers.get("x-shape").split(",").map(Number);
  const buffer = await got.arrayBuffer();
  const size = buffer.byteLength / (height * width);
  const Kind = { 1: Uint8Array, 2: Uint16Array, 4: Uint32Array }[size];
  return { data: new Kind(buffer), height, width };
}

async function answer(address, signal) {
  const got = await fetch(address, { signal, credentials: "same-origin" });
  if (got.ok) return got;
  let sentence = `the server answered ${got.status}`;
  try { sentence = (await got.json()).error; } catch { /* it was no JSON */ }
  const error = new Error(sentence);
  error.missing = got.status === 404;
  throw error;
}

/** Follow the run: `tell` gets each message, `connected` whether there is a connection. Rests while the page is hidden. */
export function follow(tell, connected) {
  let source = null;
  const open = () => {
    source = new EventSource("api/events");
    source.onopen = () => connected(true);
    source.onerror = () => {
      connected(false);
      if (source && source.readyState === EventSource.CLOSED) setTimeout(() => { if (!document.hidden) { source.close(); open(); } }, 2000);
    };
    source.onmessage = (event) => tell(JSON.parse(event.data));
  };
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) { source?.close(); source = null; } else if (!source) open();
  });
  window.addEventListener("pagehide", () => { source?.close(); source = null; });
  window.addEventListener("pageshow", () => { if (!source && !document.hidden) open(); });
  open();
}
