/**
 * What the page is about: all factories, or one site of one factory.
 * @module scope
 */

/**
 * @typedef {object} Site
 * @property {string} key
 * @property {string} enterprise the brain's name for the firm
 * @property {string} site
 * @property {string} label
 */

const named = (series, name) => series.tags[name] ?? "";

/**
 * @param {import("./model.js").Series[]} series
 * @param {any[]} factories
 * @returns {Site[]} by label
 */
export function sitesOf(series, factories) {
  const found = new Map();
  const add = (enterprise, site) => {
    const key = JSON.stringify([enterprise, site]);
    if (!found.has(key)) found.set(key, { key, enterprise, site });
  };
  for (const each of series) add(named(each, "enterprise_id"), named(each, "site_id"));
  const firms = new Set([...found.values()].map((each) => each.enterprise));
  for (const { name, factory } of factories) {
    if (!firms.has(name) && !firms.has(factory)) add(name || factory, "");
  }
  const list = [...found.values()].filter((each) => each.enterprise);
  const alone = (each) => list.filter((other) => other.enterprise === each.enterprise).length === 1;
  return list
    .map((each) => ({ ...each, label: alone(each) ? each.enterprise : `${each.enterprise} · ${each.site}` }))
    .sort((a, b) => a.label.localeCompare(b.label, "zh-CN", { numeric: true }));
}

/**
 * @template {{tags: Record<string, string>}} Tagged
 * @param {Tagged[]} series
 * @param {Site|null} site null: all
 * @returns {Tagged[]}
 */
export function within(series, site) {
  if (site === null) return series;
  return series.filter((each) =>
    named(each, "enterprise_id") === site.enterprise && named(each, "site_id") === site.site);
}

/**
 * @param {any[]} factories
 * @param {Site|null} site
 * @returns {any[]} agents of the site's firm
 */
export function agentsOf(factories, site) {
  if (site === null) return factories;
  return factories.filter((each) => (each.name || each.factory) === site.enterprise);
}
