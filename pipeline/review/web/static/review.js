// Review of groups: keys, the selected picture, choices and undo.

import * as compare from "./compare.js";
import { send } from "./http.js";
import { loadMore, chooseAll, moveRow } from "./groups.js";
import { announce, arrive, ask, getMain, getPage, isReadOnly, onShow, show } from "./page.js";
import { startPlans } from "./plan.js";

const DONE_WORDS = {
  accept: "accepted: all but the keeper may go",
  "keep all": "every file is kept",
  separate: "decided: not duplicates",
  skip: "skipped",
  "make keeper": "this is the keeper now",
  reject: "rejected",
};
const THUMBNAIL_SIDE_PX = 448;
const CARD_SIDE_PX = 1024; // of pictures on cards that are larger than thumbnails
const MAX_SHARPENED_CARDS = 4; // each is decoded from its file
const LETTERS_KEY = "neardup-letters";

let selected = 1; // the number of the card that choices of a file are about
let isBusy = false;
// A choice can move a group in the order, such as another keeper. Then it is still followed by the
// groups that it was among: `next` and `prev` are their addresses, and `id` is the group.
let thread = null;

const getCards = () => [...getMain().querySelectorAll("[data-card]")];
const getCard = (number) => getMain().querySelector(`[data-card][data-number="${number}"]`);
const isGroup = () => getPage()?.dataset.page === "group";

/** Run one thing at a time: a key that is pressed meanwhile was meant for another group. */
async function run(work) {
  if (isBusy) return;
  isBusy = true;
  document.body.setAttribute("aria-busy", "true");
  try {
    await work();
  } catch (error) {
    announce(error.message, true);
  } finally {
    isBusy = false;
    document.body.removeAttribute("aria-busy");
  }
}

// --- the selected picture ---

function select(number, { focus = true, scroll = true } = {}) {
  const cards = getCards();
  const card = getCard(number) ?? cards[1] ?? cards[0];
  if (!card) return;
  selected = Number(card.dataset.number);
  for (const other of cards) {
    if (other === card) other.setAttribute("aria-current", "true");
    else other.removeAttribute("aria-current");
  }
  if (compare.isOpen()) compare.showPair(getCard(0), card.dataset.number === "0" ? null : card);
  else if (focus) card.querySelector("[data-frame]").focus({ preventScroll: !scroll });
}

function step(by) {
  const cards = getCards();
  const first = compare.isOpen() ? 1 : 0;
  const number = Math.min(Math.max(selected + by, first), cards.length - 1);
  if (number === selected) announce(by > 0 ? "the last picture" : "the first picture");
  select(number);
}

// --- choices ---

async function choose(choice, number = null) {
  if (isReadOnly || !isGroup()) return;
  await run(async () => {
    const page = getPage();
    const query = page.dataset.query;
    const [previous, next] = [findAddress("prev"), findAddress("next")];
    const card = number === null ? null : getCard(number);
    const paths = card ? [JSON.parse(card.dataset.path)] : [];
    const address = `/api/v1/groups/${page.dataset.id}/choices`;
    const outcome = await send("POST", address, { choice, paths });
    // What is left of a group of more than two files waits for a choice of its own.
    const mayStay = card && (choice === "make keeper" || getCards().length > 2);
    const done = card && choice !== "make keeper" ? `${card.dataset.name}: ` : "";
    const words = `${done}${DONE_WORDS[choice]}. Undo with u`;
    if (mayStay && outcome.groups.length) {
      const [id] = outcome.groups;
      await showGroup(id, query, false);
      thread = { id, prev: previous, next };
      followThread();
    } else await showNext(next, query);
    announce(words);
  });
}

/** The address of the next or previous group; undefined at the end. */
function findAddress(direction) {
  if (thread?.id === getPage().dataset.id) return thread[direction];
  return getMain().querySelector(`a[rel=${direction}]`)?.getAttribute("href");
}

