/**
 * The time zone of all times on the page: that of the factories, as their brain is configured, wherever
 * the screen hangs. Tariff periods and shifts are hours of that zone.
 * @module zone
 */

const HOUR_MS = 3_600_000;

let chosen = Intl.DateTimeFormat().resolvedOptions().timeZone;

/** @type {Map<string, Intl.DateTimeFormat>} making one is slow */
const made = new Map();

/**
 * @param {string|undefined} name as the aggregator tells it; one that this browser does not know changes nothing
 * @returns {boolean} whether times are shown otherwise from now on
 */
export function useZone(name) {
  if (!name || name === chosen || !known(name)) return false;
  chosen = name;
  made.clear();
  return true;
}

function known(name) {
  try {
    return Boolean(new Intl.DateTimeFormat("en", { timeZone: name }));
  } catch {
    return false;
  }
}

/** @returns {string} its name */
export function zone() {
  return chosen;
}

/**
 * @param {string} locale
 * @param {Intl.DateTimeFormatOptions} options
 * @returns {Intl.DateTimeFormat} one that shows times in the zone
 */
export function shape(locale, options) {
  const key = JSON.stringify([locale, options]);
  if (!made.has(key)) made.set(key, new Intl.DateTimeFormat(locale, { ...options, timeZone: chosen }));
  return made.get(key);
}

/**
 * @param {number} ms moment
 * @returns {string} its local day
 */
export function dayOf(ms) {
  return shape("en-GB", { year: "numeric", month: "2-digit", day: "2-digit" }).format(ms);
}

/**
 * @param {number} ms moment
 * @returns {string} its local year
 */
export function yearOf(ms) {
  return shape("en-GB", { year: "numeric" }).format(ms);
}

/**
 * @param {number} ms moment
 * @returns {number} seconds by which local time is ahead of UTC then
 */
export function offsetS(ms) {
  const parts = shape("en-GB", {
    year: "numeric", month: "numeric", day: "numeric", hour: "numeric", minute: "numeric", second: "numeric", hourCycle: "h23",
  }).formatToParts(ms);
  const of = Object.fromEntries(parts.map(({ type, value }) => [type, Number(value)]));
  const local = Date.UTC(of.year, of.month - 1, of.day, of.hour, of.minute, of.second);
  return Math.round((local - Math.floor(ms / 1000) * 1000) / 1000);
}

/**
 * @param {number} ms moment
 * @returns {string} such as "UTC+8"
 */
export function offsetText(ms) {
  const hours = (offsetS(ms) * 1000) / HOUR_MS;
  const [whole, rest] = [Math.trunc(Math.abs(hours)), Math.round((Math.abs(hours) % 1) * 60)];
  return `UTC${hours < 0 ? "−" : "+"}${whole}${rest ? `:${String(rest).padStart(2, "0")}` : ""}`;
}
