// The explorer: one module for JupyterLab (anywidget) and for a page without a server. All values come from Python
// (`results.explorer`, `study.explorer`); nothing is computed here but where things stand on the screen.
const SVG = "http://www.w3.org/2000/svg";
const READINGS = { full: "task unknown", known: "task known" };
const KEY = "Dashed: the front, of settings that no other beats on both tasks (on validation). Thick ring: the choice. Thin rings: what cannot be told apart from it. Pale: loses more than the slider allows, on some pair.";
const HINT = "Point at a setting, or go to the plot with Tab and from point to point with the arrow keys. Click or Enter pins a point, Escape lets it go.";
const STAR = "M0.0 -9.0L2.1 -2.9L8.6 -2.8L3.4 1.1L5.3 7.3L0.0 3.6L-5.3 7.3L-3.4 1.1L-8.6 -2.8L-2.1 -2.9Z";
const percent = (x) => (100 * x).toFixed(1);

function make(parent, tag, attributes = {}, text = "") {
  const svg = tag === "svg" || parent.namespaceURI === SVG;
  const node = svg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text) node.textContent = text;
  parent.append(node);
  return node;
}

function control(parent, label, tag, attributes = {}) {
  return make(make(parent, "label", {}, label), tag, { "aria-label": label, ...attributes });
}

function choice(parent, label, options, change) {
  const select = control(parent, label, "select");
  for (const [value, text] of options) make(select, "option", { value }, text);
  select.addEventListener("change", change);
  return select;
}

function marker(parent, look, x, y, size, more = {}) {
  const transform = `translate(${x.toFixed(1)} ${y.toFixed(1)}) scale(${size})`;
  const colour = look.colour === "#000000" ? "var(--ink)" : look.colour;
  const paint = { fill: look.hollow ? "var(--paper)" : colour, stroke: `color-mix(in srgb, ${colour} 75%, var(--ink))`, "vector-effect": "non-scaling-stroke" };
  return make(parent, "path", { d: look.path, transform, ...paint, ...more });
}

// Columns, as Python writes them, become one object a point.
function pointsOf(columns) {
  return columns.setting.map((_, i) => Object.fromEntries(Object.entries(columns).map(([name, values]) => [name, values[i]])));
}

// ---- The trade-off and the choice ----------------------------------------------------------------------------------

class Tradeoff {
  constructor(root, data) {
    this.data = data;
    this.pairs = Object.fromEntries(Object.entries(data.pairs).map(([name, pair]) => [name, { ...pair, points: pointsOf(pair.points) }]));
    this.pinned = null;
    make(root, "h2", {}, "What is kept, and what is gained");
    const bar = make(root, "div", { class: "bar" }), draw = () => this.draw(), emphasise = () => this.emphasise();
    this.pair = choice(bar, "Pair", Object.keys(data.pairs).map((name) => [name, name]), draw);
    this.reading = choice(bar, "Reading of the source", Object.entries(READINGS), draw);
    [this.seeds, this.near] = ["Show each seed", "Near the ideal only"].map((label) => control(bar, label, "input", { type: "checkbox" }));
    for (const box of [this.seeds, this.near]) box.addEventListener("change", draw);
    const lose = make(root, "div", { class: "bar" });
    this.slider = control(lose, "I can lose at most", "input", { type: "range", min: 0, max: data.drops.length - 1, step: 1, class: "drop" });
    this.slider.value = Math.max(0, data.drops.indexOf(0.05));
    this.slider.addEventListener("input", emphasise);
    this.amount = make(lose, "output");
    this.told = make(root, "p", { class: "told", role: "status" });
    const two = make(root, "div", { class: "two" }), figure = make(two, "div");
    this.svg = make(figure, "svg", { viewBox: "0 0 700 470", role: "group" });
    this.layers = Object.fromEntries(["back", "points", "rings"].map((name) => [name, make(this.svg, "g", { class: name })]));
    make(figure, "p", { class: "key" }, KEY);
    this.about = make(figure, "p", { class: "about", role: "status" });
    this.families(make(two, "div"), draw);
    this.draw();
  }

