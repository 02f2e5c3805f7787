/**
 * Energy and carbon over time, of all main meters in scope.
 * @module trend
 */

import { h, say } from "./dom.js";
import { amount, between, span } from "./format.js";
import { choice, figure, panel } from "./panel.js";
import { stackFigure } from "./stack.js";
import { carbonOf, energyOf, mediaOf, tariffParts } from "./sums.js";
import { t, term } from "./texts.js";
import { slotsIn, together } from "./totals.js";

const SHAPE = { base: 96, margin: { left: 46, right: 16 } };

/** @returns {{element: HTMLElement, update: (ctx: object) => void}} */
export function trendPanel() {
  const frame = panel("trend");
  const energy = graph();
  const carbon = graph();
  let medium = "";
  let method = "location";
  let ctx = null;
  const media = choice([], (name) => term("medium", name.split(" ")[0]), (name) => { medium = name; paint(); });
  const methods = choice(["location", "market"], (name) => t(`method.${name}`), (name) => { method = name; paint(); });
  energy.tools.append(media.element);
  carbon.tools.append(methods.element);
  frame.body.append(energy.element, carbon.element);

  function paint() {
    const { totals, nowMs } = ctx;
    frame.empty(totals ? "" : t("noMain"));
    if (!totals) return;
    const known = mediaOf(totals);
    if (!known.includes(medium)) medium = known[0] ?? "";
    media.update(known, medium);
    media.element.hidden = known.length < 2;
    const hasMarket = carbonOf(totals, "market").total !== null;
    if (!hasMarket) method = "location";
    methods.update(["location", "market"], method);
    methods.element.hidden = !hasMarket;
    const cut = totals.cut ? ` · ${t("tooMany")}` : "";
    frame.note(`${between(totals.period, nowMs)} · ${t("perStepOf", { step: span(totals.period.stepS) })}${cut}`);
    energy.update(energyGraph(totals, medium, nowMs));
    carbon.update(carbonGraph(totals, method, nowMs));
  }

  return {
    element: frame.element,
    update(next) { ctx = next; paint(); },
  };
}

function graph() {
  const title = h("h3");
  const total = figure();
  const tools = h("div.tools");
  const legend = h("p.legend");
  const pointed = h("p.pointed", { "aria-live": "off" });
  const plot = stackFigure((words) => say(pointed, words), SHAPE);
  const head = h("header", {}, title, total.element, tools);
  return {
    tools,
    element: h("div.graph", {}, head, h("div.under", {}, legend, pointed), plot.element),
    update({ name, sum, data }) {
      say(title, name);
      total.update(sum);
      const marks = data.parts.length > 1 ? data.parts.map((part) => [part.kind, part.name]) : [];
      const { present, expected } = data.slots;
      if (present.some((slots, at) => slots > 0 && slots < expected[at])) marks.push(["partly", t("partly")]);
      legend.replaceChildren(...marks.map(([kind, text]) => h("span", {}, h(`i.${kind}`, { "aria-hidden": "true" }), text)));
      plot.update(data);
    },
  };
}

function energyGraph(totals, medium, nowMs) {
  const found = energyOf(totals, medium);
  const parts = tariffParts(found.columns, totals.period.count);
  const { name } = found;
  return { name, sum: shownSum(found, found.unit), data: dataOf(totals, found, parts, nowMs, name, found.unit) };
}

function carbonGraph(totals, method, nowMs) {
  const found = carbonOf(totals, method);
  const { count } = totals.period;
  const isDirect = ({ series }) => series.tags.method === "direct";
  const bought = found.columns.filter((one) => !isDirect(one));
  const parts = [
    { kind: "scope-1", name: t("scope1"), values: together(found.columns.filter(isDirect), count) },
    { kind: "scope-2", name: `${t("scope2")} · ${t(`method.${method}`)}`, values: together(bought, count) },
  ].filter((part) => part.values.some((value) => value !== null));
  const shown = parts.length ? parts : [{ kind: "scope-2", name: "", values: new Array(count).fill(null) }];
  const name = t("carbon");
  const unit = "kg CO₂e";
  return { name, sum: shownSum(found, unit), data: dataOf(totals, found, shown, nowMs, name, unit) };
}

function shownSum(found, unit) {
  if (found.total === null) return { text: t("noData"), origin: null };
  return { ...amount(found.total, unit), origin: found.origin };
}

function dataOf(totals, { columns }, parts, nowMs, name, unit) {
  const { period } = totals;
  return { period, nowMs, name: t("perStep", { name, unit, step: span(period.stepS) }), unit, parts, line: null, slots: slotsIn(columns, totals) };
}
