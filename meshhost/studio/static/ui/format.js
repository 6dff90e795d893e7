/** Numbers, times and sizes as people read them, in the viewer's own language and time zone. A leaf. */

const NUMBER = new Intl.NumberFormat();
const RELATIVE = new Intl.RelativeTimeFormat(undefined, { numeric: "always", style: "narrow" });
const TIME = new Intl.DateTimeFormat(undefined, {
  year: "numeric",
  month: "short",
  day: "numeric",
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  timeZoneName: "short",
});
const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });

/** @param {number | null | undefined} value */
export const number = (value) => (value === null || value === undefined ? "–" : NUMBER.format(value));

/** The whole time, with its zone. @param {number} seconds since 1970 */
export const fullTime = (seconds) => TIME.format(seconds * 1000);

/** The time of day. @param {number} seconds since 1970 */
export const clockTime = (seconds) => CLOCK.format(seconds * 1000);

/** @type {[number, Intl.RelativeTimeFormatUnit][]} */
const UNITS = [
  [86_400, "day"],
  [3600, "hour"],
  [60, "minute"],
  [1, "second"],
];

/** Such as "3 min ago" or "in 2 hr". @param {number} seconds since 1970 @param {number} [now] seconds since 1970 */
export function relativeTime(seconds, now = Date.now() / 1000) {
  const distance = seconds - now;
  if (Math.abs(distance) < 1) return "now";
  for (const [size, unit] of UNITS) {
    if (Math.abs(distance) >= size) return RELATIVE.format(Math.trunc(distance / size), unit);
  }
  return "now";
}

/** Such as "850 ms", "12 s", "4 min 10 s". @param {number | null | undefined} seconds */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 1) return `${Math.max(0, Math.round(seconds * 1000))} ms`;
  if (seconds < 60) return `${seconds < 10 ? Math.round(seconds * 10) / 10 : Math.round(seconds)} s`;
  const parts = [
    [Math.floor(seconds / 86_400), "d"],
    [Math.floor(seconds / 3600) % 24, "h"],
    [Math.floor(seconds / 60) % 60, "min"],
    [Math.round(seconds % 60), "s"],
  ].filter(([value]) => value);
  return parts
    .slice(0, 2)
    .map(([value, unit]) => `${value} ${unit}`)
    .join(" ");
}

/** Such as "1.4 MB". @param {number | null | undefined} size */
export function bytes(size) {
  if (size === null || size === undefined) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let value = size;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit && value < 10 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

/** Such as "1 message", "2 messages". @param {number} count @param {string} one @param {string} [many] */
export const counted = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;

/** A JSON value as text for people. @param {unknown} value */
export function pretty(value) {
  return typeof value === "string" ? value : JSON.stringify(value, null, 2);
}

/** A JSON value on one line, cut. @param {unknown} value @param {number} [most] */
export function oneLine(value, most = 160) {
  const text = typeof value === "string" ? value : (JSON.stringify(value) ?? "");
  const line = text.slice(0, most * 2).replace(/\s+/g, " ");
  return line.length > most ? `${line.slice(0, most - 1)}…` : line;
}

/** What a traceback says in the end, which is what people look for. @param {string} text */
export function lastLine(text) {
  const lines = text.trimEnd().split("\n");
  const last = lines.findLast((line) => line && !/^\s/.test(line)) ?? "";
  return last || lines[lines.length - 1];
}