/** Let the links of the group lead to where those of the group before the choice led. */
function followThread() {
  for (const direction of ["prev", "next"]) {
    const link = getMain().querySelector(`a[rel=${direction}]`);
    if (link && findAddress(direction)) link.setAttribute("href", findAddress(direction));
  }
}

async function showGroup(id, query, push = true) {
  const address = `/groups/${id}${query ? `?${query}` : ""}`;
  if (await show(address, { push })) {
    if (!push) history.replaceState(null, "", address);
    return;
  }
  await show(`/groups${query ? `?${query}` : ""}`);
}

async function showNext(next, query) {
  if (next && (await show(next))) return;
  compare.close();
  await show(`/groups${query ? `?${query}` : ""}`);
  getMain().focus();
}

async function undo() {
  if (isReadOnly) return;
  await run(async () => {
    const outcome = await send("DELETE", "/api/v1/choices/last");
    const page = getPage();
    const query = page?.dataset.query ?? "";
    const words = `undone: ${outcome.choice}`;
    if (outcome.group_count > 1 || !outcome.groups.length || page?.dataset.page !== "group") {
      compare.close();
      await show(`/groups${query ? `?${query}` : ""}`);
    } else {
      await showGroup(outcome.groups[0], query);
    }
    announce(outcome.group_count > 1 ? `${words} of ${outcome.group_count} groups` : words);
  });
}

async function turn(direction) {
  const address = findAddress(direction);
  if (!address) {
    announce(direction === "next" ? "this is the last group" : "this is the first group");
    return;
  }
  await run(async () => {
    if (!(await show(address))) await show("/groups");
  });
}

// --- commands, by keys and buttons ---

function openHelp() {
  const dialog = document.getElementById("help");
  document.getElementById("letter-keys").checked = localStorage.getItem(LETTERS_KEY) !== "off";
  if (dialog.open) dialog.close();
  else dialog.showModal();
}

function toggleCompare(number = selected) {
  if (!isGroup()) return;
  if (compare.isOpen()) {
    compare.close();
    measureBar();
    select(selected);
    return;
  }
  const cards = getCards();
  const right = getCard(number === 0 ? Math.max(selected, 1) : number) ?? cards[1];
  compare.open(getCard(0), right);
  measureBar();
  select(Number(right.dataset.number), { focus: false });
}

function goToList() {
  const up = getMain().querySelector("a[rel=up]");
  if (compare.isOpen()) compare.close();
  if (up) run(() => show(up.getAttribute("href")));
}

const GROUP_KEYS = {
  j: () => turn("next"),
  k: () => turn("prev"),
  ArrowRight: () => step(1),
  ArrowLeft: () => step(-1),
  a: () => choose("accept"),
  e: () => choose("keep all"),
  n: () => choose("separate"),
  N: () => choose("separate", selected),
  s: () => choose("skip"),
  m: () => choose("make keeper", selected),
  x: () => choose("reject", selected),
  u: undo,
  c: () => toggleCompare(),
  g: goToList,
};
const LIST_KEYS = {
  j: () => moveRow(1),
  k: () => moveRow(-1),
  u: undo,
  "/": () => getMain().querySelector("#search")?.focus(),
};

function handleKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (document.querySelector("dialog[open]")) {
    if (event.key === "?") openHelp();
    return;
  }
  const target = event.target;
  if (target.closest?.("input:not([type=checkbox]):not([type=radio]):not([type=range]), select, textarea")) {
    if (event.key === "Escape") target.blur();
    return;
  }
  if (event.key.length === 1 && localStorage.getItem(LETTERS_KEY) === "off" && event.key !== "?") {
    return;
  }
  const key = event.key;
  let command;
  if (key === "?") command = openHelp;
  else if (isGroup()) {
    command = compare.isOpen() ? compare.getCommand(event) : undefined;
    if (!command && compare.isOpen() && key === "Escape") command = () => toggleCompare();
    if (!command && key.startsWith("Arrow") && (event.shiftKey || target.type === "range")) return;
    if (!command && key === "f") command = () => (toggleCompare(), compare.setMode("flicker"));
    command ??= GROUP_KEYS[key];
  } else if (getPage()?.dataset.page === "groups") command = LIST_KEYS[key];
  if (!command || (event.repeat && !key.startsWith("Arrow") && !["j", "k", "+", "-"].includes(key)))
    return;
  event.preventDefault();
  command();
}

