/**
 * Asks again and again: every few seconds while answered, ever more rarely while not, and at once
 * when it is told that something changed. While changes are told anyway it asks rarely.
 * @module poll
 */

const EVERY_MS = 3_000;
const TOLD_EVERY_MS = 20_000;
const RAREST_MS = 60_000;
const GATHER_MS = 700;
const REST_FACTOR = 4; // a large brain's answers take long: it must not answer all the time

/**
 * @typedef {object} Poll
 * @property {() => void} start asks at once, and goes on
 * @property {() => void} soon asks as soon as more changes have had time to gather
 * @property {() => void} stop
 */

/**
 * @param {() => Promise<boolean>} ask resolves to whether there was an answer
 * @param {() => boolean} told whether changes are told as they happen
 * @returns {Poll}
 */
export function poll(ask, told) {
  let timer = 0;
  let due = Infinity;
  let failures = 0;
  let tookMs = 0;
  let asking = false;
  let wanted = false;
  let again = Infinity;

  function plan(ms) {
    if (!wanted || performance.now() + ms >= due) return;
    clearTimeout(timer);
    due = performance.now() + ms;
    timer = setTimeout(turn, ms);
  }

  async function turn() {
    asking = true;
    again = Infinity;
    clearTimeout(timer);
    due = Infinity;
    const began = performance.now();
    const answered = await ask().finally(() => { asking = false; });
    tookMs = performance.now() - began;
    failures = answered ? 0 : failures + 1;
    const every = told() && answered ? TOLD_EVERY_MS : EVERY_MS * 2 ** failures;
    plan(Math.min(again, Math.min(every, RAREST_MS) * (0.85 + 0.3 * Math.random())));
  }

  /** While an answer is awaited, what it will say may be old already: then once more. */
  function within(ms) {
    if (asking) again = Math.min(again, ms);
    else plan(ms);
  }

  // A hidden tab's timers are throttled by the browser; whoever looks again wants it now.
  document.addEventListener("visibilitychange", () => {
    if (wanted && !document.hidden) within(0);
  });

  return {
    start() { wanted = true; within(0); },
    soon() { if (failures === 0) within(Math.max(GATHER_MS, tookMs * REST_FACTOR)); },
    stop() { wanted = false; clearTimeout(timer); due = Infinity; },
  };
}
