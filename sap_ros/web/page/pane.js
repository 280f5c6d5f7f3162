// A pane with a view of the panorama: gestures, keys, and the text over the picture.

import { boxOf, describe } from "./geometry.js";
import { cssColour } from "./renderer.js";

const TAP_MOVES = 6; // CSS pixels, largest movement of a tap
const WHEEL = 0.0015; // change of the logarithm of the zoom per pixel of scrolling
const KEY_ZOOM = 1.2;
const LEAST_ZOOM_FOR_LABELS = 2; // of the flat panorama
const DRAGS_TO_STAY = 4;
const SMALLEST_BOX = 4; // CSS pixels

export class Pane {
  // actions: moved(), point(direction, {shift, add}), box(corners), problem(text);
  // boxing(): whether a drag draws a box.
  constructor(element, view, actions) {
    this.element = element;
    this.view = view;
    this.actions = actions;
    this.pointers = new Map();
    this.tags = new Map();
    this.rectangle = element.querySelector(".rectangle");
    this.caption = element.querySelector(".caption");
    this.written = element.querySelector(".written");
    this.corner = null; // first corner of a box that is drawn with keys
    element.addEventListener("pointerdown", (event) => this.#down(event));
    element.addEventListener("pointermove", (event) => this.#move(event));
    element.addEventListener("pointerup", (event) => this.#up(event));
    element.addEventListener("pointercancel", (event) => this.#cancel(event));
    element.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    element.addEventListener("keydown", (event) => this.#key(event));
    element.addEventListener("contextmenu", (event) => event.preventDefault());
  }

  get visible() {
    return this.element.offsetParent !== null && this.element.clientWidth > 0;
  }

  resize() {
    this.view.resize(this.element.clientWidth, this.element.clientHeight);
  }

  // objects: [{id, direction, tag, short}], waiting: clicked directions without an answer yet.
  write(objects, chosen, waiting) {
    const wanted = new Map();
    // On the whole panorama objects are small, so long tags would hide them.
    const isSmall = this.view.zoom < LEAST_ZOOM_FOR_LABELS;
    for (const { id, direction, tag, short } of objects) {
      const text = isSmall ? short : tag;
      if (direction) wanted.set(`object ${id}`, { direction, text, id });
    }
    for (const [i, direction] of waiting.entries()) wanted.set(`click ${i}`, { direction, id: 0 });
    for (const [key, tag] of this.tags) {
      if (!wanted.has(key)) {
        tag.remove();
        this.tags.delete(key);
      }
    }
    for (const [key, { direction, text, id }] of wanted) {
      let tag = this.tags.get(key);
      if (!tag) {
        tag = document.createElement("span");
        this.written.append(tag);
        this.tags.set(key, tag);
      }
      tag.className = id ? "tag" : "waiting";
      tag.textContent = text ?? "";
      tag.classList.toggle("chosen", id > 0 && id === chosen);
      if (id) tag.style.borderColor = cssColour(id);
      const at = this.view.toPane(direction);
      tag.hidden = !at || (id > 0 && !text);
      // A tag is above the middle of its object, because it would hide a small object.
      const offset = id ? "translate(-50%, calc(-100% - 12px))" : "translate(-50%, -50%)";
      if (at) tag.style.transform = `translate(${at[0]}px, ${at[1]}px) ${offset}`;
    }
    const ahead = this.view.toDirection(this.view.width / 2, this.view.height / 2);
    const { azimuth, elevation, field, u, v, zoom } = this.view;
    const data = field === undefined ? { u, v, zoom } : { azimuth, elevation, field };
    for (const [name, value] of Object.entries(data)) this.element.dataset[name] = value;
    const size = field === undefined ? `${zoom.toFixed(1)}x` : `${Math.round(field)}° wide`;
    this.caption.textContent = `${describe(ahead)} · ${size}`;
  }

  #at(event) {
    const { left, top } = this.element.getBoundingClientRect();
    return [event.clientX - left, event.clientY - top];
  }

  #down(event) {
    if (event.button > 0) return;
    this.element.focus({ preventScroll: true, focusVisible: false });
    this.element.setPointerCapture(event.pointerId);
    const at = this.#at(event);
    this.pointers.set(event.pointerId, at);
    if (this.pointers.size === 1) {
      this.first = at;
      this.still = true;
      this.box = this.actions.boxing() ? at : null;
    } else {
      this.still = false;
      this.box = null;
      this.rectangle.hidden = true;
    }
  }

  #move(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const at = this.#at(event);
    if (Math.hypot(at[0] - this.first[0], at[1] - this.first[1]) > TAP_MOVES) this.still = false;
    if (this.still) return;
    if (this.box) {
      this.#draw(this.box, at);
      return;
    }
    if (this.pointers.size === 2) {
      const [other] = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, p]) => p);
      const spread = (place) => Math.hypot(place[0] - other[0], place[1] - other[1]);
      const middle = [(at[0] + other[0]) / 2, (at[1] + other[1]) / 2];
      if (spread(before) > 0) this.#magnify(spread(at) / spread(before), middle);
      this.view.drag((at[0] - before[0]) / 2, (at[1] - before[1]) / 2);
    } else {
      this.view.drag(at[0] - before[0], at[1] - before[1]);
    }
    this.pointers.set(event.pointerId, at);
    this.actions.moved();
  }

  #up(event) {
    if (!this.pointers.delete(event.pointerId) || this.pointers.size) return;
    this.rectangle.hidden = true;
    const at = this.#at(event);
    if (this.box && !this.still) this.#finish(this.box, at);
    else if (this.still && !this.box) {
      this.#click(at, { shift: event.shiftKey, add: event.ctrlKey || event.altKey || event.metaKey });
    } else if (this.still) this.actions.problem("Drag across the object to draw a box round it.");
    this.box = null;
  }

  #cancel(event) {
    this.pointers.delete(event.pointerId);
    this.box = null;
    this.still = false;
    this.rectangle.hidden = true;
  }

  #wheel(event) {
    event.preventDefault();
    this.#magnify(Math.exp(-event.deltaY * WHEEL), this.#at(event));
    this.actions.moved();
  }

  #key(event) {
    const { key } = event;
    const turns = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    const middle = [this.view.width / 2, this.view.height / 2];
    if (turns[key]) this.view.step(...turns[key]);
    else if (key === "+" || key === "=") this.#magnify(KEY_ZOOM, middle);
    else if (key === "-") this.#magnify(1 / KEY_ZOOM, middle);
    else if (key === "Enter" || key === " ") this.#press(middle, event);
    else if (key === "Escape" && this.corner) this.corner = null;
    else return;
    event.preventDefault();
    this.actions.moved();
  }

  // A key press acts as a tap at the cross in the middle; for a box it sets one corner, then the other.
  #press(middle, event) {
    if (!this.actions.boxing()) {
      this.#click(middle, { shift: event.shiftKey, add: event.ctrlKey || event.altKey });
      return;
    }
    if (!this.corner) {
      this.corner = this.view.toDirection(...middle);
      this.actions.problem("One corner is set; move the cross to the opposite one and press Enter.");
      return;
    }
    const from = this.view.toPane(this.corner);
    this.corner = null;
    if (from) this.#finish(from, middle);
    else this.actions.problem("The first corner is out of sight; set it again.");
  }

  #magnify(factor, [x, y]) {
    const under = this.view.toDirection(x, y);
    this.view.magnify(factor);
    // Keeps the point under the pointer in place; repeated, since a drag is exact only in the middle of the pane.
    for (let i = 0; i < DRAGS_TO_STAY; i += 1) {
      const now = under && this.view.toPane(under);
      if (now) this.view.drag(x - now[0], y - now[1]);
    }
  }

  #click(at, keys) {
    const direction = this.view.toDirection(...at);
    if (direction) this.actions.point(direction, keys);
    else this.actions.problem("That is outside of the panorama.");
  }

  #draw(from, to) {
    this.rectangle.hidden = false;
    this.rectangle.style.left = `${Math.min(from[0], to[0])}px`;
    this.rectangle.style.top = `${Math.min(from[1], to[1])}px`;
    this.rectangle.style.width = `${Math.abs(to[0] - from[0])}px`;
    this.rectangle.style.height = `${Math.abs(to[1] - from[1])}px`;
  }

  #finish(from, to) {
    if (Math.abs(to[0] - from[0]) < SMALLEST_BOX || Math.abs(to[1] - from[1]) < SMALLEST_BOX) {
      this.actions.problem("The box is too small.");
      return;
    }
    try {
      this.actions.box(boxOf(this.view, from, to));
    } catch (error) {
      this.actions.problem(error.message);
    }
  }
}
