/**
 * The frame of a panel, and numbers that say where they come from when they are used.
 * @module panel
 */

import { h, say } from "./dom.js";
import { t } from "./texts.js";

/**
 * @typedef {object} Panel
 * @property {HTMLElement} element
 * @property {HTMLElement} tools beside the title
 * @property {HTMLElement} body
 * @property {(text: string) => void} note what the panel is of: time span, source
 * @property {(text: string) => void} empty says why there is nothing; "" shows the body
 */

/**
 * @param {string} name its class; `panel.NAME` is its title
 * @returns {Panel}
 */
export function panel(name) {
  const title = h("h2", { id: `panel-${name}`, "data-text": `panel.${name}` }, t(`panel.${name}`));
  const note = h("p.note");
  const tools = h("div.tools");
  const body = h("div.body");
  const empty = h("p.none", { hidden: true });
  const element = h(`section.panel.${name}`, { "aria-labelledby": title.id },
    h("header", {}, h("div", {}, title, note), tools), body, empty);
  return {
    element, tools, body,
    note(text) { say(note, text); },
    empty(text) {
      empty.hidden = text === "";
      body.hidden = text !== "";
      say(empty, text);
    },
  };
}

/**
 * @typedef {object} Origin what is told about a number
 * @property {string} title
 * @property {string} value exact, with its unit
 * @property {{start: number, end: number}|null} span in ms; null: the newest row
 * @property {{series: object, text: string}[]} parts the series it is made of
 * @property {string} how the formula in words
 * @property {string[]} [notes]
 */

let ask = () => {};

/** @param {(origin: Origin) => void} show is called when somebody asks where a number is from */
export function onAsk(show) {
  ask = show;
}

/**
 * A number that can be asked where it comes from.
 * @param {string} [tag] classes, such as ".big"
 * @returns {{element: HTMLElement, update: (shown: {text: string, unit?: string, origin: Origin|null}) => void}}
 */
export function figure(tag = "") {
  const value = h("strong");
  const unit = h("span.unit");
  const element = h(`button.from${tag}`, { type: "button" }, value, unit);
  let origin = null;
  element.addEventListener("click", () => origin && ask(origin));
  return {
    element,
    update(shown) {
      origin = shown.origin;
      say(value, shown.text);
      say(unit, shown.unit ? ` ${shown.unit}` : "");
      element.disabled = origin === null;
      element.classList.toggle("absent", origin === null);
      element.title = origin === null ? "" : t("askSource");
    },
  };
}

/**
 * @param {string[]} names
 * @param {(name: string) => string} label
 * @param {(name: string) => void} choose
 * @returns {{element: HTMLElement, update: (names: string[], chosen: string) => void}} one of several, as buttons
 */
export function choice(names, label, choose) {
  const element = h("div.choice", { role: "group" });
  let shown = "";
  const update = (list, chosen) => {
    const now = JSON.stringify([list, document.documentElement.lang]);
    if (now !== shown) {
      element.replaceChildren(...list.map((name) => {
        const button = h("button", { type: "button", "data-name": name }, label(name));
        button.addEventListener("click", () => choose(name));
        return button;
      }));
    }
    shown = now;
    for (const each of element.children) each.setAttribute("aria-pressed", String(each.dataset.name === chosen));
  };
  update(names, "");
  return { element, update };
}

/**
 * @param {HTMLSelectElement} select
 * @param {{key: string, label: string}[]} sites
 * @param {string} chosen key; "" is the first option
 * @param {string|null} first its text; null: there is none but the sites
 */
export function fillOptions(select, sites, chosen, first = null) {
  const options = [...(first === null ? [] : [["", first]]), ...sites.map((site) => [site.key, site.label])];
  const now = JSON.stringify(options);
  if (select.dataset.shown !== now) select.replaceChildren(...options.map(([value, label]) => h("option", { value }, label)));
  select.dataset.shown = now;
  select.value = chosen;
}
