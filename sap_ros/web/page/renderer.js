// Draws the panes with WebGL: for each pixel its position on the panorama, the colour there, and the object's.

import { SphereView } from "./geometry.js";

const VERTEX = `#version 300 es
void main() {
  vec2 corner = vec2((gl_VertexID << 1) & 2, gl_VertexID & 2);
  gl_Position = vec4(corner * 2.0 - 1.0, 0.0, 1.0);
}`;

// The formulas are those of sphere.py; the objects' colours are those of overlay.py.
const FRAGMENT = `#version 300 es
precision highp float;
uniform sampler2D panorama;
uniform sampler2D masks;
uniform bool spherical;
uniform vec2 middle;      // middle of the pane, in pixels of the canvas, y up
uniform float focal;      // focal length of the sphere's camera, in these pixels
uniform mat3 axes;        // right, up, ahead
uniform vec2 place;       // position on the flat panorama at the middle of the pane
uniform vec2 span;        // width and height of the flat panorama in these pixels
uniform float detail;     // mipmap level
uniform float outline;    // width of outlines in these pixels
uniform int chosen;       // object id
uniform bool masked;      // whether there are masks
out vec4 colour;
const float PI = 3.14159265358979;

vec2 placeOf(vec2 pixel) {
  vec2 offset = pixel - middle;
  if (!spherical) return place + vec2(offset.x, -offset.y) / span;
  vec3 ray = axes * vec3(offset / focal, 1.0);
  return vec2(0.5 - atan(ray.y, ray.x) / (2.0 * PI), 0.5 - atan(ray.z, length(ray.xy)) / PI);
}

int idAt(vec2 pixel) {
  vec2 bytes = texture(masks, placeOf(pixel)).rg * 255.0 + 0.5;
  return int(bytes.r) + 256 * int(bytes.g);
}

vec3 shade(int id) {
  float hue = fract(float(id) * 0.618034);
  vec3 vivid = clamp(abs(fract(hue + vec3(0.0, 2.0, 1.0) / 3.0) * 6.0 - 3.0) - 1.0, 0.0, 1.0);
  return mix(vec3(1.0), vivid, 0.85);
}

void main() {
  vec2 at = placeOf(gl_FragCoord.xy);
  if (!spherical && (abs(at.x - place.x) > 0.5 || at.y < 0.0 || at.y > 1.0)) {
    colour = vec4(0.09, 0.1, 0.11, 1.0);
    return;
  }
  colour = vec4(textureLod(panorama, at, detail).rgb, 1.0);
  if (!masked) return;
  int id = idAt(gl_FragCoord.xy);
  if (id > 0) colour.rgb = mix(colour.rgb, shade(id), id == chosen ? 0.35 : 0.5);
  int edge = id;
  bool rim = false;
  for (int i = 0; i < 8; i++) {
    float angle = float(i) * PI / 4.0;
    int other = idAt(gl_FragCoord.xy + outline * vec2(cos(angle), sin(angle)));
    if (other != id) { rim = true; edge = max(edge, other); }
  }
  if (rim) colour.rgb = edge == chosen || id == chosen ? vec3(1.0) : shade(edge);
}`;

export class Renderer {
  // Throws if the browser has no WebGL 2.
  constructor(canvas) {
    this.canvas = canvas;
    this.gl = canvas.getContext("webgl2", { antialias: false, preserveDrawingBuffer: true });
    if (!this.gl) throw new Error("This browser has no WebGL 2, which is needed to show the panorama.");
    this.pictures = {}; // kept for another upload
    this.#prepare();
    canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
    canvas.addEventListener("webglcontextrestored", () => {
      this.#prepare();
      for (const [name, picture] of Object.entries(this.pictures)) this.#upload(name, picture);
    });
  }

  get largest() {
    return this.gl.getParameter(this.gl.MAX_TEXTURE_SIZE);
  }

  // Sets a picture (ImageBitmap): "panorama", or "masks", whose red and green are the ids' low and high byte.
  show(name, picture) {
    this.pictures[name]?.close();
    this.pictures[name] = picture;
    this.#upload(name, picture);
  }

