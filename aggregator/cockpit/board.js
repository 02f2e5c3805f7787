/**
 * The board: all panels, what each of them needs, and when it is asked for anew.
 * @module board
 */

import { loadAlarms, alarmsPanel } from "./alarms.js";
import { NotThere } from "./api.js";
import { balancePanel, loadBalance } from "./balance.js";
import { effectPanel, loadOee, loadStates } from "./effect.js";
import { firmsPanel } from "./firms.js";
import { changes } from "./kept.js";
import { portraitPanel } from "./portrait.js";
import { rankingPanel } from "./ranking.js";
import { agentsOf, within } from "./scope.js";
import { tiles } from "./tiles.js";
import { countedIn, loadTotals } from "./totals.js";
import { trendPanel } from "./trend.js";

const ANEW_MS = 60_000; // late slots are filled in without moving the newest time
const ALARMS_MS = 10_000;
const RANKING_MS = 120_000;

const NOTHING = { totals: null, oeeOf: null, states: [], balances: [], alarms: null };

const scopeOf = ({ site, range }) => JSON.stringify([site?.key, range]);
const timesOf = (series, measurement) =>
  series.filter((one) => one.measurement === measurement).map((one) => [one.id, one.time]);

/**
 * @param {HTMLElement} tileArea
 * @param {HTMLElement} area
 * @param {{choose: (enterprise: string) => void, again: () => void}} does
 * @returns {{show: (told: object) => void, refresh: () => Promise<void>, clear: () => void}}
 */
export function board(tileArea, area, { choose, again }) {
  const loaded = { ...NOTHING };
  const asked = new Map();
  let parts = [];
  let ranks = null;
  let told = null;
  let painted = "";

  function build() {
    const first = tiles();
    ranks = rankingPanel(again);
    const panels = [
      firmsPanel(choose), trendPanel(), effectPanel(), alarmsPanel(), ranks, balancePanel(), portraitPanel(),
    ];
    parts = [first, ...panels];
    tileArea.append(...first.elements);
    area.append(...panels.map((one) => one.element));
  }

  function context() {
    const { series, factories, site } = told;
    return { ...told, ...loaded, all: series, series: within(series, site), agents: agentsOf(factories, site) };
  }

  /** What was loaded for another scope is not shown as this one's: it is dimmed until it is replaced. */
  function paint() {
    const current = painted === scopeOf(told);
    for (const element of [tileArea, area]) {
      element.classList.toggle("busy", !current);
      element.setAttribute("aria-busy", String(!current));
    }
    if (!current) return;
    const ctx = context();
    for (const one of parts) one.update(ctx);
  }

  /** Asks only where something it depends on moved, or a while has passed. */
  async function renew(name, depends, everyMs, load) {
    const key = JSON.stringify([depends, scopeOf(told), Math.floor(told.nowMs / everyMs)]);
    if (asked.get(name) === key) return;
    const answer = await load();
    asked.set(name, key);
    if (answer !== undefined) loaded[name] = answer;
  }

  async function refresh() {
    const mine = told;
    const { site, range } = mine;
    const { series } = context();
    const counted = countedIn(series);
    await renew("totals", [changes(), counted.times, counted.main.length], ANEW_MS, () => loadTotals({ ...counted, cut: counted.cut || mine.cut }, range, mine.factories));
    const period = loaded.totals?.period ?? null;
    await Promise.all([
      renew("balances", [changes(), timesOf(series, "ce_balance")], ANEW_MS, () => loadBalance(series, period)),
      renew("oeeOf", timesOf(series, "ff_oee"), ANEW_MS, () => optional(() => loadOee(series, site, period), null))
        .then(() => renew("states", [changes(), timesOf(series, "ff_equipment_state")], ANEW_MS, () => loadStates(series, range, loaded.oeeOf?.items ?? []))),
      renew("alarms", timesOf(series, "ff_check"), ALARMS_MS, () => loadAlarms(series, site)),
      renew("ranking", ranks.kind(), RANKING_MS, () => optional(ranks.load)),
    ]);
    if (told === null || scopeOf(told) !== scopeOf(mine)) return;
    painted = scopeOf(told);
    paint();
  }

  return {
    show(next) {
      told = next;
      if (parts.length === 0) build();
      paint();
    },
    refresh,
    clear() {
      told = null;
      painted = "";
      parts = [];
      asked.clear();
      Object.assign(loaded, NOTHING);
      tileArea.querySelectorAll("article").forEach((one) => one.remove());
      area.replaceChildren();
    },
  };
}

/** An older aggregator may not have it: then the panel says that there is nothing. */
async function optional(load, otherwise) {
  try {
    return await load();
  } catch (fault) {
    if (fault instanceof NotThere) return otherwise;
    throw fault;
  }
}
