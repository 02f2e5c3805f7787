/**
 * The newest values of one equipment as labelled figures.
 * @module figures
 */

import { h } from "./dom.js";
import { clock, number, span } from "./format.js";
import { unitOfMedium, unitOfReading, unitText, windowOf } from "./model.js";
import { t, term } from "./texts.js";

const ABOUT_THE_ROW = new Set(["window_s", "span_s", "quality", "coverage", "seq", "rev", "policy_ver"]);
const MOST_OTHERS = 16;

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
    ...equipment.energy.map(energyOf),
    ...equipment.activities.map(activityOf),
    ...equipment.readings.map((each) => readingOf(each, factories)),
    ...equipment.emissions.map(carbonOf),
    ...equipment.others.flatMap(otherOf).slice(0, MOST_OTHERS),
  ];
  return list.map(({ series, label, value, unit, kind = "", notes = [] }) => {
    const absent = value === null || value === undefined;
    const text = absent ? t("noData") : valueText(value, kind);
    const further = [...notes, ...rowNotes(series, equipment.newestMs, nowMs)];
    return h("div", { class: `figure ${kind}` },
      h("dt", {}, label),
      h("dd", {},
        h(`strong${absent ? ".absent" : ""}`, {}, text),
        ...(absent || !unit ? [] : [h("span.unit", {}, ` ${unit}`)]),
        ...further.map((note) => h("small", {}, note))));
  });
}

/** Fields may be text; whole numbers too large for JavaScript come as text too. */
function valueText(value, kind) {
  const numeric = typeof value === "number" || /^-?\d+$/.test(value);
  return numeric ? number(value, kind === "carbon" ? 4 : 9) : value;
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
  const { medium, meter_role: role } = series.tags;
  return {
    series, kind: "energy", value: series.fields.energy, unit: unitOfMedium(medium),
    label: medium ? t("energyOf", { medium: term("medium", medium) }) : t("energy"),
    notes: role ? [term("role", role)] : [],
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
  return Object.entries(series.fields)
    .filter(([name]) => !ABOUT_THE_ROW.has(name))
    .map(([name, value]) => ({ series, label: `${series.measurement} · ${name}`, value, unit: "" }));
}
