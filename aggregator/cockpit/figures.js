/**
 * The newest values of one equipment as labelled figures.
 * @module figures
 */

import { h } from "./dom.js";
import { clock, hundredths, number, span } from "./format.js";
import { metersOf, unitOfEnergy, unitOfReading, unitText, windowOf } from "./model.js";
import { figure } from "./panel.js";
import { knows, t, term } from "./texts.js";

const MOST_OTHERS = 16;
const DIGITS = 7; // the account where it comes from has them all

const ratio = (value) => ({ value: hundredths(value), unit: "%" });
const plain = (unit) => (value) => ({ value, unit });
const pieces = (value, { tags }) => ({ value, unit: tags.unit ?? "pcs" });
const metered = (value, series) => ({ value, unit: unitOfEnergy(series) });

/** Of combined series, what is shown beside an equipment or a site; times that ratios are made of are not. */
const FIELDS = {
  ff_oee: Object.fromEntries(["oee", "availability", "performance", "quality_ratio", "nee", "technical_eff"].map((name) => [name, ratio])),
  ff_production: { qty_total: pieces, qty_good: pieces, qty_scrap: pieces, qty_rework: pieces, cycles: plain("") },
  ff_quality: { fpy: ratio, scrap_ratio: ratio },
  ff_connectivity: { devices_online: plain(""), devices_total: plain(""), digital_rate: ratio },
  ce_balance: { main: metered, sub_sum: metered, residual_ratio: ratio },
  ce_quality: { coverage: ratio, estimated_share: ratio },
  ce_intensity: {
    kgco2e_per_unit: (value, { tags }) => ({ value: number(value, 6), unit: `kg CO₂e/${tags.denominator ?? ""}` }),
    L: (value) => ({ value: number(value, 3), unit: "t CO₂e/万元" }), K: plain(""), grade: plain(""),
  },
};

/**
 * @typedef {object} Figure
 * @property {string} label
 * @property {string} value
 * @property {string} unit
 * @property {string[]} notes
 * @property {string} kind "energy", "carbon" or ""
 */

/**
 * @param {import("./model.js").Equipment} equipment
 * @param {any[]} factories
 * @param {number} nowMs
 * @returns {HTMLElement[]} a dt/dd pair each
 */
export function figures(equipment, factories, nowMs) {
  const list = [
    ...newestTariffs(equipment.energy).map(energyOf),
    ...equipment.activities.map(activityOf),
    ...equipment.readings.map((each) => readingOf(each, factories)),
    ...equipment.emissions.map(carbonOf),
    ...equipment.others.flatMap(otherOf).slice(0, MOST_OTHERS),
  ];
  return list.map(({ series, label, value, unit, kind = "", notes = [] }) => {
    const absent = value === null || value === undefined;
    const text = absent ? t("noData") : valueText(value, kind);
    const further = [...notes, ...rowNotes(series, equipment.newestMs, nowMs)];
    const shown = figure();
    shown.update({ text, unit: absent ? "" : unit, origin: absent ? null : originOf(series, label, `${exactText(value)} ${unit}`) });
    return h("div", { class: `figure ${kind}` },
      h("dt", {}, label), h("dd", {}, shown.element, ...further.map((note) => h("small", {}, note))));
  });
}

const exactText = (value) => (typeof value === "number" ? number(value, 17) : value);

function originOf(series, title, value) {
  const start = Date.parse(series.time);
  return {
    title: [series.tags.equipment_id, title].filter(Boolean).join(" · "), value: value.trim(), how: howOf(series),
    span: { start, end: start + windowOf(series) * 1000 }, parts: [{ series, text: "" }],
  };
}

/** @returns {string} how a row of a series is made, in words */
function howOf({ measurement, fields }) {
  if (measurement === "ff_energy" && fields.method) return knows(`made.${fields.method}`) ? t(`made.${fields.method}`) : fields.method;
  return knows(`how.${measurement}`) ? t(`how.${measurement}`) : t("how.other", { measurement });
}

/** Series of one meter that take turns by tariff show the one whose turn it was last. */
function newestTariffs(energy) {
  return energy.filter((one) => !energy.some((other) => metersOf(other) === metersOf(one) && other.time > one.time));
}

/** Fields may be text; whole numbers too large for JavaScript come as text too. */
function valueText(value, kind) {
  const numeric = typeof value === "number" || /^-?\d+$/.test(value);
  return numeric ? number(value, kind === "carbon" ? 4 : DIGITS) : value;
}

function rowNotes(series, newestMs, nowMs) {
  const notes = [];
  const ms = series.time === null ? null : Date.parse(series.time);
  if (ms !== null && ms !== newestMs) notes.push(slotText(ms, windowOf(series), nowMs));
  const { quality } = series.fields;
  if (quality && quality !== "GOOD") notes.push(t("quality", { quality: term("quality", quality) }));
  return notes;
}

/**
 * @param {number} ms start of a slot
 * @param {number} windowS its length
 * @param {number} nowMs
 * @returns {string} such as "14:05:00 · 5 s slot"
 */
export function slotText(ms, windowS, nowMs) {
  return t("slotAt", { time: clock(ms, nowMs), length: span(windowS) });
}

function energyOf(series) {
  const { medium, meter_role: role, tariff } = series.tags;
  return {
    series, kind: "energy", value: series.fields.energy, unit: unitOfEnergy(series),
    label: medium ? t("energyOf", { medium: term("medium", medium) }) : t("energy"),
    notes: [[role && term("role", role), tariff && t("tariffOf", { tariff: term("tariff", tariff) })].filter(Boolean).join(" · ")].filter(Boolean),
  };
}

function activityOf(series) {
  const { medium = "" } = series.tags;
  return {
    series, value: series.fields.activity, unit: unitText(series.fields.unit ?? ""),
    label: t("activityOf", { medium: term("medium", medium) }),
  };
}

function readingOf(series, factories) {
  return {
    series, value: series.fields.value, unit: unitOfReading(series, factories),
    label: term("measurand", series.tags.measurand ?? series.measurement),
  };
}

function carbonOf(series) {
  const { scope, factor_id: id, medium, method } = series.tags;
  const kind = [medium && term("medium", medium), method && term("method", method)].filter(Boolean);
  return {
    series, kind: "carbon", value: series.fields.co2e_kg, unit: "kg CO₂e",
    label: scope ? t("carbonOf", { scope }) : t("carbon"),
    notes: [kind.join(" · "), id ? factorText(id, series.fields) : ""].filter(Boolean),
  };
}

/**
 * @param {string} id
 * @param {Record<string, any>} fields of the newest row
 * @returns {string} an emission factor with its value, year and grade
 */
export function factorText(id, fields) {
  const words = [t("factor", { id, value: number(fields.factor_value, 6), unit: fields.factor_unit ?? "" })];
  const year = fields.factor_year ?? /(?:19|20)\d\d/.exec(id)?.[0];
  if (year) words.push(t("factorYear", { year: String(year) }));
  if (fields.factor_grade) words.push(t("factorGrade", { grade: fields.factor_grade }));
  return words.join(" · ");
}

function otherOf(series) {
  return Object.entries(FIELDS[series.measurement] ?? {})
    .filter(([name]) => series.fields[name] !== undefined && series.fields[name] !== null)
    .map(([name, shape]) => ({ series, ...shape(series.fields[name], series), label: labelOf(series.measurement, name) }));
}

function labelOf(measurement, name) {
  const key = `field.${measurement}.${name}`;
  return knows(key) ? t(key) : t(`kpi.${name}`);
}
