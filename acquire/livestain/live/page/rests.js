// When the page asks and draws: while the run rests between two frames, so that on the run's own computer it makes none late.

const MISSED = 3; // rests of which nothing was heard: the run has ended, or no longer keeps to its rhythm

let known = null;

/** Keep what the server tells of the run's rests: {since_s, room_s, interval_s}; null where there is nothing to wait for. */
export function learn(rests) {
  known = rests && { began_ms: performance.now() - 1e3 * rests.since_s, room_ms: 1e3 * rests.room_s, interval_ms: 1e3 * rests.interval_s };
}

/** Wait for a moment at which a picture may be begun. */
export async function rest() {
  if (!known) return;
  const { began_ms, room_ms, interval_ms } = known, age = performance.now() - began_ms, since = age % interval_ms;
  if (age > MISSED * interval_ms || since <= room_ms) return;
  await new Promise((done) => setTimeout(done, interval_ms - since));
}
