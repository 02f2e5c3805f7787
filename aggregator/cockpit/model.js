/**
 * Orders what the API answers into what the page shows: one entry per equipment.
 * @module model
 */

import { unitOfMeasurand } from "./texts.js";
import { offsetS } from "./zone.js";

/** Seconds-in-state fields, in the order they are drawn; the number is the state's code. */
export const STATE_FIELDS = [
  ["run_s", 1], ["setup_s", 2], ["idle_s", 3], ["starved_s", 4], ["held_s", 5],
  ["fault_s", 6], ["planned_down_s", 7], ["off_s", 8], ["unknown_s", 0],
];

const SHOWN_APART = new Set([
  "ff_energy", "ff_equipment_state", "ff_reading", "ce_activity", "ce_emission", "ce_superseded", "ff_fact", "ff_check", "ff_refused", "vocabulary",
]);
const NATIVE_UNIT = { Electricity: "kWh", NaturalGas: "m³" };
const UNIT_TEXT = { m3: "m³", Nm3: "Nm³", degC: "°C", 1: "" };
const MAIN_FIRST = ["main", "sub", "pv", "export"];
const NICE_STEPS_S = [
  1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 28800, 43200, 86400,
];
const SPANS_S = { hour: 3600, day: 86400, week: 7 * 86400, month: 30 * 86400 };
const SLOTS_SHOWN = 60;
const MOST_BARS = 100;

/**
 * @typedef {object} Series one series with its newest row
 * @property {string} id
 * @property {string} measurement
 * @property {Record<string, string>} tags
 * @property {string|null} time start of the newest slot
 * @property {Record<string, any>} fields
 */

/**
 * @typedef {object} Equipment
 * @property {string} key
 * @property {string} name "" is the whole site
 * @property {string} place factory and site
 * @property {Series[]} energy
 * @property {Series[]} states
 * @property {Series[]} readings those that no energy series shows already
 * @property {Series[]} activities those without an energy series of their medium
 * @property {Series[]} emissions
 * @property {Series[]} others
 * @property {number|null} newestMs start of its newest slot
 * @property {number} windowS its slot length
 */

/**
 * @param {Series[]} series
 * @param {any[]} factories
 * @returns {Equipment[]} ordered by place and name
 */
export function equipmentOf(series, factories) {
  const names = new Map(factories.map((each) => [each.factory, each.name]));
  const groups = new Map();
  for (const each of series) {
    const { enterprise_id: enterprise = "", site_id: site = "", equipment_id: name = "" } = each.tags;
    const key = JSON.stringify([enterprise, site, name]);
    const place = [names.get(enterprise) ?? enterprise, site].filter(Boolean).join(" · ");
    if (!groups.has(key)) groups.set(key, { key, name, place, series: [] });
    groups.get(key).series.push(each);
  }
  return [...groups.values()].map(assemble).sort(
    (a, b) => a.place.localeCompare(b.place) || a.name.localeCompare(b.name, undefined, { numeric: true }),
  );
}

function assemble({ key, name, place, series }) {
  const of = (measurement) => series.filter((each) => each.measurement === measurement).sort(byTags);
  const energy = of("ff_energy").sort((a, b) => rank(a) - rank(b));
  const media = new Set(energy.map((each) => each.tags.medium));
  return {
    key, name, place, energy,
    states: of("ff_equipment_state"),
    readings: of("ff_reading").filter((each) => !(energy.length && isEnergy(each))),
    activities: of("ce_activity").filter((each) => !media.has(each.tags.medium)),
    emissions: of("ce_emission"),
    others: series.filter((each) => !SHOWN_APART.has(each.measurement)).sort(byTags),
    ...newestOf(series),
  };
}

/** Such a reading shows again what the energy series shows. */
function isEnergy(reading) {
  return /^(?:energy\.active_|gas\.)/.test(reading.tags.measurand ?? "");
}

function newestOf(series) {
  let newest = { newestMs: null, windowS: 60 };
  for (const each of series) {
    const ms = each.time === null ? null : Date.parse(each.time);
    if (ms !== null && (newest.newestMs === null || ms > newest.newestMs)) {
      newest = { newestMs: ms, windowS: windowOf(each) };
    }
  }
  return newest;
}

function byTags(a, b) {
  return JSON.stringify([a.measurement, a.tags]) < JSON.stringify([b.measurement, b.tags]) ? -1 : 1;
}

function rank(series) {
  const place = MAIN_FIRST.indexOf(series.tags.meter_role);
  return place < 0 ? MAIN_FIRST.length : place;
}

/**
 * @param {Series} series
 * @returns {number} its slot length in seconds
 */
export function windowOf(series) {
  return Number(series.fields.window_s ?? 60);
}

/**
 * Emissions that may be added up: of each scope and medium one method, by location where
 * there is one, because two methods count the same carbon twice. What was exported has no scope.
 * @param {Series[]} emissions
 * @returns {Series[]}
 */
