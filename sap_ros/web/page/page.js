// The page: the panes, the list of objects, and the buttons, on one connection.

import { Connection } from "./connection.js";
import { FlatView, SphereView } from "./geometry.js";
import { ObjectList } from "./objects.js";
import { Pane } from "./pane.js";
import { Renderer } from "./renderer.js";

const find = (name) => document.getElementById(name);
const RATE_WINDOW = 5000; // ms, over which the rate of shown images is measured
const MESSAGE_STAYS = 8000; // ms

let state = { mode: "", objects: [] };
let shown = null; // stamp of the drawn image
let early = null; // masks whose image is not drawn yet
let chosen = 0;
let followed = 0;
let drawnAt = []; // times at which images of a stream were drawn
const waiting = new Set(); // clicked directions without an answer yet

let renderer;
try {
  renderer = new Renderer(find("canvas"));
} catch (error) {
  warn(error.message);
  throw error;
}

const actions = {
  moved: () => {
    followed = 0;
    redraw();
  },
  point: (direction, keys) => {
    const mode = keys.shift ? "off" : keys.add ? "on" : clickMode();
    const isNew = mode === "new";
    if (!isNew && !chosen) {
      say("Choose an object in the list first.", true);
      return;
    }
    prompt({ type: "point", direction, positive: mode !== "off", object_id: isNew ? 0 : chosen }, direction);
  },
  box: (corners) => {
    const middle = corners[0].map((value, i) => value + corners[1][i]);
    prompt({ type: "box", corners, object_id: 0 }, middle);
  },
  problem: (text) => say(text, true),
  boxing: () => clickMode() === "box",
};
const panes = [
  new Pane(find("sphere"), new SphereView(), actions),
  new Pane(find("flat"), new FlatView(), actions),
];

const list = new ObjectList(find("objects"), find("row"), {
  choose: (id) => {
    chosen = chosen === id ? 0 : id;
    const direction = objectOf(chosen)?.direction;
    if (direction) panes[0].view.lookAt(direction);
    refresh();
  },
  rename: (id, label) => ask({ type: "rename", object_id: id, label }),
  follow: (id) => {
    followed = followed === id ? 0 : id;
    refresh();
  },
  remove: (id) => ask({ type: "remove", object_id: id }),
});

const decoding = { image: Promise.resolve(), masks: Promise.resolve() };
const connection = new Connection({
  opened: () => warn(""),
  lost: (reason) => {
    waiting.clear();
    warn(reason || "The connection to the server is lost; the page tries to reconnect.");
    redraw();
  },
  state: (values) => {
    const before = state;
    state = values;
    const isGone = (id) => before.objects.some((object) => object.id === id) && !objectOf(id);
    if (isGone(chosen)) chosen = 0;
    if (isGone(followed)) followed = 0;
    refresh();
  },
  picture: (head, blob) => {
    decoding[head.type] = decoding[head.type].then(() => take(head, blob));
  },
});

function objectOf(id) {
  return state.objects.find((object) => object.id === id);
}

function clickMode() {
  return document.querySelector("input[name=click]:checked").value;
}

async function prompt(command, direction) {
  if (!shown) {
    say("There is no image yet.", true);
    return;
  }
  waiting.add(direction);
  redraw();
  const answer = await ask({ ...command, stamp: shown });
  waiting.delete(direction);
  if (answer) chosen = answer.object_id;
  refresh();
}

async function ask(command) {
  try {
    const answer = await connection.ask(command);
    say(answer.message);
    return answer;
  } catch (error) {
    say(error.message, true);
    return null;
  }
}

async function take(head, blob) {
  try {
    const isImage = head.type === "image";
    let picture = await createImageBitmap(blob, { premultiplyAlpha: "none", colorSpaceConversion: "none" });
    if (picture.width > renderer.largest) {
      const whole = picture;
      picture = await createImageBitmap(whole, {
        resizeWidth: renderer.largest,
        resizeHeight: renderer.largest / 2,
        resizeQuality: isImage ? "medium" : "pixelated",
      });
      whole.close();
    }
    if (isImage) await new Promise((drawn) => window.requestAnimationFrame(drawn));
    if (isImage) showImage(head, picture);
    else showMasks(head, picture);
  } catch (error) {
    say(`A picture could not be shown: ${error.message}`, true);
  }
  if (head.type === "image") connection.drawn();
  redraw();
}

function showImage(head, picture) {
  renderer.show("panorama", picture);
  if (head.stamp !== shown) renderer.clearMasks();
  shown = head.stamp;
  find("stage").dataset.stamp = shown;
  if (early) showMasks(early.head, early.picture);
  const now = performance.now();
  drawnAt = [...drawnAt.filter((time) => now - time < RATE_WINDOW), now];
}

