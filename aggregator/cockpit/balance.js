/**
 * Main meters against the sub-meters behind them: what no sub-meter accounts for.
 * @module balance
 */

import { each, steps } from "./api.js";
import { h, say, sync } from "./dom.js";
import { amount, between, hundredths, number } from "./format.js";
import { unitOfEnergy, windowOf } from "./model.js";
import { figure, panel } from "./panel.js";
import { t, term } from "./texts.js";
import { added } from "./totals.js";

const HOUR_MS = 3_600_000;
const MOST = 12;
const FIELDS = ["main", "sub_sum", "unallocated"];
/** The aggregator's own bounds, `aggregator/series/derived/checks.py`: recommended, no standard's. */
const BOUNDS = { low: -0.02, high: 0.15 };

/**
 * @param {object[]} series in scope
 * @param {{start: number}|null} period
 * @returns {Promise<object[]>} per site and medium the sums over complete hours
 */
export async function loadBalance(series, period) {
  const own = series.filter((one) => one.measurement === "ce_balance" && one.time !== null).slice(0, MOST);
  return each(own, async (one) => {
    const end = Date.parse(one.time) + windowOf(one) * 1000;
    const start = Math.floor(Math.min(period?.start ?? end, end - HOUR_MS) / HOUR_MS) * HOUR_MS;
    const span = { start, end };
    const answer = await steps(one.id, FIELDS, { ...span, stepS: HOUR_MS / 1000 });
    const [main, subs, rest] = FIELDS.map((field) => added(answer.fields[field] ?? []));
    return { series: one, span, main, subs, rest, ratio: main > 0 ? rest / main : null };
  });
}

/** @returns {{element: HTMLElement, update: (ctx: object) => void}} */
export function balancePanel() {
  const frame = panel("balance");
  const list = h("ul.rows.balances");
  frame.body.append(list);
  return {
    element: frame.element,
    update({ balances, nowMs }) {
      frame.empty(balances.length ? "" : t("noBalance"));
      frame.note(balances.length ? `${between(balances[0].span, nowMs)} · ${t("balanceNote")}` : "");
      const worst = (one) => (one.ratio === null ? -1 : Math.abs(one.ratio - (BOUNDS.low + BOUNDS.high) / 2));
      const sorted = [...balances].sort((a, b) => worst(b) - worst(a));
      sync(list, sorted, (one) => one.series.id, row);
    },
  };
}

function row() {
  const name = h("span.name");
  const medium = h("span.soft");
  const value = figure();
  const fill = h("span.fill");
  const word = h("p.soft.small");
  const element = h("li", {}, h("div.line", {}, h("div", {}, name, " ", medium), value.element),
    h("span.track", { "aria-hidden": "true" }, fill), word);
  return {
    element,
    update({ series, span, main, subs, rest, ratio }) {
      const unit = unitOfEnergy(series);
      say(name, series.tags.enterprise_id ?? "");
      say(medium, term("medium", series.tags.medium ?? ""));
      const odd = ratio !== null && (ratio < BOUNDS.low || ratio > BOUNDS.high);
      element.dataset.level = odd ? "bad" : "good";
      const origin = {
        title: t("panel.balance"), value: `${number(rest)} ${unit}`, span, how: t("how.ce_balance"),
        parts: [{ series, text: `${number(main)} − ${number(subs)} ${unit}` }],
      };
      value.update(ratio === null
        ? { text: "–", origin: null } : { text: hundredths(ratio), unit: "%", origin });
      fill.style.width = `${Math.max(0, Math.min(100, main > 0 ? (subs / main) * 100 : 0))}%`;
      const shown = (kwh) => { const one = amount(kwh ?? 0, unit); return `${one.text} ${one.unit}`; };
      say(word, t(odd ? "balanceOdd" : "balanceOf", { main: shown(main), subs: shown(subs) }));
    },
  };
}
