/**
 * The charts of one equipment: what they need, when they need it anew, and their headings.
 * @module charts
 */

import { each, steps } from "./api.js";
import { h, say, sync } from "./dom.js";
import { number, percent, span } from "./format.js";
import { changes } from "./kept.js";
import { addable, metersOf, periodOf, slotsOf, spread, STATE_FIELDS, sumOf, unitOfEnergy, unitText, windowOf } from "./model.js";
import { stackFigure } from "./stack.js";
import { legendOf, stateFigure } from "./states.js";
import { tariffParts } from "./sums.js";
import { t, term } from "./texts.js";
import { together } from "./totals.js";

const MOST_OF_A_KIND = 3;
const ANEW_MS = 60_000; // late slots are filled in without moving the newest time

/** @returns {{element: HTMLElement, update: (equipment: object, nowMs: number) => void,
 *   refresh: (range: string, nowMs: number) => Promise<void>}} */
export function chartPanel() {
  const element = h("div.charts");
  let views = [];
  return {
    element,
    update(equipment, nowMs) {
      const charts = chartsOf(equipment).map((chart) => ({ ...chart, nowMs }));
      views = sync(element, charts, (chart) => metersOf(chart.series), chartView);
    },
    async refresh(range, nowMs) {
      for (const view of views) await view.refresh(range, nowMs);
    },
  };
}

/**
 * @param {import("./model.js").Equipment} equipment
 * @returns {object[]} what to draw: `kind`, `series`, `field`, `carbon` beside it
 */
function chartsOf(equipment) {
  const meters = new Map();
  for (const series of equipment.energy.filter((one) => one.time !== null)) {
    meters.set(metersOf(series), [...(meters.get(metersOf(series)) ?? []), series]);
  }
  const amounts = [
    ...[...meters.values()].map((own) => ({ own, series: newestIn(own), field: "energy" })),
    ...equipment.activities.map((series) => ({ own: [series], series, field: "activity" })),
  ].slice(0, MOST_OF_A_KIND);
  const emissions = addable(equipment.emissions);
  const taken = new Set();
  const bars = amounts.map(({ own, series, field }) => {
    const { medium } = series.tags;
    const carbon = taken.has(medium) ? [] : emissions.filter((each) => each.tags.medium === medium);
    taken.add(medium);
    return { kind: amountKind, own, series, field, carbon };
  });
  const states = equipment.states.slice(0, MOST_OF_A_KIND);
  return [...bars, ...states.map((series) => ({ kind: stateKind, own: [series], series, carbon: [] }))]
    .filter((chart) => chart.series.time !== null);
}

const newestIn = (own) => own.reduce((best, one) => (one.time > best.time ? one : best));

function chartView(first) {
  const legend = h("p.legend");
  const total = h("p.total");
  let resting = "";
  const { figure, load, show } = first.kind((words) => say(total, words || resting));
  const element = h("div.chart", {}, h("header", {}, legend, total), figure.element);
  let chart = first;
  let asked = "";
  let data = null;

  function paint() {
    if (data === null) return;
    const nowMs = chart.nowMs;
    const { name, marks, sum } = show(chart, data);
    const sign = (kind) => h(`i.${kind}`, { "aria-hidden": "true" });
    legend.replaceChildren(...marks.map(([kind, text]) => h("span", {}, sign(kind), text)));
    resting = sum;
    figure.update({ ...data, name, nowMs });
  }

  return {
    element,
    update(next) { chart = next; paint(); },
    async refresh(range, nowMs) {
      const times = [...chart.own, ...chart.carbon].map((each) => each.time);
      const wanted = JSON.stringify([range, times, changes(), Math.floor(nowMs / ANEW_MS)]);
      if (wanted === asked) return;
      const period = periodOf(range, Date.parse(chart.series.time), windowOf(chart.series));
      data = { period, ...(await load(chart, period)) };
      asked = wanted;
      paint();
    },
  };
}

function amountKind(onPoint) {
  return { figure: stackFigure(onPoint), load: loadAmount, show: showAmount };
}

async function loadAmount({ own, series, field, carbon }, period) {
  const columns = await each(own, async (one) => {
    const answer = await steps(one.id, [field, "window_s"], period);
    return { series: one, values: spread(answer, field, period), seconds: spread(answer, "window_s", period) };
  });
  const emitted = await each(carbon, async (one) => ({
    series: one, values: spread(await steps(one.id, ["co2e_kg"], period), "co2e_kg", period),
  }));
  const covered = sumOf(columns.map((column) => column.seconds));
  const unit = unitOfEnergy(series) || unitText(series.fields.unit ?? "");
  const line = { unit: "kg CO₂e", values: together(emitted, period.count) };
  return { parts: tariffParts(columns, period.count), slots: slotsOf(covered, series, period), line, unit };
}

function showAmount({ series }, { period, parts, slots, line, unit }) {
  const amounts = sumOf(parts.map((part) => part.values));
  const carbon = line.values;
  const { medium = "", meter_role: role } = series.tags;
  const words = [term("medium", medium), role && term("role", role)].filter(Boolean);
  const what = t("energyOf", { medium: words.join(" · ") });
  const name = t("perStep", { name: what, unit, step: span(period.stepS) });
  const several = parts.length > 1 ? parts.map((part) => [part.kind, part.name]) : [];
  const marks = [[several.length ? "none" : "plain", name], ...several];
  const sums = [];
  const add = (values, of, digits) => {
    const there = values.filter((value) => value !== null);
    if (there.length) sums.push(`${number(there.reduce((a, b) => a + b, 0), digits)} ${of}`);
  };
  add(amounts, unit, 9);
  if (carbon.some((value) => value !== null)) {
    marks.push(["line", t("cumulated")]);
    add(carbon, "kg CO₂e", 4);
  }
  const sum = t("inView", { sum: sums.join(" · ") || t("noData"), slots: slotsText(slots) });
  return { name, marks, sum };
}

function stateKind(onPoint) {
  return { figure: stateFigure(onPoint), load: loadStates, show: showStates };
}

async function loadStates({ series }, period) {
  const fields = STATE_FIELDS.map(([field]) => field);
  const answer = await steps(series.id, fields, period);
  const seconds = Object.fromEntries(fields.map((field) => [field, spread(answer, field, period)]));
  return { seconds, slots: slotsOf(sumOf(Object.values(seconds)), series, period) };
}

function showStates(_, { period, seconds, slots }) {
  const name = t("stateShare", { step: span(period.stepS) });
  const marks = legendOf(seconds).map(({ code, share }) => [
    `state-${code}`, t("share", { state: t(`state.${code}`), percent: percent(share) }),
  ]);
  return { name, marks, sum: slotsText(slots) };
}

function slotsText({ present, expected }) {
  const total = (counts) => number(counts.reduce((a, b) => a + b, 0));
  return t("slotsOf", { present: total(present), all: total(expected) });
}
