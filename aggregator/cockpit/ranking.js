/**
 * Firms by one figure, as far as the aggregator tells it: who is not ranked is there, with the reason.
 * @module ranking
 */

import { ranking } from "./api.js";
import { h, say, sync } from "./dom.js";
import { hundredths, number } from "./format.js";
import { figure, fillOptions, panel } from "./panel.js";
import { t } from "./texts.js";

const KINDS = ["oee", "carbon_per_value", "carbon_per_area", "co2e"];
const MOST = 8;
const LEAST_SHOWN = 0.01;
const MEASUREMENT = { oee: "ff_oee", co2e: "ce_emission", carbon_per_value: "ce_intensity", carbon_per_area: "ce_intensity" };

/**
 * @param {() => void} again asks for what was chosen
 * @returns {{element: HTMLElement, update: (ctx: object) => void, kind: () => string, load: () => Promise<void>}}
 */
export function rankingPanel(again) {
  const frame = panel("ranking");
  const kinds = h("select");
  const list = h("ol.rows.ranks");
  const mean = h("p.soft.small");
  let kind = "oee";
  let found = null;
  kinds.addEventListener("change", () => { kind = kinds.value; again(); });
  frame.tools.append(kinds);
  frame.body.append(list, mean);
  return {
    element: frame.element,
    kind: () => kind,
    async load() { found = await ranking(kind); },
    update({ series, site }) {
      fillOptions(kinds, KINDS.map((name) => ({ key: name, label: t(`rank.${name}`) })), kind);
      kinds.setAttribute("aria-label", t("rankedBy"));
      frame.empty(emptyOf(found));
      if (!found) return;
      const { better, unit, period, least_ranked: least, protected: rule } = found;
      frame.note(`${period} · ${unitOf(unit)} · ${t(`better.${better}`)}`);
      const rows = found.firms.slice(0, MOST).map((firm) => ({ firm, found, series, site, kind }));
      sync(list, rows, ({ firm }) => firm.enterprise, row);
      const said = [rule ? t(`protected.${rule}`, { count: number(least) }) : t("meanOf", { value: shown(found.mean, unit), count: number(found.taking_part) })];
      if (found.firms.length > MOST || found.next) said.push(t("moreFirms"));
      say(mean, said.join(" "));
    },
  };
}

function emptyOf(found) {
  if (found === null) return t("noRanking");
  return found.firms.length ? "" : t("noneRanked");
}

const unitOf = (unit) => (unit === "1" ? "%" : unit === "kg" ? "kg CO₂e" : unit.replace("t/", "t CO₂e/"));
const shown = (value, unit) => (value === null ? t("noData") : unit === "1" ? `${hundredths(value)} %` : `${number(value, 4)} ${unitOf(unit)}`);

function row() {
  const place = h("span.place");
  const name = h("span.name");
  const value = figure();
  const fill = h("span.fill");
  const coverage = h("span.soft.small");
  const reason = h("p.soft.small");
  const track = h("span.track", { "aria-hidden": "true" }, fill);
  const element = h("li", {}, place, h("div", {}, h("div.line", {}, h("div", {}, name, " ", coverage), value.element), track, reason));
  return {
    element,
    update({ firm, found, series, site, kind }) {
      const { unit } = found;
      say(place, firm.rank === null ? "–" : number(firm.rank));
      say(name, firm.enterprise);
      element.toggleAttribute("data-own", site?.enterprise === firm.enterprise);
      element.dataset.excluded = firm.excluded ?? "";
      const known = firm.value !== null;
      value.update({
        text: known ? (unit === "1" ? hundredths(firm.value) : number(firm.value, 4)) : "–", unit: known && unit === "1" ? "%" : "",
        origin: known ? originOf(firm, found, series, kind) : null,
      });
      const most = Math.max(...found.firms.map((each) => each.value ?? 0));
      fill.style.width = `${known && most > 0 ? (firm.value / most) * 100 : 0}%`;
      const excluded = firm.excluded !== null;
      track.hidden = excluded;
      reason.hidden = !excluded;
      say(coverage, excluded ? "" : coverageOf(firm));
      say(reason, excluded ? reasonOf(firm, found) : "");
    },
  };
}

/** What came is never 0 %, however little. */
function coverageOf({ coverage }) {
  return t("coverageOf", { value: coverage > 0 && coverage < LEAST_SHOWN ? `< ${hundredths(LEAST_SHOWN, 0)}` : hundredths(coverage, 0) });
}

function reasonOf(firm, found) {
  const covered = coverageOf(firm);
  if (firm.excluded === "absent") return t("excluded.absent");
  if (firm.excluded === "coverage") return `${covered} · ${t("excluded.coverage", { value: hundredths(found.least_coverage, 0) })}`;
  return covered;
}

function originOf(firm, found, series, kind) {
  const parts = series
    .filter((one) => one.measurement === MEASUREMENT[kind] && one.tags.enterprise_id === firm.enterprise)
    .filter((one) => one.measurement !== "ce_emission" || ["location", "direct"].includes(one.tags.method))
    .map((one) => ({ series: one, text: "" }));
  return {
    title: `${firm.enterprise} · ${t(`rank.${kind}`)}`, value: shown(firm.value, found.unit), parts, how: t(`how.${MEASUREMENT[kind]}`),
    span: { start: Date.parse(found.start), end: Date.parse(found.end) }, notes: [reasonOf(firm, found)],
  };
}
