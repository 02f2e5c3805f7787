/**
 * One row per agent: is it there, how fresh is it, and what may its data be trusted for.
 * @module firms
 */

import { h, say, sync } from "./dom.js";
import { hundredths, number } from "./format.js";
import { panel } from "./panel.js";
import { presenceOf, trustOf } from "./presence.js";
import { t } from "./texts.js";

const MOST = 40;
const ENOUGH_COVERAGE = 0.95;

/**
 * @param {(enterprise: string) => void} choose
 * @returns {{element: HTMLElement, update: (ctx: object) => void}}
 */
export function firmsPanel(choose) {
  const frame = panel("factories");
  const list = h("ul.rows");
  frame.body.append(list);
  return {
    element: frame.element,
    update({ agents, series, nowMs }) {
      frame.empty(agents.length ? "" : t("noFactories"));
      frame.note(t("factoriesNote", { count: number(agents.length) }));
      const quality = coverageOf(series);
      const shown = agents.slice(0, MOST).map((arrival) => ({ arrival, nowMs, quality }));
      sync(list, shown, ({ arrival }) => `${arrival.factory}.${arrival.agent}`, () => row(choose));
    },
  };
}

/** @returns {Map<string, number>} of each firm, how much of its newest hour was received */
function coverageOf(series) {
  const found = new Map();
  for (const { measurement, tags, fields } of series) {
    if (measurement !== "ce_quality" || typeof fields.coverage !== "number") continue;
    const known = found.get(tags.enterprise_id) ?? 1;
    found.set(tags.enterprise_id, Math.min(known, fields.coverage));
  }
  return found;
}

function row(choose) {
  const dot = h("span.dot", { "aria-hidden": "true" });
  const name = h("button.link", { type: "button" });
  const word = h("span.presence");
  const age = h("p.age");
  const badges = h("p.badges");
  const element = h("li.factory", {}, dot, h("div.who", {}, name, word), age, badges);
  let enterprise = "";
  name.addEventListener("click", () => choose(enterprise));
  return {
    element,
    update({ arrival, nowMs, quality }) {
      const presence = presenceOf(arrival, nowMs);
      enterprise = arrival.name || arrival.factory;
      say(name, enterprise);
      name.title = t("showOnly", { name: enterprise });
      element.title = t("agent", { id: arrival.agent.slice(0, 12) });
      element.dataset.presence = presence;
      say(word, t(presence));
      showAge(age, arrival.last_slot_end);
      badges.replaceChildren(...badgesOf(arrival, nowMs, quality.get(enterprise)));
    },
  };
}

function showAge(element, end) {
  if (end === null) {
    delete element.dataset.since;
    say(element, t("noBatch"));
    return;
  }
  element.dataset.since = String(Date.parse(end));
  element.dataset.sinceText = "slotEnded";
}

function badgesOf(arrival, nowMs, coverage) {
  const trust = trustOf(arrival, nowMs).map(({ name, level, parts }) => {
    const shown = parts.count === undefined ? parts : { count: number(parts.count) };
    return h(`span.badge.${level}`, {}, t(name, shown));
  });
  if (coverage === undefined) return trust;
  const level = coverage < ENOUGH_COVERAGE ? "warn" : "good";
  return [...trust, h(`span.badge.${level}`, {}, t("coverageOf", { value: hundredths(coverage, 0) }))];
}
