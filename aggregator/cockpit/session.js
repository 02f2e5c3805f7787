/**
 * The token of this tab. It comes by the fragment, which browsers never send, or by the form.
 * @module session
 */

const KEPT = "millgate.token";

/**
 * Takes the token out of the address bar, if it is there, and keeps it for this tab.
 * @returns {boolean} whether there was one
 */
export function takeFromAddress() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token === null) return false;
  history.replaceState(null, "", location.pathname);
  keep(token);
  return true;
}

/** @returns {string} the token, or "" */
export function token() {
  return sessionStorage.getItem(KEPT) ?? "";
}

/**
 * @param {string} value
 * @returns {boolean} whether it can be a token at all
 */
export function keep(value) {
  const trimmed = value.trim();
  if (!/^[\x21-\x7e]+$/.test(trimmed)) return false;
  sessionStorage.setItem(KEPT, trimmed);
  return true;
}

/** Forgets the token. */
export function forget() {
  sessionStorage.removeItem(KEPT);
}
