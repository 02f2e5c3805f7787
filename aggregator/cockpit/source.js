/**
 * Where a number comes from: the series it is made of, the factor, the batches, the release sheet.
 * @module source
 */

import { provenance } from "./api.js";
import { h } from "./dom.js";
import { between, clock, number } from "./format.js";
import { factorText } from "./figures.js";
import { t, term } from "./texts.js";

const MOST_PARTS = 60;
const MOST_BATCHES = 25;

/**
 * @param {HTMLDialogElement} dialog
 * @param {() => number} now
 * @returns {(origin: import("./panel.js").Origin) => void} shows an origin
 */
export function sourceDialog(dialog, now) {
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  return (origin) => {
    const close = h("button.quiet", { type: "button", "aria-label": t("close") }, "✕");
    close.addEventListener("click", () => dialog.close());
    const sorted = titled(origin.parts).sort((a, b) => a.title.localeCompare(b.title, "zh-CN", { numeric: true }));
    const parts = sorted.slice(0, MOST_PARTS).map(({ part, title }) => partView(part, title, origin.span, now));
    if (parts.length === 1) parts[0].open = true;
    dialog.replaceChildren(
      h("header", {}, h("div", {}, h("p.soft", {}, t("whereFrom")), h("h2", { id: "source-title" }, origin.title)), close),
      h("p.exact", {}, origin.value),
      h("dl.facts", {},
        fact("timeSpan", origin.span ? between(origin.span, now()) : t("newestRow")),
        fact("howMade", origin.how),
        ...(origin.notes ?? []).filter(Boolean).map((note) => fact("remark", note))),
      ...(parts.length ? [h("h3", {}, t("madeOf", { count: number(origin.parts.length) }))] : []),
      ...parts,
      ...(origin.parts.length > MOST_PARTS ? [h("p.soft", {}, t("firstParts", { count: number(MOST_PARTS) }))] : []),
    );
    dialog.showModal();
  };
}

const fact = (key, value) => h("div", {}, h("dt", {}, t(key)), h("dd", {}, value));

function partView({ series, text }, title, span, now) {
  const { measurement } = series;
  const body = h("div.batches", {}, h("p.soft", {}, t("asking")));
  const element = h("details.part", {},
    h("summary", {}, h("span", {}, title), h("code", {}, measurement), h("strong", {}, text)), body);
  let asked = false;
  element.addEventListener("toggle", () => {
    if (!element.open || asked) return;
    asked = true;
    fill(body, series, span, now).catch((fault) => {
      asked = false;
      body.replaceChildren(h("p.fault", {}, t("noSource", { why: fault.title ?? "" })));
    });
  });
  return element;
}

/** Names series so that no two look alike: where words do not tell them apart, the tags in which they differ do. */
function titled(parts) {
  const named = parts.map((part) => ({ part, title: titleOf(part.series.tags) || t("noEquipment") }));
  return named.map(({ part, title }) => {
    const alike = named.filter((other) => other.title === title).map((other) => other.part.series);
    return { part, title: [title, ...differing(part.series, alike)].join(" · ") };
  });
}

function differing(series, alike) {
  const names = new Set(alike.flatMap(({ tags }) => Object.keys(tags)));
  return [...names].filter((name) => !WORDS.has(name) && alike.some(({ tags }) => tags[name] !== series.tags[name]))
    .map((name) => `${name}=${series.tags[name] ?? ""}`);
}

/** How tags that stand in a title are said; of others it shows those in which alike series differ. */
const WORDS = new Map([
  ["enterprise_id", (value) => value],
  ["equipment_id", (value) => value],
  ["measurand", (value) => term("measurand", value)],
  ["medium", (value) => term("medium", value)],
  ["meter_role", (value) => term("role", value)],
  ["scope", (value) => t("scopeOf", { scope: value })],
  ["method", (value) => term("method", value)],
  ["tariff", (value) => t("tariffOf", { tariff: term("tariff", value) })],
]);

function titleOf(tags) {
  return [...WORDS].filter(([name]) => tags[name]).map(([name, words]) => words(tags[name])).join(" · ");
}

async function fill(body, series, span, now) {
  const told = await provenance(series.id, span);
  const { tags } = series;
  const marks = Object.entries(tags).filter(([name]) => !["enterprise_id", "equipment_id"].includes(name));
  const batches = told.sources.slice(-MOST_BATCHES).reverse();
  body.replaceChildren(
    h("p.tags", {}, ...marks.map(([name, value]) => h("code", {}, `${name}=${value}`))),
    ...(tags.factor_id ? [h("p.factor-line", {}, factorText(tags.factor_id, series.fields))] : []),
    ...(batches.length ? [batchTable(batches, now), h("p.soft.small", {}, moreText(told))] : [h("p", {}, t("noBatches"))]),
  );
}

function moreText({ sources, more }) {
  const all = more ? `> ${number(sources.length)}` : number(sources.length);
  const shown = sources.length > MOST_BATCHES ? `${t("newestBatches", { count: number(MOST_BATCHES), all })} ` : "";
  return shown + t("receiptNote");
}

function batchTable(batches, now) {
  const head = ["arrived", "chainPlace", "logLeaf", "digest", "sheetAndPolicy", "pointNumbers"];
  const rows = batches.map((batch) => h("tr", {},
    h("td", {}, clock(Date.parse(batch.received), now())),
    h("td", { title: `stream ${batch.stream}` }, t("chainAt", { sequence: number(batch.sequence), epoch: batch.epoch })),
    h("td.num", {}, batch.log_place === null ? "–" : number(batch.log_place)),
    h("td", {}, h("code", { title: batch.digest }, `${batch.digest.slice(0, 12)}…`)),
    h("td", {}, h("code", { title: batch.sheet }, `${batch.sheet.slice(0, 8)}…`), ` · v${batch.policy_version}${batch.erased ? ` · ${t("erased")}` : ""}`),
    h("td.num", {}, batch.points.join(", "))));
  return h("div.scroll", { tabindex: 0, role: "region", "aria-label": t("batchesBehind") },
    h("table", {}, h("thead", {}, h("tr", {}, ...head.map((key) => h("th", { scope: "col" }, t(key))))), h("tbody", {}, ...rows)));
}
