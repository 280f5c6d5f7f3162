// Directions, panorama coordinates and panes, with the conventions of sap_ros/core/sphere.py.
//
// A direction is a unit vector [x, y, z]: x forward, y left, z up. Azimuth is counter-clockwise (to the
// left), elevation up, in radians. A position on the panorama is (u, v), both from 0 to 1: its middle is
// along x, u = 0 and u = 1 are straight behind. A position in a pane is (x, y) in CSS pixels from its upper
// left corner.

export const FIELD = { least: 30, most: 110, first: 90 }; // degrees, of the longer side of the pane
export const ZOOM = { least: 1, most: 16 }; // of the flat panorama
const RADIANS = Math.PI / 180;

export function anglesToDirection(azimuth, elevation) {
  const level = Math.cos(elevation);
  return [level * Math.cos(azimuth), level * Math.sin(azimuth), Math.sin(elevation)];
}

export function directionToAngles([x, y, z]) {
  return [Math.atan2(y, x), Math.atan2(z, Math.hypot(x, y))];
}

export function placeToDirection(u, v) {
  return anglesToDirection((0.5 - u) * 2 * Math.PI, (0.5 - v) * Math.PI);
}

export function directionToPlace(direction) {
  const [azimuth, elevation] = directionToAngles(direction);
  return [modulo(0.5 - azimuth / (2 * Math.PI), 1), 0.5 - elevation / Math.PI];
}

export function modulo(value, period) {
  return value - period * Math.floor(value / period);
}

const clamp = (value, least, most) => Math.min(most, Math.max(least, value));

// The sphere from inside: a pinhole camera.
export class SphereView {
  constructor() {
    this.azimuth = 0;
    this.elevation = 0;
    this.field = FIELD.first;
    this.resize(1, 1);
  }

  resize(width, height) {
    this.width = Math.max(1, width);
    this.height = Math.max(1, height);
  }

  get focal() {
    return Math.max(this.width, this.height) / 2 / Math.tan((this.field * RADIANS) / 2);
  }

  // Right, up and ahead, as directions.
  get axes() {
    const ahead = anglesToDirection(this.azimuth, this.elevation);
    const right = [Math.sin(this.azimuth), -Math.cos(this.azimuth), 0];
    const up = [
      right[1] * ahead[2] - right[2] * ahead[1],
      right[2] * ahead[0] - right[0] * ahead[2],
      right[0] * ahead[1] - right[1] * ahead[0],
    ];
    return [right, up, ahead];
  }

  toDirection(x, y) {
    const [right, up, ahead] = this.axes;
    const across = (x - this.width / 2) / this.focal;
    const above = (this.height / 2 - y) / this.focal;
    const ray = ahead.map((value, i) => value + across * right[i] + above * up[i]);
    const length = Math.hypot(...ray);
    return ray.map((value) => value / length);
  }

  // The position of a direction in the pane; null behind the camera.
  toPane(direction) {
    const [across, above, depth] = this.axes.map((axis) =>
      axis.reduce((sum, value, i) => sum + value * direction[i], 0),
    );
    if (depth <= 1e-6) return null;
    const scale = this.focal / depth;
    return [this.width / 2 + across * scale, this.height / 2 - above * scale];
  }

  // The picture follows the pointer.
  drag(dx, dy) {
    this.turn(Math.atan(dx / this.focal), Math.atan(dy / this.focal));
  }

  turn(left, up) {
    this.azimuth = modulo(this.azimuth + left + Math.PI, 2 * Math.PI) - Math.PI;
    this.elevation = clamp(this.elevation + up, -Math.PI / 2, Math.PI / 2);
  }

  step(left, up) {
    this.turn((left * this.field * RADIANS) / 8, (up * this.field * RADIANS) / 8);
  }

  magnify(factor) {
    this.field = clamp(this.field / factor, FIELD.least, FIELD.most);
  }

  lookAt(direction) {
    [this.azimuth, this.elevation] = directionToAngles(direction);
  }
}

// The flat panorama, all of it or a part.
export class FlatView {
  constructor() {
    this.u = 0.5; // the place in the middle of the pane
    this.v = 0.5;
    this.zoom = ZOOM.least;
    this.resize(1, 1);
  }

