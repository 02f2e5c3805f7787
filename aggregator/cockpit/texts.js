/**
 * Every text of the page in English and Simplified Chinese, and the choice between them.
 * @module texts
 */

import { BOARD } from "./words_board.js";
import { PAGE } from "./words_page.js";
import { TERMS } from "./words_terms.js";

const KEPT = "millgate.language";

/** @type {Record<string, [string, string]>} */
const TEXTS = { ...PAGE, ...BOARD, ...TERMS };

/** @type {Map<string, string>} units of measurands */
const UNITS = new Map();

let chosen = kept() ?? (preferred().toLowerCase().startsWith("zh") ? 1 : 0);

/** @returns {string} the first language the browser asks for */
function preferred() {
  return navigator.language ?? "en";
}

/** @returns {0|1|null} the language chosen earlier in this browser */
function kept() {
  const value = localStorage.getItem(KEPT);
  return value === "zh" ? 1 : value === "en" ? 0 : null;
}

/** @returns {"en"|"zh-CN"} the language shown */
export function language() {
  return chosen ? "zh-CN" : "en";
}

/** @returns {string} how numbers and dates are written; British, so that the day comes first */
export function locale() {
  return chosen ? "zh-CN" : "en-GB";
}

/** Shows the other language from now on, and remembers it. */
export function switchLanguage() {
  chosen = chosen ? 0 : 1;
  localStorage.setItem(KEPT, chosen ? "zh" : "en");
}

/**
 * @param {string} key
 * @param {Record<string, string|number>} [parts] fills the {names} in the text
 * @returns {string} the text in the language shown
 */
export function t(key, parts = {}) {
  const text = TEXTS[key][chosen];
  return text.replace(/\{(\w+)\}/g, (_, name) => String(parts[name]));
}

/**
 * @param {string} key
 * @returns {boolean} whether there is such a text
 */
export function knows(key) {
  return Object.hasOwn(TEXTS, key);
}

/**
 * @param {string} group such as "medium"
 * @param {string} name such as "Electricity"
 * @returns {string} its text, or the name itself where the page knows none
 */
export function term(group, name) {
  const key = `${group}.${name}`;
  return knows(key) ? t(key) : name;
}

/**
 * @param {string} key
 * @returns {{en: string, zh: string}} the text in both languages, as the API gives those of warnings
 */
export function texts(key) {
  const [en, zh] = TEXTS[key] ?? [key, key];
  return { en, zh };
}

/**
 * @param {{en: string, zh: string}} words
 * @returns {string} those of the language shown
 */
export function inWords(words) {
  return (chosen ? words.zh : words.en) ?? "";
}

/**
 * Takes the names of measurands and media, and their units, as the aggregator's vocabulary has them.
 * @param {{measurands: object[], media: object[]}} vocabulary
 */
export function learn(vocabulary) {
  for (const { name, unit } of vocabulary.measurands) UNITS.set(name, unit);
  for (const [group, list] of [["measurand", vocabulary.measurands], ["medium", vocabulary.media]]) {
    for (const { name, en, zh } of list) TEXTS[`${group}.${name}`] = [en, zh];
  }
}

/**
 * @param {string} measurand
 * @returns {string} its unit as the vocabulary writes it, "" where it has none
 */
export function unitOfMeasurand(measurand) {
  return UNITS.get(measurand) ?? "";
}

/** Fills every element that carries data-text. */
export function fillTexts() {
  document.documentElement.lang = language();
  document.title = t("title");
  for (const element of document.querySelectorAll("[data-text]")) {
    element.textContent = t(element.dataset.text);
  }
}
