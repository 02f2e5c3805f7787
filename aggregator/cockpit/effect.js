/**
 * Overall equipment effectiveness with its three factors, and what each machine did when.
 * @module effect
 */

import { each, oee, steps } from "./api.js";
import { h, say, sync } from "./dom.js";
import { between, hundredths, percent } from "./format.js";
import { periodOf, spread, STATE_FIELDS, windowOf } from "./model.js";
import { figure, panel } from "./panel.js";
import { legendOf, stateStrip } from "./states.js";
import { t } from "./texts.js";

const FACTORS = ["availability", "performance", "quality_ratio"];
const ROWS = 6;
const HOUR_MS = 3_600_000;

const placeOf = (tags) => JSON.stringify([tags.enterprise_id ?? "", tags.site_id ?? "", tags.equipment_id ?? ""]);

/**
 * OEE of the hours that the period touches; at least of the newest hour there is.
 * @param {object[]} series in scope
 * @param {object} site or null
 * @param {{start: number, end: number}|null} period
 * @returns {Promise<object|null>} null where nothing has an OEE series
 */
export async function loadOee(series, site, period) {
  const own = series.filter((one) => one.measurement === "ff_oee" && one.time !== null);
  if (own.length === 0) return null;
  const newest = Math.max(...own.map((one) => Date.parse(one.time) + windowOf(one) * 1000));
  const start = Math.floor(Math.min(period?.start ?? newest, newest - HOUR_MS) / HOUR_MS) * HOUR_MS;
  // The newest hour may be under way: what is shown ends where the data do.
  const asked = { start, end: newest };
  const span = { start, end: Math.max(start, Math.min(newest, period?.end ?? newest)) };
  const [machines, firms] = await Promise.all([oee("equipment", asked, site), oee(site ? "site" : "enterprise", asked, site)]);
  const items = machines.map((item) => {
    const key = JSON.stringify([item.enterprise, item.site, item.equipment]);
    const parts = own.filter((one) => placeOf(one.tags) === key).map((one) => ({ series: one, text: "" }));
    return { ...item, key, origin: originOf(item, `OEE · ${item.equipment}`, span, parts) };
  }).sort((a, b) => (a.oee ?? 2) - (b.oee ?? 2) || (a.key < b.key ? -1 : 1));
  const parts = items.flatMap((item) => item.origin.parts);
  return { span, items, whole: wholeOf(firms, span, parts) };
}

/** Of several firms together: each factor is a ratio of sums, so that large firms count for more. */
function wholeOf(firms, span, parts) {
  const used = firms.filter((firm) => firm.oee !== null);
  const sum = (name) => used.reduce((total, firm) => total + firm[name], 0);
  const ratio = (above, below) => (used.length && sum(below) > 0 ? sum(above) / sum(below) : null);
  const whole = {
    oee: ratio("valuable_s", "pbt_s"), availability: ratio("apt_s", "pbt_s"),
    performance: ratio("net_s", "apt_s"), quality_ratio: ratio("valuable_s", "net_s"),
  };
  return { ...whole, origin: originOf(whole, t("tile.oee"), span, parts) };
}

function originOf(item, title, span, parts) {
  const said = FACTORS.map((name) => `${t(`kpi.${name}`)} ${item[name] === null ? t("noData") : `${hundredths(item[name], 2)} %`}`);
  const value = item.oee === null ? t("noData") : `${hundredths(item.oee, 2)} %`;
  return { title, value, span, parts, how: t("how.ff_oee"), notes: [said.join(" × ")] };
}

/**
 * @param {object[]} series in scope
 * @param {string} range
 * @param {object[]} items machines with their OEE; the lowest are shown
 * @returns {Promise<object[]>} per machine its seconds in each state, per step
 */