  families(side, draw) {
    const list = { class: "families", role: "group", "aria-label": "Families shown" };
    const all = make(make(side, "div", { class: "bar" }), "button", { type: "button" }, "All families or none");
    this.list = make(side, "div", list);
    for (const [name, look] of Object.entries(this.data.looks)) {
      const row = make(this.list, "label"), box = make(row, "input", { type: "checkbox", value: name });
      box.checked = true;
      box.addEventListener("change", draw);
      marker(make(row, "svg", { viewBox: "-8 -8 16 16", "aria-hidden": "true" }), look, 0, 0, 6);
      make(row, "span", {}, name);
    }
    all.addEventListener("click", () => {
      const boxes = [...this.list.querySelectorAll("input")], on = !boxes.every((box) => box.checked);
      for (const box of boxes) box.checked = on;
      this.draw();
    });
  }

  // All that depends on the pair, the reading and the families. The new marks take the place of the old ones at once.
  draw() {
    const { ideal, points } = this.pairs[this.pair.value], r = this.reading.value;
    const on = new Set([...this.list.querySelectorAll("input:checked")].map((box) => box.value));
    const near = this.near.checked ? 0.12 : 1, inView = (source, target) => source >= ideal[0] - near && target >= ideal[1] - near;
    this.shown = points.filter((p) => on.has(this.data.settings[p.setting].family) && p[r] !== null && inView(p[r], p.target_acc));
    const back = document.createElementNS(SVG, "g"), front = document.createElementNS(SVG, "g");
    [this.X, this.Y] = axes(back, [ideal[0], ...this.shown.map((p) => p[r])], [ideal[1], ...this.shown.map((p) => p.target_acc)], READINGS[r]);
    const best = this.shown.filter((p) => p[`front_${r}`]).sort((a, b) => a[r] - b[r]);
    make(back, "polyline", { class: "front", points: best.map((p) => `${this.X(p[r])},${this.Y(p.target_acc)}`).join(" ") });
    make(back, "path", { class: "ideal", d: STAR, transform: `translate(${this.X(ideal[0])} ${this.Y(ideal[1])})` });
    make(back, "text", { x: this.X(ideal[0]) - 11, y: this.Y(ideal[1]) - 6, "text-anchor": "end" }, "ideal");
    this.nodes = new Map();
    for (const p of this.shown) {
      const look = this.data.looks[this.data.settings[p.setting].family];
      if (this.seeds.checked) for (const [full, known, target] of p.seeds) {
        const source = { full, known }[r];
        if (source !== null && inView(source, target)) marker(back, look, this.X(source), this.Y(target), 2, { class: "seed" });
      }
      this.nodes.set(p.setting, this.point(front, look, p, r));
    }
    const label = `${this.shown.length} settings: source accuracy against target accuracy, ${this.pair.value}, ${READINGS[r]}`;
    this.svg.setAttribute("aria-label", label);
    this.layers.back.replaceChildren(back);
    this.layers.points.replaceChildren(front);
    this.emphasise();
  }

  point(layer, look, p, r) {
    const label = this.describe(p), place = [this.X(p[r]), this.Y(p.target_acc)];
    const node = marker(layer, look, ...place, 4.5, { class: "point", tabindex: -1, role: "button", "aria-label": label, "data-setting": p.setting });
    const show = () => { this.about.textContent = label; };
    node.addEventListener("pointerenter", show);
    node.addEventListener("pointerleave", () => this.rest());
    node.addEventListener("focus", show);
    node.addEventListener("click", () => this.pin(p.setting));
    node.addEventListener("keydown", (event) => this.keyed(event, p.setting));
    return node;
  }

