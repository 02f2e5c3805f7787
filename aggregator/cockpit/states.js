/**
 * The machine's time: of each slot, which share it spent in which state.
 * @module states
 */

import { s } from "./dom.js";
import { clock, percent } from "./format.js";
import { STATE_FIELDS } from "./model.js";
import { gaps, slotFigure } from "./slots.js";
import { t } from "./texts.js";

const HEIGHT = 62;
const BASE = 38;
const STRIP = 20;

/**
 * @param {(words: string) => void} onPoint is told the slot pointed at, "" for none
 * @returns {{element: HTMLElement, update: (data: object) => void}} data: `period`, `nowMs`,
 *   `name` and `seconds`, for each state field one number or null per slot
 */
export function stateFigure(onPoint) {
  return slotFigure({ height: HEIGHT, base: BASE, draw: drawing(BASE), describe, label: (data) => data.name, onPoint });
}

/** The same as a narrow strip without times below: one row of several. */
export function stateStrip(onPoint) {
  const margin = { left: 0, right: 0 };
  return slotFigure({
    height: STRIP, base: STRIP, draw: drawing(STRIP), describe, label: (data) => data.name, onPoint, margin, axis: false,
  });
}

/**
 * @param {Record<string, (number|null)[]>} seconds
 * @param {number} at
 * @returns {{code: number, share: number}[]} states of one slot, each with its share of it
 */
function sharesOf(seconds, at) {
  const parts = STATE_FIELDS.map(([field, code]) => ({ code, seconds: seconds[field][at] ?? 0 }));
  const total = parts.reduce((sum, each) => sum + each.seconds, 0);
  return parts
    .filter((each) => each.seconds > 0)
    .map((each) => ({ code: each.code, share: each.seconds / total }));
}

function describe({ seconds, period, nowMs }, at) {
  const time = clock(period.start + at * period.stepS * 1000, nowMs);
  const shares = sharesOf(seconds, at).sort((a, b) => b.share - a.share);
  const words = shares.map(({ code, share }) => t("share", { state: t(`state.${code}`), percent: percent(share) }));
  return `${time} · ${words.join(", ") || t("noData")}`;
}

function drawing(base) {
  return ({ seconds, period }, scale) => {
    const parts = [];
    const absent = [];
    for (let at = 0; at < period.count; at += 1) {
      const shares = sharesOf(seconds, at);
      absent.push(shares.length === 0);
      let y = base;
      for (const { code, share } of shares) {
        y -= share * base;
        // Half a pixel of overlap closes the seams between neighbours.
        parts.push(s(`rect.state-${code}`, { x: scale.x(at), y, width: scale.slot + 0.5, height: share * base + 0.3 }));
      }
    }
    return [...gaps(absent, scale, base), ...parts];
  };
}

/**
 * @param {Record<string, (number|null)[]>} seconds
 * @returns {{code: number, share: number}[]} every state that occurs, with its share of all time
 */
export function legendOf(seconds) {
  const totals = STATE_FIELDS.map(([field, code]) => ({
    code, seconds: seconds[field].reduce((sum, value) => sum + (value ?? 0), 0),
  }));
  const all = totals.reduce((sum, each) => sum + each.seconds, 0);
  return totals.filter((each) => each.seconds > 0).map((each) => ({ code: each.code, share: each.seconds / all }));
}