export async function loadStates(series, range, items) {
  const places = items.map((item) => item.key);
  const rank = (one) => (places.includes(placeOf(one.tags)) ? places.indexOf(placeOf(one.tags)) : places.length);
  const own = series
    .filter((one) => one.measurement === "ff_equipment_state" && one.time !== null)
    .sort((a, b) => rank(a) - rank(b) || (placeOf(a.tags) < placeOf(b.tags) ? -1 : 1))
    .slice(0, ROWS);
  if (own.length === 0) return [];
  const newest = Math.max(...own.map((one) => Date.parse(one.time)));
  const period = periodOf(range, newest, Math.max(...own.map(windowOf)));
  const fields = STATE_FIELDS.map(([field]) => field);
  return each(own, async (one) => {
    const answer = await steps(one.id, fields, period);
    const seconds = Object.fromEntries(fields.map((field) => [field, spread(answer, field, period)]));
    return { key: placeOf(one.tags), series: one, period, seconds };
  });
}

/** @returns {{element: HTMLElement, update: (ctx: object) => void}} */
export function effectPanel() {
  const frame = panel("oee");
  const list = h("ul.machines");
  const legend = h("p.legend");
  const pointed = h("p.pointed");
  frame.body.append(list, h("div.under", {}, legend, pointed));
  return {
    element: frame.element,
    update({ oeeOf, states, sites, site, nowMs }) {
      const rows = rowsOf(oeeOf?.items ?? [], states);
      frame.empty(rows.length ? "" : t("noMachines"));
      const period = states[0]?.period ?? oeeOf?.span;
      frame.note(period ? `${between(period, nowMs)} · ISO 22400-2 · ${t("lowestFirst")}` : "");
      const many = site === null && sites.length > 1;
      sync(list, rows.map((row) => ({ ...row, many, nowMs })), (row) => row.key, () => machine((words) => say(pointed, words)));
      const all = STATE_FIELDS.map(([field]) => [field, states.flatMap(({ seconds }) => seconds[field])]);
      const shares = states.length ? legendOf(Object.fromEntries(all)) : [];
      legend.replaceChildren(...shares.map(({ code, share }) =>
        h("span", {}, h(`i.state-${code}`, { "aria-hidden": "true" }), t("share", { state: t(`state.${code}`), percent: percent(share) }))));
    },
  };
}

function rowsOf(items, states) {
  const found = new Map(items.slice(0, ROWS).map((item) => [item.key, { key: item.key, state: null, item }]));
  for (const state of states) {
    if (found.has(state.key)) found.get(state.key).state = state;
    else if (found.size < ROWS) found.set(state.key, { key: state.key, state, item: null });
  }
  return [...found.values()];
}

function machine(onPoint) {
  const name = h("span.name");
  const firm = h("span.firm");
  const value = figure();
  const factors = FACTORS.map((factor) => ({ factor, ...factorBar(factor) }));
  const strip = stateStrip(onPoint);
  const element = h("li.machine", {},
    h("div.which", {}, name, firm), value.element, h("div.factors", {}, ...factors.map((one) => one.element)), strip.element);
  return {
    element,
    update({ key, item, state, many, nowMs }) {
      const [enterprise, , equipment] = JSON.parse(key);
      say(name, equipment || t("noEquipment"));
      say(firm, many ? enterprise : "");
      value.update(item?.oee == null
        ? { text: "–", origin: null } : { text: hundredths(item.oee), unit: "%", origin: item.origin });
      value.element.title ||= t("noOee");
      for (const one of factors) one.update(item?.[one.factor] ?? null);
      strip.element.hidden = state === null;
      if (state) strip.update({ ...state, name: t("stateOf", { name: equipment }), nowMs });
    },
  };
}

function factorBar(factor) {
  const fill = h("span.fill");
  const word = h("span.word");
  const element = h("span.factor", {}, word, h("span.track", { "aria-hidden": "true" }, fill));
  return {
    element,
    update(value) {
      const text = value === null ? "–" : hundredths(value, 0);
      say(word, `${t(`short.${factor}`)} ${text}`);
      element.title = `${t(`kpi.${factor}`)} ${value === null ? t("noData") : `${hundredths(value, 2)} %`}`;
      fill.style.width = `${Math.min(100, (value ?? 0) * 100)}%`;
      element.classList.toggle("absent", value === null);
    },
  };
}