  // All that depends on the slider and on what is pinned. No point is drawn anew.
  emphasise() {
    const r = this.reading.value, index = Number(this.slider.value), drop = this.data.drops[index];
    const { worst, asked } = this.data.choices[r], { setting, same, text } = asked[index];
    this.amount.textContent = `${+(100 * drop).toFixed(2)} points of the source`;
    this.slider.setAttribute("aria-valuetext", this.amount.textContent);
    this.told.textContent = text;
    const rings = document.createElementNS(SVG, "g");
    for (const p of this.shown) {
      const node = this.nodes.get(p.setting), kind = p.setting === setting ? "chosen" : same.includes(p.setting) ? "same" : "";
      const out = worst[p.setting] === null || worst[p.setting] > drop;
      node.setAttribute("class", `point ${out ? "out" : ""} ${kind}`);
      node.setAttribute("aria-pressed", p.setting === this.pinned);
      const at = { cx: this.X(p[r]), cy: this.Y(p.target_acc) };
      if (kind) make(rings, "circle", { class: `ring ${kind}`, r: kind === "same" ? 7 : 10, ...at });
      if (p.setting === this.pinned) make(rings, "circle", { class: "ring pinned", r: 13, ...at });
      if (kind === "chosen") this.name(rings, p, at);
    }
    this.layers.rings.replaceChildren(rings);
    const first = this.nodes.get(this.pinned) || this.nodes.get(setting) || this.nodes.values().next().value;
    for (const node of this.nodes.values()) node.setAttribute("tabindex", node === first ? 0 : -1);
    this.rest();
  }

  name(layer, p, { cx, cy }) {
    const left = cx > 400;
    make(layer, "text", { class: "name", x: cx + (left ? -15 : 15), y: cy + 16, "text-anchor": left ? "end" : "start" }, this.data.settings[p.setting].approach);
  }

  pin(setting) {
    this.pinned = this.pinned === setting ? null : setting;
    this.emphasise();
  }

  keyed(event, setting) {
    const [axis, step] = { ArrowRight: ["x", 1], ArrowLeft: ["x", -1], ArrowUp: ["y", -1], ArrowDown: ["y", 1] }[event.key] || [];
    if (event.key === "Enter" || event.key === " ") this.pin(setting);
    else if (event.key === "Escape") this.pin(this.pinned);
    else if (axis) {
      const along = (node) => node.getBoundingClientRect()[axis];
      const nodes = [...this.nodes.values()].sort((a, b) => along(a) - along(b));
      nodes[nodes.indexOf(event.currentTarget) + step]?.focus();
    } else return;
    event.preventDefault();
  }

  rest() {
    const p = this.shown.find((q) => q.setting === this.pinned);
    this.about.textContent = p ? `Pinned: ${this.describe(p)}` : HINT;
  }

  describe(p) {
    const { approach, text } = this.data.settings[p.setting], r = this.reading.value;
    const value = (name) => `${percent(p[name])}${p[`${name}_ci`] === null ? "" : ` ± ${percent(p[`${name}_ci`])}`} %`;
    return `${approach}${text ? ` (${text})` : ""} · ${this.pair.value} · ${p.n} seed${p.n > 1 ? "s" : ""} · source ${value(r)}, target ${value("target_acc")} (± 95 % interval)`;
  }
}

