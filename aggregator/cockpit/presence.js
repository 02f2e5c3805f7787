/**
 * Whether an agent is there, and what its data may be trusted for.
 * @module presence
 */

const PATIENCE_SLOTS = 5;
const PATIENCE_MS = 60_000;
const SOON_MS = 14 * 86_400_000;

/**
 * @param {any} arrival
 * @param {number} nowMs
 * @returns {"online"|"offline"|"unsaid"|"silent"|"quarantined"|"revoked"} silent: says it is online but sends
 *   nothing; the last two: nothing of it is taken, whatever it says
 */
export function presenceOf(arrival, nowMs) {
  if (arrival.trust !== "good") return arrival.trust;
  if (arrival.online === null) return "unsaid";
  if (!arrival.online) return "offline";
  if (arrival.last_received === null) return "online";
  const windows = arrival.sheets.slice(0, 1).flatMap((sheet) => sheet.points.map((point) => point.window_s));
  const patience = Math.max(0, ...windows) * 1000 * PATIENCE_SLOTS + PATIENCE_MS;
  return nowMs - Date.parse(arrival.last_received) > patience ? "silent" : "online";
}

/**
 * @param {any} arrival
 * @param {number} nowMs
 * @returns {{name: string, level: "good"|"warn"|"bad", parts: Record<string, any>}[]} the worst last
 */
export function trustOf(arrival, nowMs) {
  const found = [];
  if (arrival.batches > 0) found.push({ name: "verified", level: "good", parts: { count: arrival.batches } });
  if (arrival.refused > 0) found.push({ name: "refusedCount", level: "bad", parts: { count: arrival.refused } });
  const sheet = arrival.sheets[0];
  if (sheet === undefined) return [...found, { name: "noSheet", level: "warn", parts: {} }];
  const left = Date.parse(sheet.valid_until) - nowMs;
  const parts = { days: Math.max(0, Math.floor(left / 86_400_000)), version: sheet.policy_version };
  if (left < 0) found.push({ name: "sheetExpired", level: "bad", parts });
  else if (left < SOON_MS) found.push({ name: "sheetEnds", level: "warn", parts });
  else found.push({ name: "sheetInForce", level: "good", parts });
  return found;
}
