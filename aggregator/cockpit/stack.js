/**
 * Bars of an amount per step, made of parts on top of each other, with a cumulated line beside.
 * @module stack
 */

import { s } from "./dom.js";
import { clock, number } from "./format.js";
import { cumulated, sumOf } from "./model.js";
import { gaps, roundTicks, slotFigure } from "./slots.js";
import { t } from "./texts.js";

const AXIS = 24;
const TOP = 10;

/**
 * @typedef {object} StackData
 * @property {object} period
 * @property {number} nowMs
 * @property {string} name the figure in words
 * @property {string} unit of the bars
 * @property {{kind: string, name: string, values: (number|null)[]}[]} parts bottom first
 * @property {{unit: string, values: (number|null)[]}|null} line per step; drawn cumulated
 * @property {{present: number[], expected: number[]}} slots
 */

/**
 * @param {(words: string) => void} onPoint is told the slot pointed at, "" for none
 * @param {{base?: number, margin?: {left: number, right: number}}} [shape] base: px from the top to
 *   the time axis
 * @returns {{element: HTMLElement, update: (data: StackData) => void}}
 */
export function stackFigure(onPoint, { base = 152, margin } = {}) {
  const draw = (data, scale) => drawing(data, scale, base);
  return slotFigure({ height: base + AXIS, base, draw, describe, label: (data) => data.name, onPoint, margin });
}

function describe(data, at) {
  const time = clock(data.period.start + at * data.period.stepS * 1000, data.nowMs);
  const there = data.parts.filter((part) => part.values[at] !== null);
  const total = there.reduce((sum, part) => sum + part.values[at], 0);
  const amount = there.length ? `${number(total, 6)} ${data.unit}` : t("noData");
  const parts = data.parts.length > 1
    ? there.map((part) => ` · ${part.name} ${number(part.values[at], 4)}`).join("") : "";
  const line = data.line && data.line.values[at] !== null
    ? ` · ${number(data.line.values[at], 4)} ${data.line.unit}` : "";
  const { present, expected } = data.slots;
  const part = expected[at] > 1 ? ` · ${t("slotsOf", { present: present[at], all: expected[at] })}` : "";
  return `${time} · ${amount}${parts}${line}${part}`;
}

function drawing({ parts, line, slots }, scale, base) {
  const totals = sumOf(parts.map((part) => part.values));
  const course = cumulated(line?.values ?? []);
  if ([...totals, ...course].every((value) => value === null)) {
    return [
      ...gaps(totals.map(() => true), scale, base),
      s("text.none", { x: (scale.left + scale.right) / 2, y: base / 2 + 6, "text-anchor": "middle" }, t("noneInView")),
    ];
  }
  const bar = axis(totals, base);
  const sum = axis(course, base);
  return [
    ...gaps(totals.map((value) => value === null), scale, base),
    ...labels(bar, scale.left - 8, "end", scale, true),
    ...labels(sum, scale.right + 8, "start", scale, false),
    ...parts.flatMap((part, place) => bars(parts, place, slots, bar, scale)),
    ...path(course, sum, scale),
  ];
}

function axis(values, base) {
  const most = Math.max(0, ...values.map((value) => value ?? 0));
  const ticks = values.every((value) => value === null) ? [] : most > 0 ? roundTicks(most) : [0];
  const top = ticks.at(-1) || 1;
  return { ticks, y: (value) => base - (value / top) * (base - TOP) };
}

function labels({ ticks, y }, x, anchor, { left, right }, ruled) {
  return ticks.flatMap((value) => [
    ...(ruled && value ? [s("line.rule", { x1: left, x2: right, y1: y(value), y2: y(value) })] : []),
    s(`text.tick${ruled ? "" : ".carbon"}`, { x, y: y(value) + 4, "text-anchor": anchor }, number(value, 4)),
  ]);
}

function bars(parts, place, { present, expected }, { y }, { x, slot }) {
  const space = Math.min(2, slot * 0.2);
  const { kind, values } = parts[place];
  return values.flatMap((value, at) => {
    if (value === null) return [];
    const below = parts.slice(0, place).reduce((sum, part) => sum + (part.values[at] ?? 0), 0);
    const bottom = y(below);
    const top = Math.min(y(below + value), bottom - 1); // a measured 0 shows as a hairline
    const partly = present[at] < expected[at] ? ".part" : "";
    return [s(`rect.bar.${kind}${partly}`, { x: x(at) + space / 2, y: top, width: slot - space, height: bottom - top })];
  });
}

function path(line, { y }, { x, slot }) {
  const parts = [];
  let run = [];
  const close = () => {
    if (run.length > 1) parts.push(s("polyline.line", { points: run.join(" ") }));
    else if (run.length === 1) {
      const [cx, cy] = run[0].split(",");
      parts.push(s("circle.dot", { cx, cy, r: 2 }));
    }
    run = [];
  };
  line.forEach((value, at) => {
    if (value === null) close();
    else run.push(`${(x(at) + slot / 2).toFixed(1)},${y(value).toFixed(1)}`);
  });
  close();
  return parts;
}
