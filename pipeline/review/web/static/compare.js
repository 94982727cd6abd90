// Two pictures compared: side by side, flickering, split, and what differs; zoomed together.

import { announce, getMain } from "./page.js";
import { identity, invert, makeCss, mapPoint, measureScale, multiply } from "./matrix.js";

const ZOOM_STEP = 1.3;
const MAX_PIXEL_SIZE = 16; // of a pixel of a photo, on the screen
const PAN_STEP = 0.15; // of what is visible
const SPLIT_STEP = 4; // percent
const QUICK_SIDE_PX = 2048;
const FULL_SIDE_PX = 6000;
const SERVER_MODES = new Set(["difference", "tiles"]);

const view = {
  isOpen: false,
  mode: "side",
  left: null,
  right: null,
  zoom: 1, // 1 shows all
  x: 0.5, // the middle, as a share of the left picture
  y: 0.5,
  showsRight: false, // of flicker
  split: 50,
};
const loaded = new Map(); // by picture: the address that is shown, and the long side it has

const getRoot = () => getMain().querySelector("#compare");
const getStage = (side) => getRoot().querySelector(`[data-side=${side}]`);
const getStages = () => getRoot().querySelector(".stages");

export const isOpen = () => view.isOpen;

export function open(left, right) {
  view.isOpen = true;
  getRoot().hidden = false;
  document.body.classList.add("comparing");
  for (const part of getMain().querySelectorAll(".group-head, .group-body")) part.inert = true;
  document.querySelector(".top").inert = true;
  listen();
  showPair(left, right ?? left);
  getStages().focus();
}

export function close() {
  if (!view.isOpen) return;
  view.isOpen = false;
  document.body.classList.remove("comparing");
  document.querySelector(".top").inert = false;
  if (!getRoot()) return;
  getRoot().hidden = true;
  for (const part of getMain().querySelectorAll(".group-head, .group-body")) part.inert = false;
}

/** Compare two cards; the zoom stays while the left picture is the same. */
export function showPair(left, right) {
  if (!left || !right) return;
  const isOther = view.left?.picture !== left.dataset.picture;
  view.left = describe(left);
  view.right = describe(right);
  if (isOther) Object.assign(view, { zoom: 1, x: 0.5, y: 0.5 });
  const count = getMain().querySelectorAll("[data-card]").length - 1;
  getRoot().querySelector("#turn-value").textContent = `${right.dataset.number} of ${count}`;
  setMode(view.mode, false);
}

function describe(card) {
  const { picture, width, height, name, caption, homography } = card.dataset;
  return {
    picture,
    name,
    caption,
    width: Number(width),
    height: Number(height),
    // From the keeper, which is on the left, to this picture; both in shares of their sides.
    homography: homography ? JSON.parse(homography) : identity(),
  };
}

// --- modes ---

export function setMode(mode, mayFlicker = true) {
  if (mode === "flicker" && mayFlicker) {
    view.showsRight = view.mode === "flicker" ? !view.showsRight : true;
  }
  view.mode = mode;
  const root = getRoot();
  root.dataset.mode = mode;
  for (const button of root.querySelectorAll("[data-mode]")) {
    const isChosen = button.dataset.mode === mode;
    button.setAttribute("aria-checked", String(isChosen));
    button.tabIndex = isChosen ? 0 : -1;
  }
  root.querySelector(".slider").hidden = mode !== "split";
  root.querySelector(".divider").hidden = mode !== "split";
  const isServed = SERVER_MODES.has(mode);
  note("");
  caption("left", isServed ? "" : `${view.left.name} · ${view.left.caption}`);
  caption("right", `${view.right.name} · ${view.right.caption}`);
  if (isServed) serve(mode);
  else for (const side of ["left", "right"]) fill(side, view[side]);
  if (mode === "flicker" && mayFlicker) {
    announce(view.showsRight ? view.right.caption : view.left.caption);
  }
  draw();
}

function caption(side, text) {
  getStage(side).querySelector("figcaption").textContent = text;
}

function note(text) {
  const place = getRoot().querySelector(".stage-note");
  place.textContent = text;
  place.hidden = !text;
}

/** Show the best version of a picture that is loaded, and load one for this screen. */
function fill(side, picture) {
  const image = getStage(side).querySelector("img");
  image.style.width = `${picture.width}px`;
  image.style.height = `${picture.height}px`;
  image.alt = picture.name;
  const known = loaded.get(picture.picture);
  image.dataset.picture = picture.picture;
  const address = known?.address ?? `/pictures/${picture.picture}/thumb`;
  if (image.getAttribute("src") !== address) image.src = address;
  if (!known) fetchLarger(picture, QUICK_SIDE_PX);
}

