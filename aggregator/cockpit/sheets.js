/**
 * Release sheets: what each factory's officers signed to be sent here.
 * @module sheets
 */

import { h, say } from "./dom.js";
import { clock, date, number, span } from "./format.js";
import { unitText } from "./model.js";
import { t, term } from "./texts.js";

const POINTS_SHOWN = 100;

/** Names of states, as measurands carry them behind a ":", and their codes. */
const STATES = {
  unknown: 0, run: 1, setup: 2, idle: 3, starved: 4, starved_blocked: 4, held: 5, fault: 6,
  planned_down: 7, off: 8,
};

const COLUMNS = [
  ["number", (point) => String(point.number), "num"],
  ["equipmentColumn", (point) => point.equipment || t("noEquipment"), ""],
  ["measurand", measurandText, ""],
  ["unit", (point) => unitText(point.unit) || "–", ""],
  ["sentAs", (point) => term("aggregate", sentAs(point)), ""],
  ["slot", (point) => span(point.window_s), "num"],
  ["rounding", (point) => `${point.resolution} ${unitText(point.unit)}`.trim(), "num"],
  ["retention", (point) => t("days", { count: number(point.retention_days) }), "num"],
];

/**
 * @param {any[]} factories
 * @param {number} nowMs
 * @returns {object[]} one entry per sheet, those in force first
 */
export function sheetsOf(factories, nowMs) {
  const entries = factories.flatMap((factory) =>
    factory.sheets.map((sheet, age) => ({
      key: `${factory.factory}.${factory.agent}.${sheet.hash}`,
      name: factory.name || factory.factory,
      sheet, nowMs, newest: age === 0,
    })));
  return entries.sort((a, b) => Number(b.newest) - Number(a.newest));
}

/** @returns {{element: HTMLElement, update: (entry: any) => void}} */
export function sheetView(first) {
  const title = h("h3");
  const badge = h("span.badge");
  const facts = h("dl.facts");
  const table = h("div.scroll", { tabindex: 0, role: "region" });
  const all = h("button.quiet", { type: "button" });
  const element = h("details.sheet", first.newest ? { open: true } : {},
    h("summary", {}, title, badge), facts, table, all);
  let entry = first;
  let shown = "";
  let whole = false;

  all.addEventListener("click", () => { whole = true; update(entry); });

  function update(next) {
    entry = next;
    const { sheet, name, nowMs } = entry;
    const until = Date.parse(sheet.valid_until);
    const standing = until < nowMs ? "expired" : entry.newest ? "current" : "earlier";
    say(title, t("sheetOf", { name, version: sheet.policy_version }));
    say(badge, t(standing));
    badge.dataset.standing = standing;
    table.setAttribute("aria-label", title.textContent);
    facts.replaceChildren(...factsOf(sheet, until, nowMs));
    const now = JSON.stringify([sheet.hash, whole, document.documentElement.lang]);
    if (now !== shown) table.replaceChildren(tableOf(sheet, whole ? Infinity : POINTS_SHOWN));
    shown = now;
    all.hidden = whole || sheet.points.length <= POINTS_SHOWN;
    say(all, t("showPoints", { count: number(sheet.points.length) }));
  }

  return { element, update };
}

function factsOf(sheet, until, nowMs) {
  const fact = (key, value, title = "") =>
    h("div", {}, h("dt", {}, t(key)), h("dd", title ? { title } : {}, value));
  return [
    fact("purpose", term("purpose", sheet.purpose) || t("noData")),
    fact("right", sheet.right || t("noData")),
    fact("policyVersion", String(sheet.policy_version)),
    fact("validUntil", date(until)),
    fact("arrived", clock(Date.parse(sheet.received), nowMs)),
    fact("pointCount", number(sheet.points.length)),
    fact("fingerprint", `${sheet.hash.slice(0, 16)}…`, sheet.hash),
  ];
}

function tableOf(sheet, most) {
  const head = h("tr", {}, ...COLUMNS.map(([key, , kind]) => h("th", { scope: "col", class: kind }, t(key))));
  const rows = sheet.points.slice(0, most).map((point) =>
    h("tr", {}, ...COLUMNS.map(([, text, kind]) => h("td", { class: kind }, text(point)))));
  return h("table", {}, h("thead", {}, head), h("tbody", {}, ...rows));
}

/** Of a state's parts all are durations but one: the state at the slot's end. */
function sentAs(point) {
  return point.measurand.endsWith(":end") ? "last" : point.aggregate;
}

function measurandText(point) {
  const [name, state] = point.measurand.split(":");
  const part = Object.hasOwn(STATES, state) ? t(`state.${STATES[state]}`) : term("part", state ?? "");
  const which = state === undefined ? [] : [part];
  const words = h("span", {}, [term("measurand", name), ...which].join(" · "));
  return h("span.measurand", {}, words, h("code", {}, point.measurand));
}
