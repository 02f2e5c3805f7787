/**
 * A figure over even slots of time: drawn to the width there is, read by pointer or arrow keys.
 * @module slots
 */

import { h, s } from "./dom.js";
import { tick } from "./format.js";
import { offsetS } from "./zone.js";

const LABEL_PX = 64;
const HALF_LETTER_PX = 3.6;
const LABEL_STEPS_S = [
  5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800, 1209600,
];

const MARGIN = { left: 46, right: 46 };

/**
 * @typedef {object} Scale
 * @property {number} width of the whole drawing, px
 * @property {number} height of the whole drawing, px
 * @property {number} slot width of one slot, px
 * @property {(at: number) => number} x left edge of a slot, px
 * @property {number} left where slots begin, px
 * @property {number} right where they end, px
 */

/**
 * @param {object} shape
 * @param {number} shape.height px, the axis included
 * @param {number} shape.base px from the top to the time axis
 * @param {(data: any, scale: Scale) => Node[]} shape.draw
 * @param {(data: any, at: number) => string} shape.describe one slot in words
 * @param {(data: any) => string} shape.label the figure in words
 * @param {(words: string) => void} shape.onPoint is told the slot pointed at, "" for none
 * @param {{left: number, right: number}} [shape.margin] px beside the slots
 * @param {boolean} [shape.axis] whether times stand below
 * @returns {{element: HTMLElement, update: (data: any) => void}} data has `period`, `nowMs`
 */
export function slotFigure({ height, base, draw, describe, label, onPoint, margin = MARGIN, axis = true }) {
  const plot = h("div.plot", { tabindex: 0, role: "slider", "aria-orientation": "horizontal" });
  const element = h("figure.slots", {}, plot);
  let data = null;
  let width = 0;
  let pointed = -1;
  let mark = null;

  const scale = () => {
    const { left } = margin;
    const right = width - margin.right;
    const slot = (right - left) / data.period.count;
    return { width, height, slot, left, right, x: (at) => left + at * slot };
  };

  function point(at) {
    pointed = Math.max(-1, Math.min(at, data.period.count - 1));
    const { x, slot } = scale();
    mark.setAttribute("x", x(Math.max(pointed, 0)));
    mark.setAttribute("width", slot);
    mark.classList.toggle("on", pointed >= 0);
    const text = pointed < 0 ? "" : describe(data, pointed);
    onPoint(text);
    plot.setAttribute("aria-valuemax", data.period.count);
    plot.setAttribute("aria-valuemin", 1);
    plot.setAttribute("aria-valuenow", (pointed < 0 ? data.period.count - 1 : pointed) + 1);
    plot.setAttribute("aria-valuetext", text || describe(data, data.period.count - 1));
  }

  function paint() {
    if (data === null || width < 160) return;
    const view = scale();
    mark = s("rect.mark", { y: 0, height: base });
    const picture = s("svg", { width, height, "aria-hidden": "true", focusable: "false" });
    picture.append(mark, ...draw(data, view), ...(axis ? timeAxis(data.period, view, base) : []));
    plot.replaceChildren(picture);
    plot.setAttribute("aria-label", label(data));
    point(pointed);
  }

  plot.addEventListener("pointermove", (event) => {
    if (!mark) return;
    const inside = event.clientX - plot.getBoundingClientRect().left - margin.left;
    const at = Math.floor(inside / scale().slot);
    point(at >= 0 && at < data.period.count ? at : -1);
  });
  plot.addEventListener("pointerleave", () => mark && point(-1));
  plot.addEventListener("blur", () => mark && point(-1));
  plot.addEventListener("keydown", (event) => {
    const last = data ? data.period.count - 1 : 0;
    const from = pointed < 0 ? last + 1 : pointed;
    const to = { ArrowLeft: Math.max(from - 1, 0), ArrowRight: from + 1, Home: 0, End: last, Escape: -1 }[event.key];
    if (to === undefined || !mark) return;
    event.preventDefault();
    point(to);
  });
  new ResizeObserver(([entry]) => {
    const wide = Math.floor(entry.contentRect.width);
    if (wide !== width) { width = wide; paint(); }
  }).observe(plot);

  return { element, update(next) { data = next; paint(); } };
}

/** Labels stand where the clock is round; where no slot begins there, at even distances from the end. */
function labelled(period, slot) {
  const all = Array.from({ length: period.count }, (_, at) => at);
  const zoneS = offsetS(period.start);
  const wanted = LABEL_STEPS_S.find((each) => (each / period.stepS) * slot >= LABEL_PX);
  const round = all.filter((at) => (period.start / 1000 + zoneS + at * period.stepS) % wanted === 0);
  if (round.length > 1) return round;
  const apart = Math.max(1, Math.ceil(LABEL_PX / slot));
  return all.filter((at) => (period.count - 1 - at) % apart === 0);
}

function timeAxis(period, { width, left, right, x, slot }, base) {
  const spanMs = period.end - period.start;
  const parts = [s("line.axis", { x1: left, x2: right, y1: base + 0.5, y2: base + 0.5 })];
  for (const at of labelled(period, slot)) {
    const ms = period.start + at * period.stepS * 1000;
    const middle = x(at) + slot / 2;
    parts.push(
      s("line.axis", { x1: middle, x2: middle, y1: base + 1, y2: base + 5 }),
      tickText(tick(ms, spanMs), middle, width, base + 17),
    );
  }
  return parts;
}

/** The last one ends with the drawing, rather than beyond it. */
function tickText(text, middle, width, y) {
  const beyond = middle + text.length * HALF_LETTER_PX > width;
  return s("text.tick", { x: beyond ? width : middle, y, "text-anchor": beyond ? "end" : "middle" }, text);
}

/**
 * @param {number} most
 * @returns {number[]} about three round values from 0 up, the last not below `most`
 */
export function roundTicks(most) {
  const rough = most / 3;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((each) => each * power).find((each) => each >= rough * 0.999);
  const ticks = [0];
  while (ticks.at(-1) < most * 0.999) ticks.push(ticks.length * step);
  return ticks;
}

/**
 * Marks slots without data, so that nobody reads them as 0.
 * @param {boolean[]} absent one per slot
 * @param {Scale} scale
 * @param {number} base px
 * @returns {SVGElement[]}
 */
export function gaps(absent, scale, base) {
  const parts = [];
  for (let at = 0; at < absent.length; at += 1) {
    if (!absent[at]) continue;
    let end = at;
    while (absent[end + 1]) end += 1;
    const from = scale.x(at);
    const to = scale.x(end + 1);
    parts.push(s("rect.gap", { x: from, y: 0, width: to - from, height: base }));
    for (let line = from + 3; line < to; line += 6) {
      parts.push(s("line.gap-line", { x1: line, x2: line, y1: base - 7, y2: base - 2 }));
    }
    at = end;
  }
  return parts;
}
