/**
 * The first line: a few numbers that can be read from metres away.
 * @module tiles
 */

import { h, say } from "./dom.js";
import { amount, between, hundredths, number } from "./format.js";
import { figure } from "./panel.js";
import { presenceOf } from "./presence.js";
import { carbonOf, ELECTRICITY, energyOf } from "./sums.js";
import { t } from "./texts.js";
import { receivedOf } from "./totals.js";

const NAMES = ["factories", "energy", "carbon", "oee", "coverage", "alarms"];

/** @returns {{elements: HTMLElement[], update: (ctx: object) => void}} */
export function tiles() {
  const all = Object.fromEntries(NAMES.map((name) => [name, tile(name)]));
  return {
    elements: NAMES.map((name) => all[name].element),
    update(ctx) {
      const shown = { factories, energy, carbon, oee, coverage, alarms };
      for (const name of NAMES) all[name].update(shown[name](ctx));
    },
  };
}

function tile(name) {
  const label = h("h3", { "data-text": `tile.${name}` }, t(`tile.${name}`));
  const value = figure(".big");
  const more = h("p.more-of");
  const span = h("p.span");
  const element = h(`article.tile.${name}`, {}, label, value.element, more, span);
  return {
    element,
    update(shown) {
      value.update(shown);
      say(more, shown.more ?? "");
      say(span, shown.span ?? "");
      element.dataset.level = shown.level ?? "";
    },
  };
}

const absent = (more = "") => ({ text: "–", origin: null, more });

function factories({ agents, nowMs }) {
  if (agents.length === 0) return absent();
  const presences = agents.map((each) => presenceOf(each, nowMs));
  const count = (wanted) => presences.filter((each) => each === wanted).length;
  const troubles = ["silent", "offline", "unsaid", "quarantined", "revoked"].filter((each) => count(each) > 0);
  const more = troubles.map((each) => `${number(count(each))} ${t(each)}`).join(" · ");
  const value = `${number(count("online"))} / ${number(agents.length)}`;
  return {
    text: value, unit: t("onlineUnit"), more: more || t("allOnline"), span: t("spanNow"),
    level: count("silent") + count("offline") + count("quarantined") > 0 ? "warn" : "good",
    origin: { title: t("tile.factories"), value, span: null, parts: [], how: t("how.presence") },
  };
}

function energy({ totals, nowMs }) {
  const found = totals && energyOf(totals, ELECTRICITY);
  if (!found || found.total === null) return absent(t("noMain"));
  const { text, unit } = amount(found.total, "kWh");
  const tce = totals.cut ? t("tooMany") : found.tce === null ? "" : t("tceOf", { value: number(found.tce, 4) });
  return { text, unit, more: tce, span: between(totals.period, nowMs), origin: found.origin };
}

function carbon({ totals, nowMs }) {
  const found = totals && carbonOf(totals, "location");
  if (!found || found.total === null) return absent(t("noFactor"));
  const { text, unit } = amount(found.total, "kg CO₂e");
  const market = carbonOf(totals, "market");
  const other = totals.cut ? t("tooMany") : market.scope2 === null ? t("noMarket") : t("marketIs", shown(market.total));
  return { text, unit, more: other, span: between(totals.period, nowMs), origin: found.origin };
}

function shown(kg) {
  const { text, unit } = amount(kg, "kg CO₂e");
  return { value: `${text} ${unit}` };
}

function oee({ oeeOf, nowMs }) {
  if (!oeeOf || oeeOf.whole.oee === null) return absent(t(oeeOf ? "noOee" : "noOeeSeries"));
  const { availability, performance, quality_ratio: quality } = oeeOf.whole;
  const factors = [["A", availability], ["P", performance], ["Q", quality]]
    .filter(([, value]) => value !== null).map(([name, value]) => `${name} ${hundredths(value, 0)}`);
  return {
    text: hundredths(oeeOf.whole.oee), unit: "%", more: `${factors.join(" × ")} %`,
    span: between(oeeOf.span, nowMs), origin: oeeOf.whole.origin,
  };
}

function coverage({ totals, nowMs }) {
  if (!totals) return absent();
  const { share, present, expected } = receivedOf(totals, () => true);
  if (share === null) return absent();
  return {
    text: hundredths(share), unit: "%", span: between(totals.period, nowMs),
    more: t("slotsOf", { present: number(present), all: number(expected) }), level: share < 0.95 ? "warn" : "good",
    origin: {
      title: t("tile.coverage"), value: `${hundredths(share, 2)} %`, span: totals.period, how: t("how.coverage"),
      parts: totals.energy.map(({ series }) => ({ series, text: "" })),
    },
  };
}

function alarms({ alarms: found }) {
  if (!found) return absent();
  const faults = found.list.filter((each) => each.level === "fault").length;
  const value = number(found.list.length);
  return {
    text: value, more: found.list.length ? t("faultsOf", { count: number(faults) }) : t("noAlarms"),
    span: t(found.from === "alarms" ? "spanOpen" : "spanChecks"),
    level: faults ? "bad" : found.list.length ? "warn" : "good",
    origin: { title: t("tile.alarms"), value, span: null, parts: [], how: t(`how.${found.from}`) },
  };
}
