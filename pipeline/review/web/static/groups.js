// The list of groups: more of it, its rows by keys, and choices for all groups of the filter.

import { load, send } from "./http.js";
import { announce, ask, getMain, getPage, show } from "./page.js";

const POLL_MS = 1500;
const BULK_WORDS = {
  accept: ["Accept", "accepts", "All files but the keepers may go, once you apply a plan."],
  "keep all": ["Keep all files of", "keeps", "Every one of their files is kept."],
  separate: ["Separate the files of", "separates", "None of their files are duplicates then."],
  skip: ["Skip", "skips", "They stay as they are."],
};

const getRows = () => [...getMain().querySelectorAll(".row a")];

/** Append the next page of groups, and move the focus to its first one. */
export async function loadMore() {
  const link = getMain().querySelector("[data-more]");
  if (!link) return false;
  const { page } = await load(link.href);
  const rows = [...page.querySelectorAll(".row")];
  getMain().querySelector(".rows").append(...rows);
  const more = page.querySelector("[data-more]");
  if (more) link.setAttribute("href", more.getAttribute("href"));
  else link.parentElement.remove();
  rows[0]?.querySelector("a").focus();
  announce(`${rows.length} more groups`);
  return true;
}

/** Move the focus from row to row; after the last one, load more. */
export async function moveRow(by) {
  const rows = getRows();
  const at = rows.indexOf(document.activeElement);
  const next = at < 0 ? 0 : at + by;
  if (next >= rows.length) {
    if (!(await loadMore())) announce("this is the last group");
    return;
  }
  rows[Math.max(next, 0)]?.focus();
}

/** Make a choice for all groups of the filter, after a question that says how many. */
export async function chooseAll(choice) {
  const page = getPage();
  const bulk = page.querySelector(".bulk");
  const count = Number(bulk.dataset.count);
  const filter = JSON.parse(page.dataset.filter);
  const undecided = new URLSearchParams({ ...filter, undecided: "1", limit: "1" });
  const { count: open } = await send("GET", `/api/v1/groups?${undecided}`);
  const [title, verb, effect] = BULK_WORDS[choice];
  const decided = count - open.groups;
  const groups = `${count.toLocaleString("en")} ${count === 1 ? "group" : "groups"}`;
  const replaced = decided
    ? ` ${decided.toLocaleString("en")} of them ${decided === 1 ? "has" : "have"} a choice already, which this replaces.`
    : "";
  const scope = Object.keys(filter).length ? "of this filter, and no other" : "of the library";
  const text = `This ${verb} ${groups} ${scope}. ${effect}${replaced} One undo takes all of it back.`;
  if (!(await ask(`${title} ${groups}?`, text, `${title} ${groups}`))) return;
  const outcome = await send("POST", "/api/v1/choices", {
    choice,
    filter,
    expected_count: count,
  });
  const query = page.dataset.query;
  await show(`/groups${query ? `?${query}` : ""}`);
  announce(`done for ${outcome.group_count.toLocaleString("en")} groups. Undo with u`);
}

/** Load the page again once the groups are listed. */
async function waitForListing() {
  if (!getMain().querySelector("[data-wait]")) return;
  const answer = await fetch("/api/v1/groups?limit=1").catch(() => null);
  if (answer?.ok) await show(location.href, { push: false });
  else setTimeout(waitForListing, POLL_MS);
}

waitForListing();
