// Figures as people read them.

const whole = new Intl.NumberFormat("en");

/** 1,234 */
export const count = (number) => whole.format(number);

/** 1 row, 2 rows */
export const counted = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;

/** Milliseconds: 0.04 ms, 84 ms, 1.2 s, 3 min. */
export function time(ms) {
  if (ms < 0.995) return `${ms < 0.001 ? 0 : ms.toPrecision(ms < 0.1 ? 1 : 2)} ms`;
  if (ms < 9.95) return `${ms.toFixed(1)} ms`;
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  if (ms < 59_950) return `${(ms / 1000).toFixed(1)} s`;
  return `${Math.round(ms / 60_000)} min`;
}

/** 336 KiB, 1.2 MiB */
export function bytes(number) {
  let unit = "B";
  for (const next of ["KiB", "MiB", "GiB"]) {
    if (number < 1024) break;
    number /= 1024;
    unit = next;
  }
  return `${number < 9.95 && unit !== "B" ? number.toFixed(1) : Math.round(number)} ${unit}`;
}

/** Per second: 0, 0.4, 12, 1,234 */
export function rate(number) {
  return number > 0 && number < 9.95 ? number.toFixed(1) : count(Math.round(number));
}

/** The sequence number in a bookmark. */
export function seqOf(bookmark) {
  return Number.parseInt(bookmark.split("-")[2], 16);
}

/** Long identifiers, short enough to tell apart. */
export const short = (id) => id.replace(/^0+(?=.)/, "").slice(0, 8);