export function addable(emissions) {
  const method = new Map();
  const of = (each) => `${each.tags.scope}|${each.tags.medium}`;
  const scoped = emissions.filter((each) => each.tags.scope);
  for (const each of scoped) {
    if (!method.has(of(each)) || each.tags.method === "location") method.set(of(each), each.tags.method);
  }
  return scoped.filter((each) => each.tags.method === method.get(of(each)));
}

/**
 * @param {Series} series of ff_energy
 * @returns {string} the unit of its amounts: kWh, or that of its measurand
 */
export function unitOfEnergy({ tags: { measurand, medium } }) {
  return unitText(measurand ? unitOfMeasurand(measurand) : NATIVE_UNIT[medium] ?? "");
}

/**
 * @param {Series} series of ff_energy
 * @returns {string} what it meters: all its tags but the tariff period
 */
export function metersOf({ tags }) {
  return JSON.stringify(Object.entries(tags).filter(([name]) => name !== "tariff").sort());
}

/**
 * A reading's row has no unit; the release sheet it came under has.
 * @param {Series} reading
 * @param {any[]} factories
 * @returns {string} the unit as written for people, "" where no sheet tells
 */
export function unitOfReading(reading, factories) {
  const { enterprise_id: enterprise, equipment_id: equipment, measurand } = reading.tags;
  const own = factories.filter((each) => each.factory === enterprise || each.name === enterprise);
  for (const { sheets } of own.length ? own : factories) {
    for (const { points } of sheets) {
      const point = points.find((each) => each.measurand === measurand && each.equipment === equipment);
      if (point) return unitText(point.unit);
    }
  }
  return "";
}

/**
 * @param {string} unit as the vocabulary writes it
 * @returns {string} as people write it
 */
export function unitText(unit) {
  return UNIT_TEXT[unit] ?? unit;
}

/**
 * Chooses the steps of a chart so that its last one holds the newest slot. The store's steps begin at whole
 * multiples of their length in UTC, so those that also begin a local day where one begins are preferred.
 * @param {string} range "slots", "hour", "day", "week" or "month"
 * @param {number} newestMs start of the newest slot
 * @param {number} windowS slot length
 * @returns {{start: number, end: number, stepS: number, count: number}}
 */
export function periodOf(range, newestMs, windowS) {
  const slotS = Math.max(1, Math.ceil(windowS));
  const wantedS = SPANS_S[range] ?? slotS * SLOTS_SHOWN;
  const fits = (each) => each >= slotS && each % slotS === 0 && wantedS / each <= MOST_BARS;
  const local = offsetS(newestMs);
  const nice = NICE_STEPS_S.find((each) => fits(each) && local % each === 0) ?? NICE_STEPS_S.find(fits);
  const stepS = range in SPANS_S ? nice ?? Math.ceil(wantedS / slotS / MOST_BARS) * slotS : slotS;
  const count = Math.max(1, Math.round(wantedS / stepS));
  const end = (Math.floor(newestMs / 1000 / stepS) + 1) * stepS * 1000;
  return { start: end - count * stepS * 1000, end, stepS, count };
}

/**
 * @param {{time: string[], fields: Record<string, (number|null)[]>}} answer
 * @param {string} field
 * @param {{start: number, stepS: number, count: number}} period
 * @returns {(number|null)[]} one value per step; null where there is none
 */
export function spread(answer, field, period) {
  const values = new Array(period.count).fill(null);
  const cells = answer.fields[field] ?? [];
  answer.time.forEach((time, row) => {
    const place = Math.round((Date.parse(time) - period.start) / period.stepS / 1000);
    if (place >= 0 && place < period.count && cells[row] !== undefined) values[place] = cells[row];
  });
  return values;
}

/**
 * How many slots a step holds and could hold, told by the seconds its rows stand for; the
 * last step may still be under way.
 * @param {(number|null)[]} covered seconds per step, null where none
 * @param {Series} series
 * @param {{start: number, end: number, stepS: number}} period
 * @returns {{present: number[], expected: number[]}} per step
 */
export function slotsOf(covered, series, period) {
  const windowS = windowOf(series);
  const untilS = Date.parse(series.time) / 1000 + windowS;
  const expected = covered.map((_, at) => {
    const from = period.start / 1000 + at * period.stepS;
    return Math.round(Math.min(period.stepS, untilS - from) / windowS);
  });
  return { present: covered.map((seconds) => Math.round((seconds ?? 0) / windowS)), expected };
}

/**
 * @param {(number|null)[][]} columns of the same length
 * @returns {(number|null)[]} their sum by place; null where none has a value
 */
export function sumOf(columns) {
  const add = (a, b) => (a === null ? b : b === null ? a : a + b);
  return columns.reduce((total, column) => total.map((value, at) => add(value, column[at])));
}

/**
 * @param {(number|null)[]} values
 * @returns {(number|null)[]} running sum; null where there is no value
 */
export function cumulated(values) {
  let sum = 0;
  return values.map((value) => (value === null ? null : (sum += value)));
}
