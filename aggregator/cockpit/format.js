/**
 * Numbers, times and spans as people read them, in the language shown.
 * @module format
 */

import { locale, t } from "./texts.js";
import { dayOf, shape, yearOf } from "./zone.js";

const SPANS = [
  ["d", 86400],
  ["h", 3600],
  ["min", 60],
];
const HOUR_MS = 3_600_000;
const DAY = { year: "numeric", month: "short", day: "numeric" };

/**
 * @param {number|string|null|undefined} value strings are whole numbers too large for JavaScript
 * @param {number} [digits] significant digits
 * @returns {string} the number, or "no data"
 */
export function number(value, digits = 9) {
  if (value === null || value === undefined) return t("noData");
  const exact = typeof value === "string" && /^-?\d+$/.test(value) ? BigInt(value) : Number(value);
  if (typeof exact === "number" && !Number.isFinite(exact)) return String(value);
  return new Intl.NumberFormat(locale(), { maximumSignificantDigits: digits }).format(exact);
}

/**
 * @param {number} part from 0 to 1
 * @returns {string} percent without decimals
 */
export function percent(part) {
  return new Intl.NumberFormat(locale(), { style: "percent" }).format(part);
}

const MOMENT = /\b(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d(?::\d\d)?)Z/g;

/**
 * @param {number} ms moment
 * @param {number} nowMs moments of another day get their date
 * @returns {string} local time to the second
 */
export function clock(ms, nowMs) {
  return shape(locale(), {
    ...(dayOf(ms) === dayOf(nowMs) ? {} : DAY),
    hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23",
  }).format(ms);
}

/**
 * @param {string} text made by the aggregator, whose moments are in UTC, such as `2026-01-05 08:00:00Z`
 * @param {number} nowMs moments of another day get their date
 * @returns {string} the same with moments in the factories' zone, as everywhere on the page
 */
export function localMoments(text, nowMs) {
  return text.replace(MOMENT, (found, day, time) => {
    const ms = Date.parse(`${day}T${time}Z`);
    return Number.isNaN(ms) ? found : clock(ms, nowMs);
  });
}

/**
 * @param {number} ms moment
 * @param {number} spanMs length of the axis it stands on
 * @returns {string} a short label for a time axis
 */
export function tick(ms, spanMs) {
  const day = { month: "short", day: "numeric" };
  const time = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
  const second = { ...time, second: "2-digit" };
  return shape(locale(), spanMs > 2 * 86400e3 ? day : spanMs > 1200e3 ? time : second).format(ms);
}

/**
 * @param {number} ms moment
 * @returns {string} local date
 */
export function date(ms) {
  return shape(locale(), DAY).format(ms);
}

/**
 * @param {number} seconds
 * @returns {string} such as "15 min"
 */
export function span(seconds) {
  const [unit, size] = SPANS.find(([, each]) => seconds >= each && seconds % each === 0) ?? ["s", 1];
  return t(`span.${unit}`, { n: number(seconds / size, 4) });
}

/**
 * @param {number} fromMs
 * @param {number} nowMs
 * @returns {string} such as "3 s ago"
 */
export function ago(fromMs, nowMs) {
  const seconds = Math.max(0, Math.floor((nowMs - fromMs) / 1000));
  const [unit, size] = SPANS.find(([, each]) => seconds >= 2 * each) ?? ["s", 1];
  return t(`ago.${unit}`, { n: Math.floor(seconds / size) });
}

const SCALES = {
  kWh: [["GWh", 1e6], ["MWh", 1e3]],
  "kg CO₂e": [["kt CO₂e", 1e6], ["t CO₂e", 1e3]],
};
const ENOUGH = 10; // a larger unit from ten of it on, so that digits are not lost

/**
 * @param {number} value
 * @param {string} unit
 * @returns {{text: string, unit: string}} four digits in the unit that suits them
 */
export function amount(value, unit) {
  const [name, size] = (SCALES[unit] ?? []).find(([, each]) => Math.abs(value) >= each * ENOUGH) ?? [unit, 1];
  return { text: number(value / size, 4), unit: name };
}

/**
 * @param {number} part from 0 to 1
 * @param {number} [decimals]
 * @returns {string} its percentage without the sign, for where the unit stands apart
 */
export function hundredths(part, decimals = 1) {
  const shape = { minimumFractionDigits: decimals, maximumFractionDigits: decimals };
  return new Intl.NumberFormat(locale(), shape).format(part * 100);
}

/**
 * @param {{start: number, end: number}} period
 * @param {number} nowMs
 * @returns {string} such as "5 Jan 16:00 – 6 Jan 16:00"; days only where they are not today, seconds
 *   and the year only where they matter
 */
export function between({ start, end }, nowMs) {
  const here = [start, end].every((ms) => dayOf(ms) === dayOf(nowMs));
  const year = [start, end].every((ms) => yearOf(ms) === yearOf(nowMs));
  const day = here ? {} : { ...(year ? {} : { year: "numeric" }), month: "short", day: "numeric" };
  const second = end - start < HOUR_MS || (start / 1000) % 60 !== 0 ? { second: "2-digit" } : {};
  const format = shape(locale(), { ...day, hour: "2-digit", minute: "2-digit", ...second, hourCycle: "h23" });
  return [start, end].map((ms) => format.format(ms)).join(" – ");
}
