/**
 * The portrait of one enterprise: what is known of it, from where, and what is not known here.
 *
 * Only figures with a natural scale from 0 to 100 % are drawn; the others stand as numbers, because
 * no published pass marks were found to scale them by. What is absent is no point at the centre.
 * @module portrait
 */

import { h, s } from "./dom.js";
import { amount, date, hundredths, number } from "./format.js";
import { figure, fillOptions, panel } from "./panel.js";
import { t } from "./texts.js";
import { receivedOf } from "./totals.js";

const WIDTH = 250;
const HEIGHT = 196;
const RADIUS = 66;
const GRADES = 5;
const PER_VALUE = { denominator: "万元" };
const RINGS = [0.25, 0.5, 0.75, 1];

/** @returns {{element: HTMLElement, update: (ctx: object) => void}} */
export function portraitPanel() {
  const frame = panel("portrait");
  const picture = h("div.radar");
  const list = h("tbody");
  const sites = h("select", { "aria-label": t("scope") });
  sites.addEventListener("change", () => { wanted = sites.value; paint(); });
  frame.tools.append(sites);
  const table = h("table.axes", {}, list);
  frame.body.append(picture, table);
  let wanted = "";
  let ctx = null;
  let shown = "";

  function paint() {
    const site = ctx.site ?? ctx.sites.find((each) => each.key === wanted) ?? ctx.sites[0] ?? null;
    sites.hidden = ctx.site !== null || ctx.sites.length < 2;
    frame.empty(site ? "" : t("noFactories"));
    if (!site) return;
    fillOptions(sites, ctx.sites, site.key);
    sites.setAttribute("aria-label", t("scope"));
    const own = ctx.all.filter(({ tags }) => tags.enterprise_id === site.enterprise && tags.site_id === site.site);
    const oeeOf = ctx.oeeOf?.items.filter((one) => one.enterprise === site.enterprise && one.site === site.site) ?? [];
    const axes = axesOf(own, oeeOf, ctx.totals);
    frame.note(`${site.label} · ${t("portraitNote")}`);
    const now = JSON.stringify([site.key, axes.map((axis) => [axis.name, axis.value, axis.share]), document.documentElement.lang]);
    if (now === shown) return;
    shown = now;
    picture.replaceChildren(radar(axes.filter((axis) => axis.scaled)));
    list.replaceChildren(...axes.map(axisRow));
  }

  return { element: frame.element, update(next) { ctx = next; paint(); } };
}

/**
 * @param {object[]} series of one site, each with its newest row
 * @param {object[]} machines their OEE over the chosen period
 * @param {import("./totals.js").Totals|null} totals of the chosen period
 * @returns {object[]} axes: `name`, `value` and `unit` as text, `share` 0 to 1 or null, `source`, `origin`
 */
export function axesOf(series, machines, totals) {
  const newest = (measurement, field, tags = {}) => series
    .filter((one) => one.measurement === measurement && one.fields[field] != null)
    .filter((one) => Object.entries(tags).every(([name, value]) => one.tags[name] === value))
    .sort((a, b) => (a.time < b.time ? 1 : -1))[0] ?? null;
  const row = (name, one, field, share, value, unit, source, why = t(`why.${name}`)) => one === null
    ? missing(name, why, share !== null)
    : { name, scaled: share !== null, share: share?.(one.fields[field]) ?? null, ...value(one.fields[field], unit),
        source, origin: originOf(name, one, field, unit) };
  const ratio = (value) => value;
  const asPercent = (value) => ({ value: hundredths(value, 0), unit: "%" });
  const fact = (name, unit) => {
    const one = newest("ff_fact", "value", { fact: name });
    return row(name, one, "value", null, (value) => ({ value: number(value, 6), unit }), unit, one?.fields.source ?? "");
  };
  const green = newest("ff_fact", "value", { fact: "green_power_share" });
  return [
    oeeAxis(machines),
    row("quality", newest("ff_quality", "fpy") ?? newest("ff_oee", "quality_ratio"), newest("ff_quality", "fpy") ? "fpy" : "quality_ratio", ratio, asPercent, "1", t("from.released")),
    row("digital", newest("ff_connectivity", "digital_rate"), "digital_rate", ratio, asPercent, "1", t("from.released")),
    row("grade", newest("ce_intensity", "grade", PER_VALUE), "grade", (grade) => (GRADES + 1 - grade) / GRADES,
      (grade) => ({ value: t("gradeOf", { grade }), unit: "" }), "", t("from.carbon"), ungraded(newest("ce_intensity", "L", PER_VALUE))),
    row("green", green, "value", ratio, asPercent, "1", green?.fields.source ?? ""),
    trustAxis(totals, series),
    fact("value_added", "万元"), fact("profit", "万元"), fact("tax", "万元"), fact("rd_spending", "万元"),
    row("per_mu", newest("ce_intensity", "kgco2e_per_unit", { denominator: "亩" }), "kgco2e_per_unit", null,
      (value) => { const { text, unit } = amount(value, "kg CO₂e"); return { value: text, unit: `${unit}/亩` }; }, "kg CO₂e/亩", t("from.carbon")),
    missing("market_share", t("why.market_share"), false),
  ];
}

