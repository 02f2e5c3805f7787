/**
 * Sums over the chosen period, each with where it comes from.
 * @module sums
 */

import { number } from "./format.js";
import { unitOfMedium } from "./model.js";
import { t, term } from "./texts.js";
import { added } from "./totals.js";

/**
 * @param {import("./totals.js").Totals} totals
 * @returns {string[]} media that are metered, electricity first
 */
export function mediaOf(totals) {
  const media = [...new Set(totals.energy.map(({ series }) => series.tags.medium ?? ""))];
  return media.sort((a, b) => Number(b === "Electricity") - Number(a === "Electricity") || (a < b ? -1 : 1));
}

/**
 * @param {import("./totals.js").Totals} totals
 * @param {string} medium
 * @returns {{columns: object[], total: number|null, tce: number|null, unit: string, origin: object}}
 */
export function energyOf(totals, medium) {
  const columns = totals.energy.filter(({ series }) => (series.tags.medium ?? "") === medium);
  const total = added(columns.map((each) => each.total));
  const unit = unitOfMedium(medium);
  const tce = added(totals.energy.map((each) => each.tce));
  const origin = {
    title: t("energyOf", { medium: term("medium", medium) }), value: `${number(total)} ${unit}`,
    span: totals.period, how: t("how.ff_energy"), parts: partsOf(columns, unit), notes: [t("mainOnly")],
  };
  return { columns, total, unit, tce, origin };
}

/**
 * @param {import("./totals.js").Totals} totals
 * @param {"location"|"market"} method of scope 2; scope 1 belongs to both
 * @returns {{scope1: number|null, scope2: number|null, total: number|null, columns: object[], origin: object}}
 */
export function carbonOf(totals, method) {
  const of = (wanted) => totals.carbon.filter(({ series }) => series.tags.method === wanted);
  const [direct, bought] = [of("direct"), of(method)];
  const columns = [...direct, ...bought];
  const [scope1, scope2] = [direct, bought].map((list) => added(list.map((each) => each.total)));
  const total = added([scope1, scope2]);
  const origin = {
    title: `${t("carbon")} · ${t(`method.${method}`)}`, value: `${number(total)} kg CO₂e`,
    span: totals.period, how: t("how.ce_emission"), parts: partsOf(columns, "kg CO₂e"),
    notes: [t("neverBoth")],
  };
  return { scope1, scope2, total, columns, origin };
}

function partsOf(columns, unit) {
  return columns
    .filter((each) => each.total !== null)
    .map(({ series, total }) => ({ series, text: `${number(total)} ${unit}` }));
}
