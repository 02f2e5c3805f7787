/**
 * One card per equipment: what it does, its newest values, its charts.
 * @module equipment
 */

import { chartPanel } from "./charts.js";
import { h, say } from "./dom.js";
import { figures, slotText } from "./figures.js";
import { windowOf } from "./model.js";
import { t, term } from "./texts.js";

const PATIENCE_SLOTS = 5;
const PATIENCE_MS = 60_000;

/**
 * @returns {{element: HTMLElement, update: (entry: object) => void,
 *   refresh: (range: string, nowMs: number) => Promise<void>}} entry: an `equipment`, the
 *   `factories` and `nowMs`
 */
export function equipmentCard() {
  const name = h("h3");
  const place = h("span");
  const late = h("span.late");
  const state = h("p.state");
  const values = h("dl.figures");
  const panel = chartPanel();
  const element = h("article.card", {},
    h("header", {}, h("div", {}, name, h("p.id", {}, place, late)), state), values, panel.element);
  let shown = "";

  return {
    element,
    update({ equipment, factories, nowMs }) {
      say(name, equipment.name || t("noEquipment"));
      const slot = equipment.newestMs === null
        ? t("noData") : slotText(equipment.newestMs, equipment.windowS, nowMs);
      say(place, [equipment.place, slot].filter(Boolean).join(" · "));
      showState(state, equipment.states[0], nowMs);
      showLate(late, equipment, nowMs);
      const now = JSON.stringify([equipment, document.documentElement.lang]);
      if (now !== shown) values.replaceChildren(...figures(equipment, factories, nowMs));
      shown = now;
      panel.update(equipment, nowMs);
    },
    refresh: panel.refresh,
  };
}

/** Says how old the newest slot is once that is more than the way here explains. */
function showLate(element, { newestMs, windowS }, nowMs) {
  const end = newestMs + windowS * 1000;
  element.hidden = newestMs === null || nowMs - end < windowS * 1000 * PATIENCE_SLOTS + PATIENCE_MS;
  element.dataset.since = String(end);
  element.dataset.sinceText = "behind";
}

function showState(element, series, nowMs) {
  element.hidden = series === undefined;
  if (series === undefined) return;
  const { state_code: code, state = "" } = series.fields;
  const known = code !== undefined && code !== null;
  element.className = known ? `state state-${code}` : "state";
  say(element, known ? term("state", String(code)) : state || t("noData"));
  if (series.time === null) return;
  const slot = slotText(Date.parse(series.time), windowOf(series), nowMs);
  element.title = t("asOf", { time: slot });
}