async function fetchLarger(picture, side) {
  const { picture: id } = picture;
  if ((loaded.get(id)?.side ?? 0) >= side) return;
  loaded.set(id, { address: loaded.get(id)?.address ?? `/pictures/${id}/thumb`, side });
  const address = `/pictures/${id}/full?max=${side}`;
  const image = new Image();
  image.src = address;
  try {
    await image.decode();
  } catch {
    loaded.set(id, { address: `/pictures/${id}/thumb`, side: 0 });
    if (view.isOpen) note(`Only the thumbnail of ${picture.name} can be shown: its file cannot be read now.`);
    return;
  }
  loaded.set(id, { address, side });
  if (!view.isOpen) return;
  for (const shown of getRoot().querySelectorAll(".stage img")) {
    if (shown.dataset.picture === id) shown.src = address;
  }
}

/** Show what the server draws of the pair. */
function serve(mode) {
  const image = getStage("left").querySelector("img");
  const address = `/api/v1/pairs/${view.left.picture}/${view.right.picture}/picture?view=${mode}`;
  delete image.dataset.picture;
  image.removeAttribute("src");
  note("Comparing …");
  const drawn = new Image();
  drawn.src = address;
  drawn.decode().then(
    () => {
      if (view.mode !== mode || getStage("left").querySelector("img") !== image) return;
      image.style.width = `${drawn.naturalWidth}px`;
      image.style.height = `${drawn.naturalHeight}px`;
      view.served = { width: drawn.naturalWidth, height: drawn.naturalHeight };
      image.alt = mode === "tiles" ? "tiles that agree or differ" : "difference of the two";
      image.src = address;
      note("");
      caption(
        "left",
        mode === "tiles"
          ? "green: agrees · amber: moved · red: differs · no color: not compared"
          : "difference, brightness and contrast matched · white: none",
      );
      draw();
    },
    () => view.mode === mode && note("The two have no such picture: they are equal, or were not aligned."),
  );
}

// --- drawing ---

/** The largest scale at which both pictures are visible as a whole, in pixels of the screen. */
function measureFit(picture, ratio) {
  const { clientWidth: width, clientHeight: height } = getStage("left");
  const fits = [width / picture.width, height / picture.height];
  if (view.mode === "side" && !SERVER_MODES.has(view.mode)) {
    fits.push((ratio * width) / view.right.width, (ratio * height) / view.right.height);
  }
  return Math.min(...fits);
}

function draw() {
  if (!view.isOpen) return;
  const stage = getStage("left");
  const { clientWidth: width, clientHeight: height } = stage;
  const isServed = SERVER_MODES.has(view.mode);
  const picture = isServed ? (view.served ?? view.left) : view.left;
  const toRight = pixelMap(view.left, view.right, view.right.homography);
  const middle = [view.x * picture.width, view.y * picture.height];
  const ratio = isServed ? 1 : measureScale(toRight, middle);
  const scale = measureFit(picture, ratio) * view.zoom;
  const place = (center, by) => [
    by, 0, width / 2 - center[0] * by,
    0, by, height / 2 - center[1] * by,
    0, 0, 1,
  ];
  const ofLeft = place(middle, scale);
  const left = stage.querySelector("img");
  left.style.transform = makeCss(ofLeft);
  const right = getStage("right").querySelector("img");
  if (view.mode === "side") {
    const isWhole = view.zoom <= 1.01;
    const center = isWhole
      ? [view.right.width / 2, view.right.height / 2]
      : mapPoint(toRight, middle);
    right.style.transform = makeCss(place(center, scale / ratio));
  } else {
    right.style.transform = makeCss(multiply(ofLeft, invert(toRight)));
  }
  left.classList.toggle("pixelated", scale * devicePixelRatio > 3);
  right.classList.toggle("pixelated", (scale / ratio) * devicePixelRatio > 3);
  const figure = getStage("right");
  figure.hidden = isServed || (view.mode === "flicker" && !view.showsRight);
  figure.querySelector(".canvas").style.clipPath = view.mode === "split" ? `inset(0 0 0 ${view.split}%)` : "";
  getRoot().querySelector(".divider").style.left = `${view.split}%`;
  const percent = Math.round(scale * devicePixelRatio * 100);
  getRoot().querySelector("#zoom-value").textContent =
    view.zoom <= 1.01 ? "fit" : `${percent} %`;
  view.scale = scale;
}

/** The map from pixels of the one to pixels of the other. */
function pixelMap(from, to, homography) {
  return multiply(
    [to.width, 0, 0, 0, to.height, 0, 0, 0, 1],
    multiply(homography, [1 / from.width, 0, 0, 0, 1 / from.height, 0, 0, 0, 1]),
  );
}

// --- zoom and pan ---

function getPicture() {
  return SERVER_MODES.has(view.mode) ? (view.served ?? view.left) : view.left;
}

/** Zoom by a factor around a point of the stage, which stays where it is. */
function zoomBy(factor, offsetX = 0, offsetY = 0) {
  const fit = view.scale / view.zoom;
  const largest = Math.max(MAX_PIXEL_SIZE / fit, 1);
  const zoom = Math.min(Math.max(view.zoom * factor, 1), largest);
  const moved = 1 / view.scale - 1 / (fit * zoom);
  view.zoom = zoom;
  move(offsetX * moved, offsetY * moved);
}

