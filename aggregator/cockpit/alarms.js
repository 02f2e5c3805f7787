/**
 * Early warnings and what the aggregator's own checks found.
 * @module alarms
 */

import { alarms as ask, NotThere } from "./api.js";
import { h, say, sync } from "./dom.js";
import { clock, localMoments, number } from "./format.js";
import { panel } from "./panel.js";
import { inWords, t, texts } from "./texts.js";

const MOST = 7;
const GRAVEST = ["fault", "warning", "check"];

/**
 * @typedef {object} Alarms
 * @property {"alarms"|"checks"} from
 * @property {{key: string, level: string, firm: string, words: {en: string, zh: string}, since: number, code: string}[]} list gravest first
 */

/**
 * @param {object[]} series in scope
 * @param {object} site or null
 * @returns {Promise<Alarms>}
 */
export async function loadAlarms(series, site) {
  const checks = checksIn(series);
  let told = null;
  try {
    told = await ask();
  } catch (fault) {
    if (!(fault instanceof NotThere)) throw fault;
  }
  const open = (told ?? []).map((one) => ({
    key: `alarm-${one.id}`, level: one.severity, firm: one.name || t("theBrain"), words: one.text, since: Date.parse(one.since), code: one.kind,
  }));
  const own = open.filter((one) => site === null || one.firm === site.enterprise);
  const list = [...own, ...checks].sort((a, b) => GRAVEST.indexOf(a.level) - GRAVEST.indexOf(b.level) || b.since - a.since);
  return { from: told === null ? "checks" : "alarms", list };
}

/** The newest hour of each cross check that did not hold, and data refused as a second source. */
function checksIn(series) {
  return series.flatMap(({ id, measurement, tags, fields, time }) => {
    const failed = measurement === "ff_check" && fields.status === "ANOMALY";
    if (!failed && measurement !== "ff_refused") return [];
    const code = failed ? tags.check : `second-source:${tags.measurand}`;
    const [name] = code.split(":");
    const of = [tags.enterprise_id, tags.equipment_id].filter(Boolean).join(" · ");
    return [{ key: id, level: "check", firm: of, words: texts(`check.${name}`), since: Date.parse(time), code }];
  });
}

/** @returns {{element: HTMLElement, update: (ctx: object) => void}} */
export function alarmsPanel() {
  const frame = panel("alarms");
  const list = h("ul.rows.alarm-rows");
  const rest = h("p.soft.small");
  frame.body.append(list, rest);
  return {
    element: frame.element,
    update({ alarms, nowMs }) {
      frame.note(alarms ? t(alarms.from === "alarms" ? "alarmsNote" : "checksNote") : "");
      frame.empty(!alarms ? t("noData") : alarms.list.length ? "" : t("noAlarms"));
      if (!alarms) return;
      sync(list, alarms.list.slice(0, MOST).map((one) => ({ one, nowMs })), ({ one }) => one.key, row);
      const more = alarms.list.length - MOST;
      rest.hidden = more <= 0;
      say(rest, t("moreAlarms", { count: number(Math.max(0, more)) }));
    },
  };
}

function row() {
  const level = h("span.level");
  const firm = h("span.name");
  const since = h("span.soft.small");
  const words = h("p.words");
  const element = h("li.alarm", {}, h("div.line", {}, h("div", {}, level, firm), since), words);
  return {
    element,
    update({ one, nowMs }) {
      element.dataset.level = one.level;
      element.title = one.code;
      say(level, t(`level.${one.level}`));
      say(firm, one.firm);
      say(since, clock(one.since, nowMs));
      say(words, localMoments(inWords(one.words), nowMs));
    },
  };
}