/** Without most of its period's data a firm has no grade, whatever was entered. */
function ungraded(perValue) {
  return perValue === null ? undefined : t("why.graded", { value: number((perValue.fields.coverage ?? 0) * 100, 2) });
}

function missing(name, source, scaled) {
  return { name, scaled, share: null, value: null, unit: "", source, origin: null };
}

function oeeAxis(machines) {
  const used = machines.filter((one) => one.oee !== null);
  const sum = (field) => used.reduce((total, one) => total + one[field], 0);
  if (used.length === 0 || sum("pbt_s") <= 0) return missing("oee", t("why.oee"), true);
  const share = sum("valuable_s") / sum("pbt_s");
  const parts = used.flatMap((one) => one.origin.parts);
  const origin = { ...used[0].origin, title: "OEE", value: `${hundredths(share, 2)} %`, parts, notes: [] };
  return { name: "oee", scaled: true, share, value: hundredths(share), unit: "%", source: t("from.released"), origin };
}

/** Of the main meters in the chosen period: the newest hour is never complete yet. */
function trustAxis(totals, series) {
  const ids = new Set(series.map((one) => one.id));
  const own = totals?.energy.filter((column) => ids.has(column.series.id)) ?? [];
  const { share } = totals ? receivedOf(totals, (one) => ids.has(one.id)) : { share: null };
  if (share === null) return missing("trust", t("why.trust"), true);
  const origin = {
    title: t("axis.trust"), value: `${hundredths(share, 2)} %`, span: totals.period, how: t("how.coverage"),
    parts: own.map((column) => ({ series: column.series, text: "" })),
  };
  return { name: "trust", scaled: true, share, value: hundredths(share, 0), unit: "%", source: t("from.released"), origin };
}

/** What people entered says itself where it is from, and when. */
function sourceOf(one) {
  if (one === null) return "";
  const { source = "", entered = "" } = one.fields;
  const until = one.fields.until ? ` – ${one.fields.until}` : "";
  return t("from.people", { source, entered, span: `${date(Date.parse(one.time))}${until}` });
}

function originOf(name, one, field, unit) {
  const { value } = { value: one.fields[field] };
  const told = one.measurement === "ff_fact" ? [sourceOf(one)] : [];
  const windowMs = Number(one.fields.window_s ?? 0) * 1000;
  const start = Date.parse(one.time);
  return {
    title: t(`axis.${name}`), value: `${number(value)} ${unit === "1" ? "" : unit}`.trim(), how: t(`how.${one.measurement}`),
    span: windowMs ? { start, end: start + windowMs } : null, parts: [{ series: one, text: "" }], notes: told,
  };
}

function axisRow(axis) {
  const value = figure(".small");
  value.update({ text: axis.value ?? t("absent"), unit: axis.value === null ? "" : axis.unit, origin: axis.origin });
  return h(`tr${axis.value === null ? ".absent" : ""}`, {},
    h("th", { scope: "row" }, t(`axis.${axis.name}`)), h("td.num", {}, value.element), h("td.soft", { title: axis.source }, axis.source));
}

function radar(axes) {
  const at = (place, share) => {
    const angle = (place / axes.length) * 2 * Math.PI - Math.PI / 2;
    return [WIDTH / 2 + Math.cos(angle) * RADIUS * share, HEIGHT / 2 + Math.sin(angle) * RADIUS * share];
  };
  const ring = (share) => s("polygon.ring", { points: axes.map((_, place) => at(place, share).map((n) => n.toFixed(1)).join()).join(" ") });
  const spokes = axes.map((axis, place) => {
    const [x2, y2] = at(place, 1);
    return s(`line.spoke${axis.share === null ? ".absent" : ""}`, { x1: WIDTH / 2, y1: HEIGHT / 2, x2, y2 });
  });
  const known = axes.map((axis, place) => ({ ...axis, place })).filter((axis) => axis.share !== null);
  const points = known.map(({ place, share }) => at(place, Math.min(1, Math.max(0, share))));
  const shape = known.length === axes.length
    ? [s("polygon.shape", { points: points.map((point) => point.map((n) => n.toFixed(1)).join()).join(" ") })] : lines(axes, at);
  const dots = points.map(([cx, cy]) => s("circle.point", { cx, cy, r: 3.5 }));
  const names = axes.map((axis, place) => {
    const [x, y] = at(place, 1.14);
    const anchor = Math.abs(x - WIDTH / 2) < 8 ? "middle" : x < WIDTH / 2 ? "end" : "start";
    return s(`text.axis-name${axis.value === null ? ".absent" : ""}`, { x, y: y + 4, "text-anchor": anchor }, t(`radar.${axis.name}`));
  });
  const said = axes.map((axis) => `${t(`axis.${axis.name}`)} ${axis.value === null ? t("absent") : `${axis.value} ${axis.unit}`}`);
  return s("svg.radar", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": said.join(", ") },
    ...RINGS.map(ring), ...spokes, ...shape, ...dots, ...names);
}

/** Where an axis is absent the outline is open there: nobody may read a dent as a low value. */
function lines(axes, at) {
  return axes.flatMap((axis, place) => {
    const next = (place + 1) % axes.length;
    if (axis.share === null || axes[next].share === null) return [];
    const [[x1, y1], [x2, y2]] = [at(place, axis.share), at(next, axes[next].share)];
    return [s("line.edge", { x1, y1, x2, y2 })];
  });
}