  resize(width, height) {
    this.width = Math.max(1, width);
    this.height = Math.max(1, height);
    this.#bound();
  }

  // Width of the whole panorama in CSS pixels.
  get span() {
    return Math.min(this.width, 2 * this.height) * this.zoom;
  }

  // Null outside of the panorama.
  toDirection(x, y) {
    const across = (x - this.width / 2) / this.span;
    const v = this.v + (y - this.height / 2) / (this.span / 2);
    if (Math.abs(across) > 0.5 || v < 0 || v > 1) return null;
    return placeToDirection(this.u + across, v);
  }

  toPane(direction) {
    const [u, v] = directionToPlace(direction);
    const across = modulo(u - this.u + 0.5, 1) - 0.5;
    return [
      this.width / 2 + across * this.span,
      this.height / 2 + ((v - this.v) * this.span) / 2,
    ];
  }

  drag(dx, dy) {
    this.u = modulo(this.u - dx / this.span, 1);
    this.v -= dy / (this.span / 2);
    this.#bound();
  }

  step(left, up) {
    this.drag((left * this.width) / 8, (up * this.height) / 8);
  }

  magnify(factor) {
    this.zoom = clamp(this.zoom * factor, ZOOM.least, ZOOM.most);
    this.#bound();
  }

  lookAt(direction) {
    [this.u, this.v] = directionToPlace(direction);
    this.#bound();
  }

  // Shows no more than necessary beyond the poles.
  #bound() {
    const half = Math.min(0.5, this.height / this.span);
    this.v = clamp(this.v, half, 1 - half);
  }
}

// A rectangle of a pane as two directions, its upper left and lower right corner on the panorama.
// Throws if it extends beyond the panorama or contains a pole, which a box cannot represent.
export function boxOf(view, [x0, y0], [x1, y1]) {
  const [left, right] = [Math.min(x0, x1), Math.max(x0, x1)];
  const [top, bottom] = [Math.min(y0, y1), Math.max(y0, y1)];
  const middle = view.toDirection((left + right) / 2, (top + bottom) / 2);
  if (!middle) throw new Error("The box is outside of the panorama.");
  const [middleAzimuth] = directionToAngles(middle);
  const steps = 16; // points a side
  const angles = [];
  for (let i = 0; i <= steps; i += 1) {
    const x = left + ((right - left) * i) / steps;
    const y = top + ((bottom - top) * i) / steps;
    for (const place of [[x, top], [x, bottom], [left, y], [right, y]]) {
      const direction = view.toDirection(...place);
      if (!direction) throw new Error("The box extends beyond the panorama.");
      const [azimuth, elevation] = directionToAngles(direction);
      // Relative to the middle, so that the seam needs no special treatment.
      angles.push([modulo(azimuth - middleAzimuth + Math.PI, 2 * Math.PI) - Math.PI, elevation]);
    }
  }
  for (const pole of [[0, 0, 1], [0, 0, -1]]) {
    const at = view.toPane(pole);
    const inside = at && at[0] > left && at[0] < right && at[1] > top && at[1] < bottom;
    if (inside && view instanceof SphereView) {
      throw new Error("A box cannot contain a pole; click on the object instead.");
    }
  }
  const azimuths = angles.map(([azimuth]) => azimuth);
  const elevations = angles.map(([, elevation]) => elevation);
  return [
    anglesToDirection(middleAzimuth + Math.max(...azimuths), Math.max(...elevations)),
    anglesToDirection(middleAzimuth + Math.min(...azimuths), Math.min(...elevations)),
  ];
}

// "30° left, 10° up".
export function describe(direction) {
  const [azimuth, elevation] = directionToAngles(direction).map((a) => Math.round(a / RADIANS));
  const side = azimuth === 0 ? "ahead" : `${Math.abs(azimuth)}° ${azimuth > 0 ? "left" : "right"}`;
  if (elevation === 0) return side;
  return `${side}, ${Math.abs(elevation)}° ${elevation > 0 ? "up" : "down"}`;
}
