/**
 * Bars of an amount per slot, with the cumulated carbon as a line.
 * @module energy
 */

import { s } from "./dom.js";
import { clock, number } from "./format.js";
import { cumulated } from "./model.js";
import { gaps, MARGIN, roundTicks, slotFigure } from "./slots.js";
import { t } from "./texts.js";

const HEIGHT = 176;
const BASE = 152;
const TOP = 10;

/**
 * @param {(words: string) => void} onPoint is told the slot pointed at, "" for none
 * @returns {{element: HTMLElement, update: (data: object) => void}} data: `period`, `nowMs`,
 *   `name`, `unit`, `slots`, and `amounts` and `carbon` with one number or null per step
 */
export function energyFigure(onPoint) {
  return slotFigure({ height: HEIGHT, base: BASE, draw, describe, label: (data) => data.name, onPoint });
}

function describe(data, at) {
  const time = clock(data.period.start + at * data.period.stepS * 1000, data.nowMs);
  const amount = data.amounts[at] === null ? t("noData") : `${number(data.amounts[at])} ${data.unit}`;
  const carbon = data.carbon[at] === null ? "" : ` · ${number(data.carbon[at], 4)} kg CO₂e`;
  const { present, expected } = data.slots;
  const part = expected[at] > 1 ? ` · ${t("slotsOf", { present: present[at], all: expected[at] })}` : "";
  return `${time} · ${amount}${carbon}${part}`;
}

function draw({ amounts, carbon, slots }, scale) {
  const line = cumulated(carbon);
  if ([...amounts, ...line].every((value) => value === null)) {
    const middle = (MARGIN.left + scale.width - MARGIN.right) / 2;
    return [
      ...gaps(amounts.map(() => true), scale, BASE),
      s("text.none", { x: middle, y: BASE / 2 + 6, "text-anchor": "middle" }, t("noneInView")),
    ];
  }
  const bar = axis(amounts);
  const sum = axis(line);
  return [
    ...gaps(amounts.map((value) => value === null), scale, BASE),
    ...labels(bar, MARGIN.left - 8, "end", scale, true),
    ...labels(sum, scale.width - MARGIN.right + 8, "start", scale, false),
    ...bars(amounts, slots, bar, scale),
    ...path(line, sum, scale),
  ];
}

function axis(values) {
  const most = Math.max(...values.map((value) => value ?? 0));
  const ticks = values.every((value) => value === null) ? [] : most > 0 ? roundTicks(most) : [0];
  const top = ticks.at(-1) || 1;
  return { ticks, y: (value) => BASE - (value / top) * (BASE - TOP) };
}

function labels({ ticks, y }, x, anchor, { width }, ruled) {
  const across = { x1: MARGIN.left, x2: width - MARGIN.right };
  return ticks.flatMap((value) => [
    ...(ruled && value ? [s("line.rule", { ...across, y1: y(value), y2: y(value) })] : []),
    s(`text.tick${ruled ? "" : ".carbon"}`, { x, y: y(value) + 4, "text-anchor": anchor }, number(value, 4)),
  ]);
}

function bars(amounts, { present, expected }, { y }, { x, slot }) {
  const space = Math.min(2, slot * 0.2);
  return amounts.flatMap((value, at) => {
    if (value === null) return [];
    const height = Math.max(Math.abs(BASE - y(value)), 1); // a measured 0 shows as a hairline
    const kind = present[at] < expected[at] ? "rect.bar.part" : "rect.bar";
    const top = Math.min(y(value), BASE - height);
    const round = Math.min(1.5, slot / 4);
    return [s(kind, { x: x(at) + space / 2, y: top, width: slot - space, height, rx: round })];
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
