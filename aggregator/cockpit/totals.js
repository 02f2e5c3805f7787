/**
 * Energy and carbon of what is chosen, per step of the chosen period.
 *
 * Only main meters count: sub-meters, PV and export are in them already. Of carbon, methods stand
 * apart: location-based and market-based tell the same carbon twice, superseded results a third time.
 * @module totals
 */

import { each, steps } from "./api.js";
import { periodOf, spread, sumOf, windowOf } from "./model.js";

/** More than this many series are not added up here. */
export const MOST_SERIES = 400;

/**
 * @typedef {object} Column one series over the period
 * @property {import("./model.js").Series} series
 * @property {(number|null)[]} values per step
 * @property {(number|null)[]} seconds per step, how much of it is covered
 * @property {number|null} total
 * @property {number|null} tce the same energy in tce
 */

/**
 * @typedef {object} Totals
 * @property {{start: number, end: number, stepS: number, count: number}} period
 * @property {Column[]} energy of main meters, all media
 * @property {Column[]} carbon of scope 1 and 2, all methods
 * @property {boolean} cut whether there were too many series
 * @property {Map<string, number>} began when the first release sheet of a firm came, ms, where that is known
 */

const isMain = ({ measurement, tags, time }) =>
  measurement === "ff_energy" && time !== null && ["main", ""].includes(tags.meter_role ?? "");
const isCarbon = ({ measurement, tags, time }) =>
  measurement === "ce_emission" && time !== null && ["location", "market", "direct"].includes(tags.method);

/**
 * @param {import("./model.js").Series[]} series in scope
 * @returns {{main: object[], carbon: object[], times: (string|null)[], cut: boolean}}
 */
export function countedIn(series) {
  const main = series.filter(isMain);
  const carbon = series.filter(isCarbon);
  const cut = main.length > MOST_SERIES || carbon.length > MOST_SERIES;
  const times = [...main, ...carbon].map((one) => one.time);
  return { main: main.slice(0, MOST_SERIES), carbon: carbon.slice(0, MOST_SERIES), times, cut };
}

/**
 * @param {ReturnType<typeof countedIn>} counted
 * @param {string} range
 * @param {any[]} agents
 * @returns {Promise<Totals|null>} null where nothing is metered
 */
export async function loadTotals({ main, carbon, cut }, range, agents) {
  const all = [...main, ...carbon];
  if (all.length === 0) return null;
  const newest = Math.max(...all.map((one) => Date.parse(one.time)));
  const period = periodOf(range, newest, Math.min(...all.map(windowOf)));
  const load = (field, ...more) => async (series) => {
    const answer = await steps(series.id, [field, "window_s", ...more], period);
    const values = spread(answer, field, period);
    const tce = added(spread(answer, "energy_tce", period));
    return { series, values, seconds: spread(answer, "window_s", period), total: added(values), tce };
  };
  const energy = await each(main, load("energy", "energy_tce"));
  const began = beginnings(agents);
  return { period, cut, began, energy, carbon: await each(carbon, load("co2e_kg")) };
}

/**
 * @param {(number|null)[]} values
 * @returns {number|null} their sum; null where there is none
 */
export function added(values) {
  const there = values.filter((value) => value !== null);
  return there.length ? there.reduce((a, b) => a + b, 0) : null;
}

/**
 * @param {Column[]} columns
 * @param {number} count
 * @returns {(number|null)[]} their sum per step
 */
export function together(columns, count) {
  return sumOf([new Array(count).fill(null), ...columns.map((column) => column.values)]);
}

/** Before a firm's first release sheet nothing of it was expected. */
function beginnings(agents) {
  const began = new Map();
  for (const { name, factory, sheets, sheet_count: count } of agents) {
    if (count > sheets.length) continue;
    const first = Math.min(...sheets.map((sheet) => Date.parse(sheet.received)));
    began.set(name || factory, Math.min(first, began.get(name || factory) ?? Infinity));
  }
  return began;
}

/**
 * @param {Totals} totals
 * @param {(series: object) => boolean} fits
 * @returns {{share: number|null, present: number, expected: number}} slots of main meters in the period
 */
export function receivedOf(totals, fits) {
  const { present, expected } = slotsIn(totals.energy.filter(({ series }) => fits(series)), totals);
  const [got, could] = [present, expected].map((list) => list.reduce((a, b) => a + b, 0));
  return { share: could > 0 ? Math.min(1, got / could) : null, present: got, expected: could };
}

/**
 * How much of each step was received, of all meters together, up to the newest slot of any main meter.
 * A meter whose amounts are divided by tariff has several series that take turns.
 * @param {Column[]} columns
 * @param {Totals} totals
 * @returns {{present: number[], expected: number[]}} slots per step
 */
export function slotsIn(columns, { period, began, energy }) {
  const endOf = ({ series }) => Date.parse(series.time) / 1000 + windowOf(series);
  const newest = Math.max(...[...energy, ...columns].map(endOf));
  const meters = new Map();
  for (const { series, seconds } of columns) {
    const { enterprise_id: firm, site_id: site, equipment_id: name, medium } = series.tags;
    const key = JSON.stringify([firm, site, name, medium]);
    const meter = meters.get(key) ?? {
      windowS: windowOf(series), seconds: new Array(period.count).fill(null), sinceS: (began.get(firm) ?? 0) / 1000, endS: 0,
    };
    meter.endS = Math.max(meter.endS, endOf({ series }));
    meter.seconds = sumOf([meter.seconds, seconds]);
    meters.set(key, meter);
  }
  const zero = () => new Array(period.count).fill(0);
  const slots = { present: zero(), expected: zero() };
  for (const { windowS, seconds, sinceS, endS } of meters.values()) {
    // Who sends longer slots, or sends them later, is not behind yet.
    const dueS = Math.max(endS, newest - 2 * windowS);
    seconds.forEach((covered, at) => {
      const from = period.start / 1000 + at * period.stepS;
      const until = Math.min(from + period.stepS, dueS);
      const present = Math.round((covered ?? 0) / windowS);
      const expected = Math.max(0, Math.floor((until - Math.max(from, sinceS)) / windowS));
      slots.present[at] += present;
      slots.expected[at] += Math.max(expected, present); // what came is not too much
    });
  }
  return slots;
}
