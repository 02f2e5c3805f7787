/**
 * The read API as the page uses it.
 * @module api
 */

import { kept } from "./kept.js";
import { token } from "./session.js";
import { language } from "./texts.js";

const TIMEOUT_MS = 20_000;
const MOST_PAGES = 20;
const AT_ONCE = 6;

/** The token is missing or wrong. */
export class TokenNeeded extends Error {}

/** There was no answer: the server cannot be reached, or takes too long. */
export class Silence extends Error {}

/** The aggregator answered that it cannot; `title` says why. */
export class Refused extends Error {
  /** @param {string} title */
  constructor(title) {
    super(title);
    this.title = title;
  }
}

/** There is no such thing at this aggregator. */
export class NotThere extends Error {}

/**
 * @param {string} path below /api/v1
 * @param {Record<string, string|number>} [query]
 * @returns {Promise<any>}
 */
async function get(path, query = {}) {
  const answer = await hear(fetch(`/api/v1${path}?${new URLSearchParams(query)}`, {
    headers: { Authorization: `Bearer ${token()}`, "Accept-Language": language() },
    cache: "no-store",
    credentials: "omit",
    signal: AbortSignal.timeout(TIMEOUT_MS),
  }));
  if (answer.status === 401) throw new TokenNeeded();
  if (answer.status === 404) throw new NotThere(path);
  if (!answer.ok) {
    const problem = await answer.json().catch(() => ({}));
    throw new Refused(problem.title ?? String(answer.status));
  }
  return hear(answer.json());
}

/** Names every way in which the network fails, so that a fault of our own stays apart. */
function hear(promise) {
  return promise.catch((fault) => { throw new Silence(fault.message); });
}

/**
 * Follows the pages of a list, up to a bound.
 * @returns {Promise<{now: number, zone: string|undefined, items: any[], cut: boolean}>}
 */
async function all(path, name, query) {
  const items = [];
  let now = 0;
  let zone;
  let next = "";
  for (let page = 0; page < MOST_PAGES; page += 1) {
    const answer = await get(path, next ? { ...query, cursor: next } : query);
    items.push(...answer[name]);
    now = Date.parse(answer.now);
    zone = answer.zone;
    next = answer.next;
    if (!next) break;
  }
  return { now, zone, items, cut: Boolean(next) };
}

/**
 * @param {any[]} known what the last call returned; sheets that are the same are not asked again
 * @returns {Promise<any[]>} agents with their newest sheets
 */
export async function factories(known) {
  const { items } = await all("/factories", "factories", { sheets: 0, limit: 500 });
  const sheets = new Map(known.map((each) => [sheetsOf(each), each.sheets]));
  if (items.every((each) => sheets.has(sheetsOf(each)))) {
    return items.map((each) => ({ ...each, sheets: sheets.get(sheetsOf(each)) }));
  }
  return (await all("/factories", "factories", { sheets: 5, limit: 100 })).items;
}

function sheetsOf(agent) {
  return [agent.factory, agent.agent, agent.sheet_count, agent.newest_sheet].join();
}

/** @returns {Promise<{now: number, zone: string|undefined, items: any[], cut: boolean}>} newest row of every series */
export function newest() {
  return all("/newest", "series", { limit: 500 });
}

/**
 * @param {string} id
 * @param {string[]} fields
 * @param {{start: number, end: number, stepS: number}} period in ms and seconds
 * @returns {Promise<{time: string[], fields: Record<string, (number|null)[]>}>}
 */
export function steps(id, fields, period, aggregate = "sum") {
  const query = {
    field: fields.join(","),
    start: new Date(period.start).toISOString(),
    end: new Date(period.end).toISOString(),
    step: `${period.stepS}s`,
    aggregate,
  };
  return kept(id, JSON.stringify(query), () => get(`/series/${id}/steps`, query));
}

/**
 * @param {string} id
 * @param {{start: number, end: number}|null} span in ms; null: of the newest row
 * @returns {Promise<any>} the batches behind rows
 */
export function provenance(id, span) {
  const query = span === null ? {} : {
    start: new Date(span.start).toISOString(), end: new Date(span.end).toISOString(),
  };
  return get(`/series/${id}/provenance`, query);
}

/**
 * @param {"equipment"|"site"|"enterprise"} by what is added up
 * @param {{start: number, end: number}} span in ms
 * @param {{enterprise: string, site: string}|null} site null: all
 * @returns {Promise<any[]>}
 */
export async function oee(by, span, site) {
  const query = { by, start: new Date(span.start).toISOString(), end: new Date(span.end).toISOString(), limit: 500 };
  if (site?.enterprise) query.enterprise = site.enterprise;
  if (site?.site) query.site = site.site;
  return (await all("/oee", "items", query)).items;
}

/**
 * @param {string} kind what firms are ranked by
 * @returns {Promise<any>} the ranking of the present month or year
 */
export function ranking(kind) {
  return get("/rankings", { kind });
}

/** @returns {Promise<any[]>} early warnings that are open, newest first */
export async function alarms() {
  return (await all("/alarms", "alarms", { limit: 200 })).items;
}

/** @returns {Promise<any>} the names of measurands and media; public, as it is in the documents */
export async function vocabulary() {
  const answer = await hear(fetch("vocabulary.json", { signal: AbortSignal.timeout(TIMEOUT_MS) }));
  if (!answer.ok) throw new Refused(String(answer.status));
  return hear(answer.json());
}

/**
 * Asks for many things, a few at a time.
 * @template Item, Answer
 * @param {Item[]} items
 * @param {(item: Item) => Promise<Answer>} ask
 * @returns {Promise<Answer[]>} in the order of the items
 */
export async function each(items, ask) {
  const answers = new Array(items.length);
  let next = 0;
  const worker = async () => {
    while (next < items.length) {
      const at = next;
      next += 1;
      answers[at] = await ask(items[at]);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  return answers;
}
