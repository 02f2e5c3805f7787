/**
 * Listens to the change feed, so that the page moves when something arrives and rests when not.
 * EventSource cannot show a token, therefore the stream is read with fetch.
 * @module live
 */

import { token } from "./session.js";

const FIRST_WAIT_MS = 2_000;
const LONGEST_WAIT_MS = 60_000;
const SILENCE_MS = 45_000; // the server says something at least every 15 s

/**
 * @param {(ids: string[]|null) => void} onChange is told the series that were written, revised or
 *   removed; null: any of them may have been
 * @returns {{start: () => void, stop: () => void, open: () => boolean}}
 */
export function live(onChange) {
  let ending = null;
  let last = "";
  let open = false;

  async function listen(signal, alarm) {
    const headers = { Authorization: `Bearer ${token()}` };
    if (!last) onChange(null); // what happened before the stream began is not told
    if (last) headers["Last-Event-ID"] = last;
    const answer = await fetch("/api/v1/stream", { headers, cache: "no-store", credentials: "omit", signal });
    if (answer.status === 410) last = "";
    if (!answer.ok) return false;
    open = true;
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      alarm();
      const { done, value } = await reader.read();
      if (done) return true;
      const events = (rest + value).split("\n\n");
      rest = events.pop();
      const changes = events.filter((event) => event.startsWith("id: "));
      if (changes.length === 0) continue;
      last = /^id: (.+)$/m.exec(changes.at(-1))[1];
      onChange(seriesIn(changes));
    }
  }

  async function go(own) {
    let wait = FIRST_WAIT_MS;
    while (!own.signal.aborted) {
      const turn = new AbortController();
      const stop = () => turn.abort();
      own.signal.addEventListener("abort", stop, { once: true });
      let silence = 0;
      const alarm = () => { clearTimeout(silence); silence = setTimeout(stop, SILENCE_MS); };
      alarm();
      const heard = await listen(turn.signal, alarm).catch(() => false);
      clearTimeout(silence);
      stop();
      own.signal.removeEventListener("abort", stop);
      if (ending === own || ending === null) open = false;
      wait = heard ? FIRST_WAIT_MS : Math.min(wait * 2, LONGEST_WAIT_MS);
      if (!own.signal.aborted) await rest(wait * (0.85 + 0.3 * Math.random()), own.signal);
    }
  }

  return {
    start() {
      if (ending !== null) return;
      ending = new AbortController();
      go(ending);
    },
    stop() {
      ending?.abort();
      ending = null;
      open = false;
      last = "";
    },
    open: () => open,
  };
}

/** @returns {string[]|null} ids of series; null where a whole measurement is gone */
function seriesIn(events) {
  const ids = events.map((event) => JSON.parse(/^data: (.+)$/m.exec(event)[1]).series?.id);
  return ids.includes(undefined) ? null : ids;
}

function rest(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
  });
}
