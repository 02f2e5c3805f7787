/**
 * One card per agent: is it there, when did it last send, how much is kept.
 * @module factories
 */

import { h, say } from "./dom.js";
import { clock, number } from "./format.js";
import { t } from "./texts.js";

const PATIENCE_SLOTS = 5;
const PATIENCE_MS = 60_000;

/**
 * @param {any} arrival
 * @returns {string} key of its card
 */
export function keyOf(arrival) {
  return `${arrival.factory}.${arrival.agent}`;
}

/** @returns {{element: HTMLElement, update: (arrival: any) => void}} */
export function factoryCard() {
  const name = h("h3");
  const agent = h("p.id");
  const dot = h("span.dot", { "aria-hidden": "true" });
  const word = h("span");
  const age = h("p.age");
  const facts = h("dl.facts");
  const element = h("article.factory", {},
    h("header", {}, h("div", {}, name, agent), h("p.presence", {}, dot, word)), age, facts);

  return {
    element,
    update(arrival) {
      const presence = presenceOf(arrival);
      say(name, arrival.name || arrival.factory);
      say(agent, t("agent", { id: arrival.agent.slice(0, 12) }));
      agent.title = `${arrival.factory} / ${arrival.agent}`;
      element.dataset.presence = presence;
      say(word, t(presence));
      if (arrival.last_received === null) {
        delete age.dataset.since;
        say(age, t("noBatch"));
      } else {
        age.dataset.since = String(Date.parse(arrival.last_received));
        age.dataset.sinceText = "lastBatch";
      }
      facts.replaceChildren(...factsOf(arrival));
    },
  };
}

function factsOf(arrival) {
  const end = arrival.last_slot_end;
  const fact = (term, value, kind = "") =>
    h("div", { class: kind }, h("dt", {}, t(term)), h("dd", {}, value));
  return [
    fact("newestSlot", end === null ? t("noData") : clock(Date.parse(end), arrival.nowMs)),
    fact("batches", number(arrival.batches)),
    fact("values", number(arrival.values)),
    fact("refused", number(arrival.refused), arrival.refused > 0 ? "bad" : ""),
  ];
}

/**
 * @param {any} arrival
 * @returns {"online"|"offline"|"unsaid"|"silent"} silent: says it is online but sends nothing
 */
function presenceOf(arrival) {
  if (arrival.online === null) return "unsaid";
  if (!arrival.online) return "offline";
  if (arrival.last_received === null) return "online";
  const windows = arrival.sheets.slice(0, 1).flatMap((sheet) => sheet.points.map((point) => point.window_s));
  const patience = Math.max(0, ...windows) * 1000 * PATIENCE_SLOTS + PATIENCE_MS;
  return arrival.nowMs - Date.parse(arrival.last_received) > patience ? "silent" : "online";
}
