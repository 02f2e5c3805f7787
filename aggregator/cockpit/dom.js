/**
 * Small helpers to build and refresh elements; text goes in as text, never as markup.
 * @module dom
 */

const SVG = "http://www.w3.org/2000/svg";

/** @type {WeakMap<Element, Map<string, {element: Element}>>} */
const shown = new WeakMap();

/**
 * @param {string} tag may carry classes: "p.note.small"
 * @param {Record<string, string|number|boolean>} [attributes]
 * @param {...(Node|string)} children
 * @returns {HTMLElement}
 */
export function h(tag, attributes = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  return dress(document.createElement(name), classes, attributes, children);
}

/**
 * @param {string} tag an SVG element, may carry classes
 * @param {Record<string, string|number|boolean>} [attributes]
 * @param {...(Node|string)} children
 * @returns {SVGElement}
 */
export function s(tag, attributes = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  return dress(document.createElementNS(SVG, name), classes, attributes, children);
}

function dress(element, classes, attributes, children) {
  element.classList.add(...classes);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== false) element.setAttribute(key, value === true ? "" : String(value));
  }
  element.append(...children);
  return element;
}

/**
 * Makes a parent's children follow a list: views with the same key stay, so that focus,
 * open details and pointers survive a refresh.
 * @template Item
 * @param {Element} parent
 * @param {Item[]} items
 * @param {(item: Item) => string} keyOf
 * @param {(item: Item) => View} create
 * @template {{element: Element, update: (item: Item) => void}} View
 * @returns {View[]} the views in the list's order
 */
export function sync(parent, items, keyOf, create) {
  const before = shown.get(parent) ?? new Map();
  const after = new Map();
  for (const item of items) {
    const key = keyOf(item);
    const view = before.get(key) ?? create(item);
    view.update(item);
    after.set(key, view);
  }
  for (const [key, view] of before) if (!after.has(key)) view.element.remove();
  let at = parent.firstElementChild;
  for (const { element } of after.values()) {
    if (element === at) at = at.nextElementSibling;
    else parent.insertBefore(element, at);
  }
  shown.set(parent, after);
  return [...after.values()];
}

/**
 * @param {Element} element
 * @param {string} text changes the element only where it differs, so that screen readers rest
 */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
