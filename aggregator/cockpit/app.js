/**
 * The page: takes the token, asks, shows, and says plainly when there is no answer.
 * @module app
 */

import * as api from "./api.js";
import { board } from "./board.js";
import { say, sync } from "./dom.js";
import { equipmentCard } from "./equipment.js";
import { ago, clock, number } from "./format.js";
import { changed, trust } from "./kept.js";
import { live } from "./live.js";
import { equipmentOf, windowOf } from "./model.js";
import { choice, fillOptions, onAsk } from "./panel.js";
import { poll } from "./poll.js";
import { sitesOf, within } from "./scope.js";
import * as session from "./session.js";
import { sheetsOf, sheetView } from "./sheets.js";
import { sourceDialog } from "./source.js";
import { fillTexts, learn, switchLanguage, t } from "./texts.js";
import { offsetText, useZone, zone } from "./zone.js";

session.takeFromAddress();

const RANGES = ["slots", "hour", "day", "week", "month"];
const SHORT_SLOT_S = 60;
const CARDS_AT_ONCE = 12;

const at = (id) => document.getElementById(id);
const view = {
  range: "", chosen: "", firm: "", cards: CARDS_AT_ONCE, skew: 0, answered: 0, opened: Date.now(),
  factories: null, series: null, sites: [], cut: false, fault: null,
};
const ranges = choice(RANGES, (name) => t(`range.${name}`), (name) => { view.chosen = name; showReceived(); questions.start(); });
const main = board(at("tiles"), at("board"), { choose: chooseFirm, again: () => questions.start() });
const stream = live((ids) => { changed(ids); questions.soon(); });
const questions = poll(ask, stream.open);
const seen = new IntersectionObserver(nearby, { rootMargin: "400px" });
const near = new WeakSet();
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
    Object.assign(view, { factories, series: newest.items, cut: newest.cut, sites: sitesOf(newest.items, factories) });
    if (useZone(newest.zone)) showZone();
    showReceived();
    await main.refresh();
    await refreshCards();
    if (!session.token()) return true;
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

/** Charts are drawn for cards that are on the screen, or nearly. */
async function refreshCards() {
  for (const card of cards) if (near.has(card.element)) await card.refresh(view.range, now());
}

function nearby(entries) {
  let come = false;
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting) near.add(target);
    else near.delete(target);
    come ||= isIntersecting;
  }
  if (come) questions.soon();
}

function chosenSite() {
  return view.sites.find((each) => each.key === view.firm) ?? null;
}

function chooseFirm(enterprise) {
  const found = view.sites.find((each) => each.enterprise === enterprise);
  view.firm = found && found.key !== view.firm ? found.key : "";
  showReceived();
  questions.start();
}

function showReceived() {
  if (view.factories === null) return;
  const nowMs = now();
  const site = chosenSite();
  view.range = view.chosen || defaultRange();
  const shown = showEquipment(equipmentOf(within(view.series, site), view.factories), nowMs);
  const sheets = sheetsOf(view.factories.filter((each) => !site || (each.name || each.factory) === site.enterprise), nowMs);
  const nothing = view.factories.length === 0 && view.series.length === 0;

  at("received").hidden = false;
  at("first-steps").hidden = !nothing;
  for (const id of ["board-area", "equipment-area", "sheets-area", "controls"]) at(id).hidden = nothing;
  fillOptions(at("firm"), view.sites, view.firm, t("allFactories"));
  ranges.update(RANGES, view.range);
  main.show({ factories: view.factories, series: view.series, sites: view.sites, site, range: view.range, cut: view.cut, nowMs });
  sync(at("sheets"), sheets, (entry) => entry.key, sheetView);
  at("no-series").hidden = shown > 0;
  at("no-sheets").hidden = sheets.length > 0;
  at("cut").hidden = !view.cut;
  say(at("cut"), t("cutOff", { count: number(view.series.length) }));
  showAges();
}

/** A brain of short slots has little past to show; of long ones, a day says more than sixty slots. */
function defaultRange() {
  const windows = view.series.filter((one) => one.measurement === "ff_energy").map(windowOf);
  return windows.length && Math.min(...windows) < SHORT_SLOT_S ? "slots" : "day";
}

function showEquipment(equipment, nowMs) {
  const shown = equipment.slice(0, view.cards);
  cards = sync(
    at("cards"), shown.map((each) => ({ equipment: each, factories: view.factories, nowMs })),
    (entry) => entry.equipment.key, equipmentCard,
  );
  for (const card of cards) seen.observe(card.element);
  at("more").hidden = equipment.length <= shown.length;
  say(at("show-more"), t("showMore", { count: number(equipment.length - shown.length) }));
  return equipment.length;
}

function showAges() {
  for (const element of document.querySelectorAll("[data-since]")) {
    const age = ago(Number(element.dataset.since), now());
    say(element, t(element.dataset.sinceText, { age }));
  }
}

function showStanding() {
  const open = session.token() !== "";
  const standing = at("live");
  const down = open && view.fault !== null;
  const live = stream.open() ? t("told") : t("live", { age: ago(view.answered, Date.now()) });
  standing.hidden = !open;
  standing.dataset.standing = down ? "down" : view.answered ? "live" : "wait";
  say(standing, down ? t("stale") : view.answered ? live : t("connecting"));
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
  ranges.element.setAttribute("aria-label", t("ranges"));
  say(at("language"), t("otherLanguage"));
  at("language").setAttribute("aria-label", t("switchLanguage"));
  say(at("theme"), t(document.documentElement.dataset.theme === "dark" ? "toLight" : "toDark"));
  showZone();
  showReceived();
  showStanding();
}

function showZone() {
  say(at("zone"), t("zone", { zone: zone(), offset: offsetText(now()) }));
}

/** Stops asking, takes what was shown off the screen and asks for a token. */
function closeDoor(fault) {
  session.forget();
  questions.stop();
  stream.stop();
  changed(null);
  main.clear();
  Object.assign(view, { factories: null, series: null, sites: [], firm: "", range: "", chosen: "", answered: 0, fault: null });
  fillOptions(at("firm"), [], "");
  for (const id of ["cards", "sheets"]) sync(at(id), [], String, () => null);
  at("source").close();
  at("source").replaceChildren();
  at("received").hidden = true;
  at("controls").hidden = true;
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
  api.vocabulary().then((found) => { learn(found); showAll(); }, () => showStanding()).finally(() => {
    questions.start();
    stream.start();
  });
}

at("ranges").append(ranges.element);
trust(stream.open);
onAsk(sourceDialog(at("source"), now));
at("firm").addEventListener("change", () => { view.firm = at("firm").value; showReceived(); questions.start(); });
at("door").addEventListener("submit", (event) => {
  event.preventDefault();
  if (session.keep(at("token").value)) openDoor();
  else say(at("door-fault"), t("doorUnfit"));
});
at("language").addEventListener("click", () => { switchLanguage(); showAll(); });
at("theme").addEventListener("click", () => {
  const { dataset } = document.documentElement;
  dataset.theme = dataset.theme === "dark" ? "light" : "dark";
  localStorage.setItem("millgate.theme", dataset.theme);
  showAll();
});
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
