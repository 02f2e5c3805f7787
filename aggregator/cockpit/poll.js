/**
 * Asks again and again: every few seconds while answered, ever more rarely while not.
 * @module poll
 */

const EVERY_MS = 3_000;
const RAREST_MS = 60_000;

/**
 * @typedef {object} Poll
 * @property {() => void} start asks at once, and goes on
 * @property {() => void} stop
 */

/**
 * @param {() => Promise<boolean>} ask resolves to whether there was an answer
 * @returns {Poll}
 */
export function poll(ask) {
  let timer = 0;
  let failures = 0;
  let asking = false;
  let wanted = false;

  async function turn() {
    if (asking) return;
    asking = true;
    clearTimeout(timer);
    const answered = await ask().finally(() => { asking = false; });
    failures = answered ? 0 : failures + 1;
    const wait = Math.min(EVERY_MS * 2 ** failures, RAREST_MS) * (0.85 + 0.3 * Math.random());
    if (wanted) timer = setTimeout(turn, wait);
  }

  // A hidden tab's timers are throttled by the browser; whoever looks again wants it now.
  document.addEventListener("visibilitychange", () => {
    if (wanted && !document.hidden) turn();
  });

  return {
    start() { wanted = true; turn(); },
    stop() { wanted = false; clearTimeout(timer); },
  };
}
