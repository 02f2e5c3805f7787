/**
 * Answers that are still right: of each series what was asked of it, until the change feed names it.
 * @module kept
 */

const TOLD_MS = 600_000;
const UNTOLD_MS = 55_000; // without the feed late slots are found by asking again
const MOST_SERIES = 2_000;

/** @type {Map<string, Map<string, {at: number, answer: any}>>} */
const answers = new Map();
/** @type {Map<string, number>} */
const changedIn = new Map();
let turn = 0;
let told = () => false;

/** @param {() => boolean} feed whether changes are told as they happen */
export function trust(feed) {
  told = feed;
}

/** @returns {number} how often changes were told; what is made of kept answers is made anew when it moves */
export function changes() {
  return turn;
}

/** @param {string[]|null} ids of series that changed; null: anything may have */
export function changed(ids) {
  turn += 1;
  if (ids === null) {
    answers.clear();
    changedIn.clear();
    changedIn.set("", turn);
    return;
  }
  for (const id of ids) {
    answers.delete(id);
    changedIn.set(id, turn);
  }
}

/**
 * @template Answer
 * @param {string} id of the series
 * @param {string} question
 * @param {() => Promise<Answer>} ask
 * @returns {Promise<Answer>}
 */
export async function kept(id, question, ask) {
  const known = answers.get(id)?.get(question);
  if (known && performance.now() - known.at < (told() ? TOLD_MS : UNTOLD_MS)) return known.answer;
  const asked = turn;
  const at = performance.now();
  const answer = await ask();
  const moved = Math.max(changedIn.get(id) ?? 0, changedIn.get("") ?? 0);
  if (moved <= asked) keep(id, question, { at, answer });
  return answer;
}

function keep(id, question, entry) {
  const own = answers.get(id) ?? new Map();
  // A period that moved on is never asked for again: of each question the newest few are enough.
  if (own.size >= 8) own.delete(own.keys().next().value);
  own.delete(question);
  own.set(question, entry);
  answers.delete(id);
  answers.set(id, own);
  if (answers.size > MOST_SERIES) answers.delete(answers.keys().next().value);
}
