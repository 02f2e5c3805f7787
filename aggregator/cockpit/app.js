/**
 * The page: takes the token, asks, shows, and says plainly when there is no answer.
 * @module app
 */

import * as api from "./api.js";
import { h, say, sync } from "./dom.js";
import { equipmentCard } from "./equipment.js";
import { factoryCard, keyOf } from "./factories.js";
import { ago, clock, number, zone } from "./format.js";
import { equipmentOf } from "./model.js";
import { poll } from "./poll.js";
import * as session from "./session.js";
import { sheetsOf, sheetView } from "./sheets.js";
import { fillTexts, switchLanguage, t } from "./texts.js";

session.takeFromAddress();

const RANGES = ["slots", "hour", "day", "week", "month"];
const CARDS_AT_ONCE = 12;

const at = (id) => document.getElementById(id);
const view = {
  range: "slots", cards: CARDS_AT_ONCE, asOf: 0, skew: 0, answered: 0, opened: Date.now(),
  factories: null, series: null, cut: false, fault: null,
};
const questions = poll(ask);
let cards = [];

/** @returns {number} the aggregator's wall clock, so that ages hold where this machine's is off */
function now() {
  return Date.now() + view.skew;
}

/** @returns {Promise<boolean>} whether everything was answered */
async function ask() {
  try {
    const [factories, newest] = await Promise.all([api.factories(view.factories ?? []), api.newest()]);
    if (!session.token()) return true;
    view.skew = newest.now - Date.now();
    Object.assign(view, { factories, series: newest.items, cut: newest.cut });
    showReceived();
    await Promise.all(cards.map((card) => card.refresh(view.range, now())));
    Object.assign(view, { answered: Date.now(), fault: null });
  } catch (fault) {
    if (fault instanceof api.TokenNeeded) {
      closeDoor(t("doorWrong"));
      return true;
    }
    if (!(fault instanceof api.Silence || fault instanceof api.Refused)) console.error(fault);
    view.fault = fault;
  }
  showStanding();
  return view.fault === null;
}

function showReceived() {
  if (view.factories === null) return;
  const nowMs = now();
  const factories = view.factories.map((each) => ({ ...each, nowMs }));
  const equipment = equipmentOf(view.series, view.factories);
  const shown = equipment.slice(0, view.cards);
  const sheets = sheetsOf(view.factories, nowMs);

  at("received").hidden = false;
  sync(at("factories"), factories, keyOf, factoryCard);
  cards = sync(
    at("cards"), shown.map((each) => ({ equipment: each, factories: view.factories, nowMs })),
    (entry) => entry.equipment.key, equipmentCard,
  );
  sync(at("sheets"), sheets, (entry) => entry.key, sheetView);
  at("no-factories").hidden = factories.length > 0;
  at("no-series").hidden = equipment.length > 0;
  at("no-sheets").hidden = sheets.length > 0;
  at("ranges").hidden = equipment.length === 0;
  at("more").hidden = equipment.length <= shown.length;
  at("cut").hidden = !view.cut;
  say(at("cut"), t("cutOff", { count: number(view.series.length) }));
  say(at("show-more"), t("showMore", { count: number(equipment.length - shown.length) }));
  showAges();
}

function showAges() {
  for (const element of document.querySelectorAll("[data-since]")) {
    const age = ago(Number(element.dataset.since), now());
    say(element, t(element.dataset.sinceText, { age }));
  }
}

function showStanding() {
  const open = session.token() !== "";
  const live = at("live");
  const down = open && view.fault !== null;
  live.hidden = !open;
  live.dataset.standing = down ? "down" : view.answered ? "live" : "wait";
  say(live, down ? t("stale") : view.answered ? t("live", { age: ago(view.answered, Date.now()) }) : t("connecting"));
  at("notice").hidden = !down;
  at("received").classList.toggle("old", down);
  at("leave").hidden = !open;
  if (down) say(at("notice-text"), noticeText());
}

function noticeText() {
  const time = clock((view.answered || view.opened) + view.skew, now());
  const said = view.fault instanceof api.Refused ? ` ${t("refusedAnswer", { title: view.fault.title })}` : "";
  return t(view.answered ? "noAnswer" : "neverAnswered", { time }) + said;
}

function showAll() {
  fillTexts();
  say(at("language"), t("otherLanguage"));
  at("language").setAttribute("aria-label", t("switchLanguage"));
  at("ranges").setAttribute("aria-label", t("ranges"));
  say(at("zone"), t("zone", { zone: zone() }));
  at("ranges").replaceChildren(...RANGES.map(rangeButton));
  showReceived();
  showStanding();
}

function rangeButton(range) {
  const button = h("button", { type: "button", "aria-pressed": String(range === view.range) }, t(`range.${range}`));
  button.addEventListener("click", () => {
    view.range = range;
    for (const each of at("ranges").children) each.setAttribute("aria-pressed", String(each === button));
    questions.start();
  });
  return button;
}

/** Stops asking, takes what was shown off the screen and asks for a token. */
function closeDoor(fault) {
  session.forget();
  questions.stop();
  Object.assign(view, { factories: null, series: null, answered: 0, fault: null });
  for (const id of ["factories", "cards", "sheets"]) sync(at(id), [], String, () => null);
  at("received").hidden = true;
  at("door").hidden = false;
  say(at("door-fault"), fault);
  showStanding();
  at("token").focus();
}

function openDoor() {
  at("door").hidden = true;
  at("token").value = "";
  say(at("door-fault"), "");
  showStanding();
  questions.start();
}

at("door").addEventListener("submit", (event) => {
  event.preventDefault();
  if (session.keep(at("token").value)) openDoor();
  else say(at("door-fault"), t("doorUnfit"));
});
at("language").addEventListener("click", () => { switchLanguage(); showAll(); });
at("leave").addEventListener("click", () => closeDoor(""));
at("retry").addEventListener("click", () => questions.start());
at("show-more").addEventListener("click", () => {
  view.cards += CARDS_AT_ONCE;
  showReceived();
  questions.start();
});
addEventListener("hashchange", () => { if (session.takeFromAddress()) openDoor(); });
setInterval(() => { showAges(); showStanding(); }, 1_000);

showAll();
if (session.token()) openDoor();
else closeDoor("");