  clearMasks() {
    this.pictures.masks?.close();
    delete this.pictures.masks;
    this.#blank("masks");
  }

  // panes: [{view, left, top}] in CSS pixels of the canvas; scale: canvas pixels per CSS pixel.
  draw(panes, scale, chosen) {
    const { gl, canvas, places } = this;
    gl.useProgram(this.program);
    gl.enable(gl.SCISSOR_TEST);
    gl.uniform1i(places.chosen, chosen);
    gl.uniform1i(places.masked, "masks" in this.pictures);
    gl.uniform1f(places.outline, 1.5 * scale);
    for (const { view, left, top } of panes) {
      const width = Math.round(view.width * scale);
      const height = Math.round(view.height * scale);
      const x = Math.round(left * scale);
      const y = canvas.height - Math.round(top * scale) - height;
      gl.viewport(x, y, width, height);
      gl.scissor(x, y, width, height);
      const spherical = view instanceof SphereView;
      gl.uniform1i(places.spherical, spherical);
      gl.uniform2f(places.middle, x + width / 2, y + height / 2);
      let across; // canvas pixels of the panorama's width, in the middle of the pane
      if (spherical) {
        gl.uniform1f(places.focal, view.focal * scale);
        gl.uniformMatrix3fv(places.axes, false, view.axes.flat());
        across = view.focal * scale * 2 * Math.PI;
      } else {
        gl.uniform2f(places.place, view.u, view.v);
        gl.uniform2f(places.span, view.span * scale, (view.span * scale) / 2);
        across = view.span * scale;
      }
      gl.uniform1f(places.detail, Math.max(0, Math.log2((this.pictures.panorama?.width ?? 1) / across)));
      gl.drawArrays(gl.TRIANGLES, 0, 3);
    }
  }

  #prepare() {
    const { gl } = this;
    this.program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(this.program, shader);
    }
    gl.linkProgram(this.program);
    if (!gl.getProgramParameter(this.program, gl.LINK_STATUS) && !gl.isContextLost()) {
      throw new Error(`The panorama cannot be drawn: ${gl.getProgramInfoLog(this.program)}`);
    }
    const names = ["spherical", "middle", "focal", "axes", "place", "span", "detail", "outline", "chosen", "masked"];
    this.places = Object.fromEntries(names.map((n) => [n, gl.getUniformLocation(this.program, n)]));
    gl.useProgram(this.program);
    this.textures = {};
    for (const [unit, name] of ["panorama", "masks"].entries()) {
      this.textures[name] = { unit, texture: gl.createTexture() };
      gl.uniform1i(gl.getUniformLocation(this.program, name), unit);
      this.#bind(name);
      gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_S, gl.REPEAT);
      gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE);
      const isMasks = name === "masks";
      gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, isMasks ? gl.NEAREST : gl.LINEAR);
      gl.texParameteri(
        gl.TEXTURE_2D,
        gl.TEXTURE_MIN_FILTER,
        isMasks ? gl.NEAREST : gl.LINEAR_MIPMAP_LINEAR,
      );
      this.#blank(name);
    }
  }

  #bind(name) {
    const { gl } = this;
    gl.activeTexture(gl.TEXTURE0 + this.textures[name].unit);
    gl.bindTexture(gl.TEXTURE_2D, this.textures[name].texture);
  }

  #blank(name) {
    const { gl } = this;
    this.#bind(name);
    const black = new Uint8Array([0, 0, 0, 255]);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA8, 1, 1, 0, gl.RGBA, gl.UNSIGNED_BYTE, black);
  }

  #upload(name, picture) {
    const { gl } = this;
    this.#bind(name);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA8, gl.RGBA, gl.UNSIGNED_BYTE, picture);
    if (name === "panorama") gl.generateMipmap(gl.TEXTURE_2D);
  }
}

// The colour of the shader's shade() as a CSS colour.
export function cssColour(id) {
  const hue = ((id * 0.618034) % 1) * 360;
  return `hsl(${hue.toFixed(1)} 100% 57.5%)`; // HSV with saturation 0.85 and value 1
}