function handleClick(event) {
  const find = (selector) => event.target.closest(selector);
  const isPlain = !(event.ctrlKey || event.metaKey || event.shiftKey || event.button);
  let element;
  if ((element = find("[data-command]"))) {
    const { command } = element.dataset;
    if (command === "help") openHelp();
    else if (command === "undo") undo();
    else if (command === "compare") {
      toggleCompare(Number(element.closest("[data-card]")?.dataset.number ?? selected));
    }
  } else if ((element = find("[data-choice]"))) {
    const { choice, of } = element.dataset;
    choose(choice, of === undefined ? null : of === "selected" ? selected : Number(of));
  } else if ((element = find("[data-bulk]"))) {
    run(() => chooseAll(element.dataset.bulk));
  } else if ((element = find("[data-select]"))) {
    event.preventDefault();
    select(Number(element.dataset.select));
  } else if ((element = find("[data-step]"))) {
    step(Number(element.dataset.step));
  } else if ((element = find("[data-more]")) && isPlain) {
    event.preventDefault();
    run(loadMore);
  } else if ((element = find(".row a, a[rel]")) && isPlain && getMain().contains(element)) {
    event.preventDefault();
    run(async () => {
      if (!(await show(element.getAttribute("href")))) await show("/groups");
    });
  }
}

document.addEventListener("keydown", handleKey);
document.addEventListener("click", handleClick);
document.addEventListener("focusin", (event) => {
  const card = event.target.closest?.("[data-card]");
  if (card && isGroup() && !compare.isOpen()) select(Number(card.dataset.number), { focus: false });
});
document.getElementById("letter-keys").addEventListener("change", (event) => {
  localStorage.setItem(LETTERS_KEY, event.target.checked ? "on" : "off");
});
addEventListener("resize", measureBar);
addEventListener("popstate", () => run(() => show(location.href, { push: false })));
onShow(() => {
  if (isGroup()) {
    if (compare.isOpen()) compare.open(getCard(0), getCard(1));
    measureBar();
    select(1, { scroll: false });
    if (getCards().length <= MAX_SHARPENED_CARDS) sharpen();
    preload();
  } else {
    compare.close();
  }
});

/** Load pictures that are larger than thumbnails where these are shown larger than they are. */
function sharpen() {
  for (const image of getMain().querySelectorAll("[data-card] .frame img")) {
    const box = image.parentElement.getBoundingClientRect();
    const { width, height } = image.closest("[data-card]").dataset;
    const scale = Math.min(box.width / width, box.height / height) * devicePixelRatio;
    if (scale * Math.max(width, height) <= 1.1 * THUMBNAIL_SIDE_PX) continue;
    const larger = new Image();
    larger.src = image.src.replace(/thumb$/, `full?max=${CARD_SIDE_PX}`);
    larger.decode().then(
      () => (image.src = larger.src),
      () => {}, // the thumbnail stays
    );
  }
}

/** Keep the space free that the bar of actions covers. */
function measureBar() {
  const bar = getMain().querySelector(".actions");
  const height = bar ? bar.getBoundingClientRect().height : 0;
  document.documentElement.style.setProperty("--bar", `${height}px`);
}

/** Load the thumbnails of the next group before it is shown. */
async function preload() {
  const next = getMain().querySelector("a[rel=next]")?.getAttribute("href");
  if (!next) return;
  const answer = await fetch(`/api/v1${next}`).catch(() => null);
  if (!answer?.ok) return;
  const { group } = await answer.json();
  for (const { picture } of [group.keeper, ...group.members].slice(0, 12)) {
    new Image().src = `/pictures/${picture}/thumb`;
  }
}

startPlans(run, announce, ask);
arrive();
