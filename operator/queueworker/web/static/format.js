// Numbers and times as people read them, and the words for states.

export const NONE = "–";

export const LEVELS = {
  error: { glyph: "✕", word: "not working", rank: 0 },
  warning: { glyph: "▲", word: "impaired", rank: 1 },
  ok: { glyph: "●", word: "working", rank: 2 },
  off: { glyph: "○", word: "off", rank: 3 },
};

export const EXECUTORS = {
  h: { glyph: "●", word: "healthy", state: "Healthy", level: "ok" },
  w: { glyph: "◐", word: "warming up", state: "WarmingUp", level: "ok" },
  s: { glyph: "▲", word: "silent", state: "Silent", level: "warning" },
  e: { glyph: "✕", word: "ejected", state: "Ejected", level: "error" },
  u: { glyph: "✕", word: "unhealthy", state: "Unhealthy", level: "error" },
  c: { glyph: "○", word: "not checked yet", state: "Unchecked", level: "off" },
  l: { glyph: "○", word: "leaving", state: "Leaving", level: "off" },
};

export const byState = Object.fromEntries(Object.values(EXECUTORS).map((found) => [found.state, found]));

/** The same items, those of the worst level first, otherwise in their order. `found` gives what has the level. */
export function worstFirst(items, found) {
  return [...items].sort((a, b) => LEVELS[found(a).level].rank - LEVELS[found(b).level].rank);
}

const whole = new Intl.NumberFormat("en");

export function count(value) {
  return value === null || value === undefined ? NONE : whole.format(Math.round(value));
}

/** Seconds: 12 ms, 3.2 s, 4 min. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return NONE;
  if (seconds < 0.0095) return `${(seconds * 1000).toFixed(1)} ms`;
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 99.95) return `${Number(seconds.toFixed(1))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return seconds < 129600 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86400)} d`;
}

/** A Unix time as its age; `now` is the server's Unix time. */
export function ago(time, now) {
  if (time === null || time === undefined) return NONE;
  const seconds = Math.max(0, now - time);
  return seconds < 1 ? "now" : `${duration(Math.floor(seconds))} ago`;
}

export function clock(date) {
  return date.toLocaleTimeString("en-GB");
}

export function lastLine(error) {
  const lines = error.trim().split("\n");
  return lines[lines.length - 1].trim();
}

export function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}
