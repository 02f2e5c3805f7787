/**
 * One row per agent: is it there, how fresh is it, and what may its data be trusted for.
 * @module firms
 */

import { h, say, sync } from "./dom.js";
import { hundredths, number } from "./format.js";
import { panel } from "./panel.js";
import { presenceOf, trustOf } from "./presence.js";
import { t } from "./texts.js";
import { receivedOf } from "./totals.js";

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
    update({ agents, totals, nowMs }) {
      frame.empty(agents.length ? "" : t("noFactories"));
      frame.note(t("factoriesNote", { count: number(agents.length) }));
      const shown = agents.slice(0, MOST).map((arrival) => ({ arrival, nowMs, share: shareOf(totals, arrival) }));
      sync(list, shown, ({ arrival }) => `${arrival.factory}.${arrival.agent}`, () => row(choose));
    },
  };
}

/** How much of what its main meters should have sent in the chosen period has come. */
function shareOf(totals, arrival) {
  const enterprise = arrival.name || arrival.factory;
  return totals && receivedOf(totals, (series) => series.tags.enterprise_id === enterprise).share;
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
    update({ arrival, nowMs, share }) {
      const presence = presenceOf(arrival, nowMs);
      enterprise = arrival.name || arrival.factory;
      say(name, enterprise);
      name.title = t("showOnly", { name: enterprise });
      element.title = t("agent", { id: arrival.agent.slice(0, 12) });
      element.dataset.presence = presence;
      say(word, t(presence));
      showAge(age, arrival.last_slot_end);
      badges.replaceChildren(...badgesOf(arrival, nowMs, share));
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
  if (coverage === null) return trust;
  const level = coverage < ENOUGH_COVERAGE ? "warn" : "good";
  return [...trust, h(`span.badge.${level}`, {}, t("coverageOf", { value: hundredths(coverage, 0) }))];
}