/** Move the middle by pixels of the left picture. */
function move(x, y) {
  const { width, height } = getPicture();
  const clamp = (value) => Math.min(Math.max(value, 0), 1);
  if (view.zoom <= 1.01) Object.assign(view, { zoom: 1, x: 0.5, y: 0.5 });
  else Object.assign(view, { x: clamp(view.x + x / width), y: clamp(view.y + y / height) });
  draw();
}

function pan(byX, byY) {
  const { clientWidth: width, clientHeight: height } = getStage("left");
  move((byX * PAN_STEP * width) / view.scale, (byY * PAN_STEP * height) / view.scale);
}

function zoomTo(name) {
  if (name === "in") zoomBy(ZOOM_STEP);
  else if (name === "out") zoomBy(1 / ZOOM_STEP);
  else if (name === "fit") zoomBy(0);
  else if (name === "pixels") zoomBy(1 / devicePixelRatio / view.scale);
  if (name === "full" || name === "pixels") {
    for (const side of ["left", "right"]) fetchLarger(view[side], FULL_SIDE_PX);
    if (name === "full") announce("loading the full resolution");
  }
}

function setSplit(percent) {
  view.split = Math.min(Math.max(percent, 0), 100);
  getRoot().querySelector("#split").value = view.split;
  draw();
}

const KEYS = {
  f: () => setMode("flicker"),
  1: () => setMode("side"),
  2: () => setMode("split"),
  3: () => setMode("difference"),
  4: () => setMode("tiles"),
  "+": () => zoomTo("in"),
  "=": () => zoomTo("in"),
  "-": () => zoomTo("out"),
  0: () => zoomTo("fit"),
  z: () => zoomTo("pixels"),
  r: () => zoomTo("full"),
  ",": () => setSplit(view.split - SPLIT_STEP),
  ".": () => setSplit(view.split + SPLIT_STEP),
};
const PAN_KEYS = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
};

/** Return what a key does in this view; undefined for one that it does not have. */
export function getCommand(event) {
  if (event.target.closest?.("[role=radiogroup]") && event.key.startsWith("Arrow")) {
    const modes = [...getRoot().querySelectorAll("[data-mode]")];
    const at = modes.findIndex((button) => button.dataset.mode === view.mode);
    const by = ["ArrowRight", "ArrowDown"].includes(event.key) ? 1 : -1;
    const next = modes[(at + by + modes.length) % modes.length];
    return () => {
      setMode(next.dataset.mode);
      next.focus();
    };
  }
  if (event.shiftKey && event.key in PAN_KEYS) return () => pan(...PAN_KEYS[event.key]);
  return KEYS[event.key];
}

// --- pointers ---

const pointers = new Map();

function listen() {
  const root = getRoot();
  if (root.dataset.listens) return;
  root.dataset.listens = "";
  const stages = getStages();
  stages.addEventListener("wheel", handleWheel, { passive: false });
  stages.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    stages.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, [event.clientX, event.clientY]);
  });
  stages.addEventListener("pointermove", handlePointer);
  for (const name of ["pointerup", "pointercancel"]) {
    stages.addEventListener(name, (event) => pointers.delete(event.pointerId));
  }
  stages.addEventListener("dblclick", (event) => {
    const [x, y] = getOffset(event.clientX, event.clientY);
    if (view.zoom > 1.01) zoomTo("fit");
    else zoomBy(Math.max(1 / devicePixelRatio / view.scale, 2), x, y);
  });
  root.addEventListener("click", (event) => {
    const button = event.target.closest("[data-mode], [data-zoom]");
    if (button?.dataset.mode) setMode(button.dataset.mode);
    else if (button) zoomTo(button.dataset.zoom);
  });
  root.querySelector("#split").addEventListener("input", (event) => {
    setSplit(Number(event.target.value));
  });
  new ResizeObserver(draw).observe(stages);
}

/** The offset of a point of the screen from the middle of the stage that it is in. */
function getOffset(x, y) {
  for (const side of ["left", "right"]) {
    const box = getStage(side).getBoundingClientRect();
    const isInside = x >= box.left && x <= box.right && y >= box.top && y <= box.bottom;
    if (isInside) return [x - box.left - box.width / 2, y - box.top - box.height / 2];
  }
  return [0, 0];
}

function handleWheel(event) {
  event.preventDefault();
  const pixels = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 24 * event.deltaY : event.deltaY;
  zoomBy(Math.exp(-pixels / 400), ...getOffset(event.clientX, event.clientY));
}

function handlePointer(event) {
  const before = pointers.get(event.pointerId);
  if (!before) return;
  const now = [event.clientX, event.clientY];
  if (pointers.size === 1 && view.mode === "split" && view.zoom <= 1.01) {
    const box = getStages().getBoundingClientRect();
    setSplit((100 * (now[0] - box.left)) / box.width);
  } else if (pointers.size === 1) {
    move((before[0] - now[0]) / view.scale, (before[1] - now[1]) / view.scale);
  } else if (pointers.size === 2) {
    const [other] = [...pointers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
    const distance = (point) => Math.hypot(point[0] - other[0], point[1] - other[1]);
    zoomBy(distance(now) / Math.max(distance(before), 1));
  }
  pointers.set(event.pointerId, now);
}