// Axes with round numbers around the values; gives the functions from an accuracy to a place.
function axes(layer, xs, ys, reading) {
  const span = (v) => [Math.max(0, Math.floor(20 * Math.min(...v)) / 20), Math.min(1.01, Math.ceil(20 * Math.max(...v)) / 20)];
  const [[x0, x1], [y0, y1]] = [span(xs), span(ys)];
  const X = (v) => 52 + (628 * (v - x0)) / (x1 - x0), Y = (v) => 425 - (405 * (v - y0)) / (y1 - y0);
  const ticks = (a, b) => {
    const step = b - a > 0.5 ? 0.1 : b - a > 0.2 ? 0.05 : 0.01;
    return Array.from({ length: 60 }, (_, i) => step * (Math.ceil(a / step - 1e-9) + i)).filter((v) => v <= b + 1e-9);
  };
  for (const v of ticks(x0, x1)) {
    make(layer, "line", { class: "grid", x1: X(v), x2: X(v), y1: Y(y0), y2: Y(y1) });
    make(layer, "text", { x: X(v), y: 442, "text-anchor": "middle" }, (100 * v).toFixed(0));
  }
  for (const v of ticks(y0, y1)) {
    make(layer, "line", { class: "grid", x1: X(x0), x2: X(x1), y1: Y(v), y2: Y(v) });
    make(layer, "text", { x: 46, y: Y(v) + 4, "text-anchor": "end" }, (100 * v).toFixed(0));
  }
  make(layer, "text", { x: 366, y: 463, "text-anchor": "middle" }, `source accuracy after the transfer, ${reading} (%, right is better)`);
  make(layer, "text", { x: 14, y: 222, "text-anchor": "middle", transform: "rotate(-90 14 222)" }, "target accuracy (%, up is better)");
  return [X, Y];
}

// ---- What a mask keeps ---------------------------------------------------------------------------------------------

class Masks {
  constructor(root, model) {
    this.model = model;
    this.about = model.get("masks");
    const { methods, layers, densities, live } = this.about, ask = () => this.ask(), draw = () => this.draw();
    make(root, "h2", {}, "What a mask keeps");
    const bar = make(root, "div", { class: "bar" });
    this.method = choice(bar, "Mask", methods.map((name) => [name, name]), ask);
    this.layer = choice(bar, "Layer", layers.map((name, i) => [i, name]), draw);
    this.slider = control(bar, "Density", "input", { type: "range", class: "density", min: 0, max: densities.length - 1, step: 1 });
    this.slider.value = Math.max(0, densities.indexOf(0.1));
    this.slider.addEventListener("input", ask);
    this.amount = make(bar, "output");
    this.read = make(root, "p", { class: "told accuracy", role: "status" });
    const two = make(root, "div", { class: "two" });
    const picture = make(two, "div");
    this.canvas = make(picture, "canvas", { role: "img" });
    make(picture, "p", { class: "key" }, "Coloured: kept, red above zero and blue below. Grey: dropped. Of large layers a part is drawn.");
    this.table = make(two, "table", { class: "layers", "aria-label": "Fraction kept in each layer" });
    this.examples = this.about.examples?.images.length ? new Examples(root, this.about.examples) : null;
    this.waiting = this.again = false;
    if (live) model.on("change:state", () => this.answered());
    this.ask();
  }

  // Live, one question at a time is on its way to the kernel; of those that come meanwhile only the last is asked.
  ask() {
    const density = this.about.densities[Number(this.slider.value)];
    this.amount.textContent = `${+(100 * density).toFixed(1)} % of the weights kept`;
    this.slider.setAttribute("aria-valuetext", this.amount.textContent);
    if (!this.about.live) return this.draw();
    this.again = this.waiting;
    if (this.waiting) return undefined;
    this.waiting = true;
    this.model.set("asked", { method: this.method.value, density, number: Math.random() });
    return this.model.save_changes();
  }

  answered() {
    this.waiting = false;
    this.draw();
    if (this.again) this.ask();
  }

  state() {
    if (this.about.live) return this.model.get("state");
    const density = this.about.densities[Number(this.slider.value)];
    return this.about.states.find((s) => s.method === this.method.value && s.density === density);
  }

