// The list of objects beside the panorama.

import { describe } from "./geometry.js";
import { cssColour } from "./renderer.js";

const STATES = { PENDING: "waiting", TRACKED: "found", LOST: "not found", REJECTED: "rejected", SAVED: "saved" };

// A mask with a lower predicted IoU is often wrong.
const UNSURE = 0.5;

export class ObjectList {
  // actions: choose(id), rename(id, label), follow(id), remove(id).
  constructor(list, template, actions) {
    this.list = list;
    this.template = template;
    this.actions = actions;
    this.rows = new Map();
  }

  show(objects, chosen, followed) {
    const ids = new Set(objects.map(({ id }) => id));
    for (const [id, row] of this.rows) {
      if (!ids.has(id)) {
        row.remove();
        this.rows.delete(id);
      }
    }
    for (const [i, object] of objects.entries()) {
      const row = this.rows.get(object.id) ?? this.#add(object.id);
      if (this.list.children[i] !== row) this.list.insertBefore(row, this.list.children[i] ?? null);
      this.#fill(row, object, chosen, followed);
    }
  }

  #add(id) {
    const row = this.template.content.firstElementChild.cloneNode(true);
    row.dataset.id = id;
    row.querySelector(".swatch").style.background = cssColour(id);
    row.querySelector(".number").textContent = id;
    const label = row.querySelector(".label");
    label.setAttribute("aria-label", `Label of object ${id}`);
    label.addEventListener("change", () => this.actions.rename(id, label.value));
    label.addEventListener("keydown", (event) => {
      if (event.key === "Enter") label.blur();
    });
    const follow = row.querySelector(".follow");
    follow.setAttribute("aria-label", `Turn the view with object ${id}`);
    const remove = row.querySelector(".remove");
    remove.setAttribute("aria-label", `Remove object ${id}`);
    row.querySelector(".choose").addEventListener("click", () => this.actions.choose(id));
    follow.addEventListener("click", () => this.actions.follow(id));
    remove.addEventListener("click", () => this.actions.remove(id));
    this.rows.set(id, row);
    return row;
  }

  #fill(row, object, chosen, followed) {
    const unsure = object.state === "TRACKED" && object.score !== null && object.score < UNSURE;
    const facts = [unsure ? "found, but unsure" : (STATES[object.state] ?? object.state)];
    if (object.direction) facts.push(describe(object.direction));
    else if (object.azimuth !== null) {
      facts.push(`azimuth ${degrees(object.azimuth)}, elevation ${degrees(object.elevation)}`);
    }
    if (object.range !== null) facts.push(`${object.range.toFixed(2)} m`);
    if (object.score !== null && object.state === "TRACKED") facts.push(`score ${object.score.toFixed(2)}`);
    if (object.reason) facts.push(object.reason);
    set(row.querySelector(".facts"), facts.join(" · "));
    row.dataset.state = unsure ? "UNSURE" : object.state;
    const label = row.querySelector(".label");
    if (document.activeElement !== label) label.value = object.label;
    const choose = row.querySelector(".choose");
    choose.setAttribute("aria-pressed", object.id === chosen);
    choose.setAttribute("aria-label", `Object ${object.id} ${object.label}: ${facts.join(", ")}`);
    row.querySelector(".follow").setAttribute("aria-pressed", object.id === followed);
    row.querySelector(".follow").disabled = !object.direction;
  }
}

function degrees(angle) {
  return `${((angle * 180) / Math.PI).toFixed(1)}°`;
}

function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
