/**
 * Sums over the chosen period, each with where it comes from.
 * @module sums
 */

import { number } from "./format.js";
import { unitOfEnergy, windowOf } from "./model.js";
import { t, term } from "./texts.js";
import { added, together } from "./totals.js";

const TARIFFS = ["deep", "valley", "flat", "peak", "sharp"];

/** The one medium that has a place of its own: every factory has it. */
export const ELECTRICITY = "Electricity kWh";

/** Amounts of one medium in two units, such as gas as it flows and in normal cubic metres, never meet in one sum. */
const kindOf = ({ series }) => `${series.tags.medium ?? ""} ${unitOfEnergy(series)}`;

/**
 * @param {import("./totals.js").Totals} totals
 * @returns {string[]} what is metered, electricity first: medium and unit
 */
export function mediaOf(totals) {
  const media = [...new Set(totals.energy.map(kindOf))];
  return media.sort((a, b) => Number(b === ELECTRICITY) - Number(a === ELECTRICITY) || (a < b ? -1 : 1));
}

/**
 * @param {import("./totals.js").Totals} totals
 * @param {string} kind one of `mediaOf`
 * @returns {{columns: object[], name: string, total: number|null, tce: number|null, unit: string, origin: object}}
 *   `tce` is of all media together
 */
export function energyOf(totals, kind) {
  const columns = totals.energy.filter((one) => kindOf(one) === kind);
  const [medium, unit = ""] = kind.split(" ");
  const total = added(columns.map((one) => one.total));
  const tce = added(totals.energy.map((one) => one.tce));
  const name = t("energyOf", { medium: term("medium", medium) });
  const origin = {
    title: name, value: `${number(total)} ${unit}`,
    span: totals.period, how: t("how.ff_energy"), parts: partsOf(columns, unit), notes: [t("mainOnly")],
  };
  return { columns, name, total, tce, unit, origin };
}

/**
 * @param {import("./totals.js").Totals} totals
 * @param {"location"|"market"} method of scope 2; scope 1 belongs to both
 * @returns {{scope1: number|null, scope2: number|null, total: number|null, columns: object[], origin: object}}
 */
export function carbonOf(totals, method) {
  const of = (wanted) => totals.carbon.filter(({ series }) => series.tags.method === wanted);
  const [direct, bought] = [of("direct"), method === "market" ? marketOf(of("market"), of("location"), totals.period) : of(method)];
  const known = method !== "market" || bought.length > 0;
  const columns = known ? [...direct, ...bought] : [];
  const [scope1, scope2] = [direct, bought].map((list) => added(list.map((each) => each.total)));
  const total = known ? added([scope1, scope2]) : null;
  const origin = {
    title: `${t("carbon")} · ${t(`method.${method}`)}`, value: `${number(total)} kg CO₂e`,
    span: totals.period, how: t("how.ce_emission"), parts: partsOf(columns, "kg CO₂e"),
    notes: [t("neverBoth")],
  };
  return { scope1, scope2, total, columns, origin };
}

/**
 * Media without contracts count by location. Where contracts are known for a part of the period only there is
 * no market-based sum: it would leave out the rest. Market-based rows are made a little later than the others.
 */
function marketOf(own, location, period) {
  const medium = ({ series }) => series.tags.medium;
  const media = new Set(own.map(medium));
  const untilMs = Math.max(0, ...own.map(({ series }) => Date.parse(series.time) + windowOf(series) * 1000));
  const covered = (columns) => columns.flatMap(({ seconds }) => seconds)
    .filter((_, at) => period.start + ((at % period.count) + 1) * period.stepS * 1000 <= untilMs)
    .reduce((sum, value) => sum + (value ?? 0), 0);
  const both = location.filter((one) => media.has(medium(one)));
  if (own.length === 0 || covered(own) < covered(both)) return [];
  return [...own, ...location.filter((one) => !media.has(medium(one)))];
}

/**
 * @param {object[]} columns of energy
 * @param {number} count of steps
 * @returns {{kind: string, name: string, values: (number|null)[]}[]} one part per tariff period, cheap ones first
 */
export function tariffParts(columns, count) {
  const tariffs = TARIFFS.filter((name) => columns.some(({ series }) => series.tags.tariff === name));
  const parts = tariffs.map((name) => ({
    kind: `tariff-${name}`, name: t(`tariff.${name}`),
    values: together(columns.filter(({ series }) => series.tags.tariff === name), count),
  }));
  const without = columns.filter(({ series }) => !TARIFFS.includes(series.tags.tariff));
  if (parts.length && without.length === 0) return parts;
  return [{ kind: "plain", name: t("noTariff"), values: together(without, count) }, ...parts];
}

function partsOf(columns, unit) {
  return columns
    .filter((each) => each.total !== null)
    .map(({ series, total }) => ({ series, text: `${number(total)} ${unit}` }));
}