  draw() {
    const s = this.state(), { layers, tiles, network, images } = this.about, at = Number(this.layer.value);
    if (!s?.layers) return;
    const took = s.ms === undefined ? "" : ` Computed in ${s.ms} ms.`;
    this.read.textContent = `Through this mask, before any training on the target: source ${percent(s.source)} % of ${images[0]} test images, target ${percent(s.target)} % of ${images[1]}. The whole network: ${percent(network[0])} % and ${percent(network[1])} %.${took}`;
    const rows = document.createElement("tbody");
    s.layers.forEach((kept, i) => {
      const row = make(rows, "tr");
      make(row, "td", {}, layers[i]);
      make(row, "td", {}, `${percent(kept)} %`);
      make(make(row, "td"), "span", { class: "fill", style: `width: ${(90 * kept).toFixed(0)}px` });
    });
    this.table.replaceChildren(rows);
    this.examples?.draw(s.said);
    paint(this.canvas, tiles[at], s.kept[at]);
    this.canvas.setAttribute("aria-label", `${layers[at]}: ${percent(s.layers[at])} % of its weights are kept (red above zero, blue below); the others are grey`);
  }
}

// Source images that fine-tuning forgets, with what it says of them, and what the source network says through the mask.
class Examples {
  constructor(root, { classes, images, shape: [h, w], truth, tuned, forgotten }) {
    [this.classes, this.truth] = [classes, truth];
    make(root, "h3", {}, "Images that flip");
    make(root, "p", { class: "key" }, `The source network knows these. Fine-tuned on the target without a mask, it gets ${forgotten} such test images wrong. Move the density: what is said through the mask?`);
    const row = make(root, "div", { class: "examples" });
    this.said = images.map((hex, i) => {
      const box = make(row, "div"), canvas = make(box, "canvas", { width: w, height: h, role: "img", "aria-label": `an image of class ${classes[truth[i]]}` });
      const pixels = new Uint8ClampedArray(hex.match(/../g).flatMap((two) => [...Array(3).fill(parseInt(two, 16)), 255]));
      canvas.getContext("2d").putImageData(new ImageData(pixels, w, h), 0, 0);
      make(box, "div", {}, "fine-tuned");
      make(box, "div", { class: "wrong" }, `${classes[tuned[i]]} ✗`);
      make(box, "div", {}, "mask");
      return make(box, "div", { class: "said" });
    });
    this.sum = make(root, "p", { class: "told flips", role: "status" });
  }

  draw(said) {
    const right = said.map((guess, i) => guess === this.truth[i]);
    this.said.forEach((node, i) => {
      node.className = right[i] ? "said right" : "said wrong";
      node.textContent = `${this.classes[said[i]]} ${right[i] ? "✓" : "✗"}`;
    });
    this.sum.textContent = `Through this mask ${right.filter(Boolean).length} of these ${said.length} are right.`;
  }
}

// Tiles of weights, a filter each: kept ones from blue (below zero) over white to red, dropped ones grey. `kept` holds a bit a weight, in hex.
function paint(canvas, { values, shape: [n, h, w] }, kept) {
  const across = n > 8 ? Math.min(n, 32) : n, gap = n > 1 ? 1 : 0, down = Math.ceil(n / across);
  const scale = Math.max(1, Math.floor(660 / (across * (w + gap)))), edge = scale > 3 ? 1 : 0;
  canvas.width = (across * (w + gap) - gap) * scale;
  canvas.height = (down * (h + gap) - gap) * scale;
  const pen = canvas.getContext("2d");
  values.forEach((value, k) => {
    const on = (parseInt(kept[k >> 2], 16) >> (3 - (k & 3))) & 1, pale = Math.round(240 - 24 * Math.abs(value));
    pen.fillStyle = !on ? "#b5b5b5" : value < 0 ? `rgb(${pale},${pale},240)` : `rgb(240,${pale},${pale})`;
    const t = Math.floor(k / (h * w)), i = Math.floor((k % (h * w)) / w), j = k % w;
    const x = (t % across) * (w + gap) + j, y = Math.floor(t / across) * (h + gap) + i;
    pen.fillRect(x * scale, y * scale, scale - edge, scale - edge);
  });
}

function render({ model, el }) {
  const root = make(el, "div", { class: "mu", "data-lm-suppress-shortcuts": "true" }); // the last is read by JupyterLab
  new Tradeoff(root, model.get("tradeoff"));
  if (model.get("masks").methods) new Masks(root, model);
}

export default { render };