function showMasks(head, picture) {
  early?.picture !== picture && early?.picture.close();
  early = null;
  if (head.stamp !== shown) early = { head, picture };
  else renderer.show("masks", picture);
}

// Drawing, at most once per screen refresh

let drawing = false;
function redraw() {
  if (drawing) return;
  drawing = true;
  window.requestAnimationFrame(draw);
}

function draw() {
  drawing = false;
  const canvas = renderer.canvas;
  const scale = window.devicePixelRatio || 1;
  const stage = find("stage").getBoundingClientRect();
  const [width, height] = [Math.round(stage.width * scale), Math.round(stage.height * scale)];
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const visible = panes.filter((pane) => pane.visible);
  const written = state.objects.map((object) => ({ ...object, ...tagsOf(object) }));
  for (const pane of visible) {
    pane.resize();
    pane.write(written, chosen, [...waiting]);
  }
  const placed = visible.map(({ view, element }) => {
    const { left, top } = element.getBoundingClientRect();
    return { view, left: left - stage.left, top: top - stage.top };
  });
  renderer.draw(placed, scale, chosen);
}

// In live mode the node's overlay contains the ids already.
function tagsOf({ id, label }) {
  if (state.mode === "live") return { tag: label, short: "" };
  return { tag: label ? `${id} ${label}` : `${id}`, short: `${id}` };
}

// Showing the state

function refresh() {
  const objects = state.objects.filter(({ id }) => id > 0);
  const direction = objectOf(followed)?.direction;
  if (direction) {
    for (const { view } of panes) if (view instanceof SphereView || view.zoom > 1) view.lookAt(direction);
  }
  list.show(objects, chosen, followed);
  find("none").hidden = objects.length > 0;
  document.body.dataset.mode = state.mode;
  const { title, folder, live, busy } = state;
  if (title) document.title = `${title} · sap`;
  set("title", title ?? "");
  if (folder) {
    const saved = folder.changed ? "not saved" : folder.saved ? "saved" : "no labels yet";
    const others = folder.count > 1 ? `${folder.index + 1} of ${folder.count}, ${folder.labelled} labelled · ` : "";
    set("facts", busy || `${others}${saved}`);
    find("previous").disabled = folder.index === 0;
    find("next").disabled = folder.index === folder.count - 1;
    find("undo").disabled = !folder.can_undo;
    find("save").disabled = folder.saved;
  }
  if (live) set("facts", liveFacts(live));
  find("facts").ariaLive = live ? "off" : "polite"; // a screen reader skips values that change all the time
  find("reset").disabled = objects.length === 0;
  if (connection.isOpen) warn(state.alert);
  redraw();
}

function liveFacts({ rate, latency, dropped }) {
  const facts = [];
  if (rate !== null) facts.push(`${rate.toFixed(1)} images/s`);
  if (latency !== null) facts.push(`latency ${Math.round(latency * 1000)} ms`);
  if (dropped !== null) facts.push(`${dropped} dropped`);
  const now = performance.now();
  const here = drawnAt.filter((time) => now - time < RATE_WINDOW).length / (RATE_WINDOW / 1000);
  facts.push(`shown here ${here.toFixed(1)}/s`);
  return facts.join(" · ");
}

function set(name, text) {
  const element = find(name);
  if (element.textContent !== text) element.textContent = text;
}

function warn(text) {
  set("alert", text ?? "");
  find("alert").hidden = !text;
}

let silence;
function say(text, isProblem = false) {
  window.clearTimeout(silence);
  set("message", text);
  find("message").hidden = !text;
  find("message").classList.toggle("problem", isProblem);
  silence = window.setTimeout(() => say(""), MESSAGE_STAYS);
}

// Buttons and keys

for (const name of ["previous", "next", "undo", "save", "reset"]) {
  find(name).addEventListener("click", () => ask({ type: name }));
}
for (const choice of document.querySelectorAll("input[name=layout]")) {
  choice.addEventListener("change", () => {
    find("stage").dataset.layout = choice.value;
    redraw();
  });
}
const KEYS = { n: "next", p: "previous", u: "undo", s: "save" };
const CLICKS = { 1: "new", 2: "on", 3: "off", 4: "box" };
document.addEventListener("keydown", (event) => {
  if (event.target.matches("input[type=text]") || event.ctrlKey || event.metaKey || event.altKey) return;
  const button = find(KEYS[event.key]);
  if (button && button.offsetParent && !button.disabled) button.click();
  else if (CLICKS[event.key]) find(`click-${CLICKS[event.key]}`).checked = true;
  else if (event.key === "Delete" && chosen) ask({ type: "remove", object_id: chosen });
});
new ResizeObserver(redraw).observe(find("stage"));
redraw();
