// The page that is shown: replaced without a reload, announced, and remembered as the place.

import { load, send } from "./http.js";

export const isReadOnly = "readOnly" in document.body.dataset;
const shown = new EventTarget(); // "show" after a page took the place of another one

export const getMain = () => document.getElementById("main");
export const getPage = () => getMain().querySelector("[data-page]");
export const onShow = (listener) => shown.addEventListener("show", listener);

let messageTimer;

/** Say what happened, to eyes and to screen readers. */
export function announce(text, isBad = false) {
  const announcer = document.getElementById("announcer");
  clearTimeout(messageTimer);
  announcer.textContent = "";
  announcer.classList.toggle("bad", isBad);
  requestAnimationFrame(() => {
    announcer.textContent = text[0].toUpperCase() + text.slice(1);
  });
  messageTimer = setTimeout(() => (announcer.textContent = ""), 6000);
}

/** Show another page in the place of this one. Returns false for a group that is gone. */
export async function show(address, { push = true } = {}) {
  const { page, status, address: found } = await load(address);
  const main = page.getElementById("main");
  if (!main) {
    location.assign(address); // a problem of the server, such as another session
    return false;
  }
  if (status === 404) return false;
  document.title = page.title;
  getMain().replaceChildren(...main.childNodes);
  document.getElementById("progress").replaceChildren(
    ...page.getElementById("progress").childNodes,
  );
  if (push) history.pushState(null, "", found);
  scrollTo(0, 0);
  arrive();
  return true;
}

/** Do what each page needs once it is there. */
export function arrive() {
  const page = getPage();
  for (const link of document.querySelectorAll("[data-nav]")) {
    const name = page?.dataset.page === "group" ? "groups" : page?.dataset.page;
    if (link.dataset.nav === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  savePlace(page);
  shown.dispatchEvent(new Event("show"));
}

function savePlace(page) {
  if (isReadOnly || !page || !["group", "groups"].includes(page.dataset.page)) return;
  if (!page.dataset.filter) return;
  const place = { group: page.dataset.id ?? null, filter: JSON.parse(page.dataset.filter) };
  send("PUT", "/api/v1/place", place, { keepalive: true }).catch(() => {});
}

/** Ask a question in a dialog; true for yes. */
export function ask(title, text, yes) {
  const dialog = document.getElementById("question");
  document.getElementById("question-title").textContent = title;
  document.getElementById("question-text").textContent = text;
  document.getElementById("question-yes").textContent = yes;
  dialog.returnValue = "no";
  const wasBusy = document.body.getAttribute("aria-busy"); // but for the person, who answers now
  document.body.removeAttribute("aria-busy");
  dialog.showModal();
  return new Promise((resolve) => {
    const answer = () => {
      if (wasBusy) document.body.setAttribute("aria-busy", wasBusy);
      resolve(dialog.returnValue === "yes");
    };
    dialog.addEventListener("close", answer, { once: true });
  });
}
