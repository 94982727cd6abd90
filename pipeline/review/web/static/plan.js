// Plans: made from a form, applied after their number of files was typed, watched, undone.

import { send } from "./http.js";
import { getMain } from "./page.js";

const POLL_MS = 400;

/** Handle the forms and buttons of plans and runs. */
export function startPlans(run, announce, ask) {
  document.addEventListener("submit", (event) => {
    if (event.target.id === "plan-form") {
      event.preventDefault();
      run(() => explain("plan-error", () => makePlan(event.target)));
    } else if (event.target.id === "apply-form") {
      event.preventDefault();
      run(() => explain("apply-error", () => applyPlan(event.target)));
    }
  });
  document.addEventListener("input", (event) => {
    const form = event.target.closest("#apply-form");
    if (!form) return;
    const isRight = event.target.value.replaceAll(/[\s,.]/g, "") === form.dataset.files;
    form.querySelector("button").disabled = !isRight;
  });
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-undo-run]");
    if (!button) return;
    run(async () => {
      const text = "Each file is moved back to where it was. One whose place is taken stays.";
      if (!(await ask("Undo this run?", text, "Undo"))) return;
      await send("POST", `/runs/${button.dataset.undoRun}/undo`);
      announce("moving the files back");
      watch();
    });
  });
  if (getMain().querySelector("[data-running]")) watch();
}

/** Show an error beside the form; the message at the bottom passes. */
async function explain(id, work) {
  const place = document.getElementById(id);
  place.hidden = true;
  try {
    await work();
  } catch (error) {
    place.textContent = error.message[0].toUpperCase() + error.message.slice(1);
    place.hidden = false;
  }
}

async function makePlan(form) {
  const data = new FormData(form);
  const relations = data.getAll("relations");
  if (!relations.length) throw new Error("choose a relation");
  const action = data.get("action");
  const answer = await send("POST", "/plan", {
    action,
    destination: action === "move" ? data.get("destination") : null,
    relations,
    min_confidence: Number(data.get("min_confidence")),
    merge_metadata: data.has("merge_metadata"),
  });
  location.assign(answer.address);
}

async function applyPlan(form) {
  const files = Number(form.dataset.files);
  await send("POST", `/plan/${form.dataset.plan}/apply`, { files });
  form.hidden = true;
  watch();
}

/** Follow a run, then load the page again, which has its result. */
async function watch() {
  const section = document.getElementById("run");
  if (!section) return location.reload();
  section.hidden = false;
  const progress = await send("GET", "/runs/current").catch(() => ({ is_running: true }));
  if (!progress.is_running) return location.reload();
  const bar = document.getElementById("run-bar");
  document.getElementById("run-title").textContent =
    progress.kind === "undo" ? "Moving files back" : "Applying the plan";
  if (progress.total) {
    bar.max = progress.total;
    bar.value = progress.done;
    const isDone = progress.done >= progress.total;
    document.getElementById("run-text").textContent = isDone
      ? "Listing the groups again"
      : `${progress.done.toLocaleString("en")} of ${progress.total.toLocaleString("en")} files`;
  }
  setTimeout(watch, POLL_MS);
}
