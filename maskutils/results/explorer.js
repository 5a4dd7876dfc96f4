// The explorer: one module for JupyterLab (anywidget) and for a page without a server. All values come from Python
// (`results.explorer`, `study.explorer`); nothing is computed here but where things stand on the screen.
const SVG = "http://www.w3.org/2000/svg";
const READINGS = { full: "task unknown", known: "task known" };
const KEY = "A line joins the settings of a family that no other of it beats. Dashed: the same of all families together, shown or not. Settings are chosen on validation images and drawn at their test values. Thick ring: the choice, which is always shown. Thin rings: what cannot be told apart from it. Pale: loses more than the slider allows, on some pair.";
const HINT = "Point at a setting, or go to the plot with Tab and from point to point with the arrow keys. Click or Enter pins a point, Escape lets it go.";
const STAR = "M0.0 -9.0L2.1 -2.9L8.6 -2.8L3.4 1.1L5.3 7.3L0.0 3.6L-5.3 7.3L-3.4 1.1L-8.6 -2.8L-2.1 -2.9Z";
const NEAR = 0.12; // below the ideal, what "Near the ideal only" shows
const percent = (x) => (100 * x).toFixed(1);
const kilobits = (x) => (x >= 100 ? Math.round(x) : +x.toPrecision(2)).toLocaleString("en");

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

// Black marks are white on a dark page.
function ink({ colour }) {
  return colour === "#000000" ? "var(--ink)" : colour;
}

function marker(parent, look, x, y, size, more = {}) {
  const transform = `translate(${x.toFixed(1)} ${y.toFixed(1)}) scale(${size})`;
  const colour = ink(look);
  const paint = { fill: look.hollow ? "var(--paper)" : colour, stroke: `color-mix(in srgb, ${colour} 75%, var(--ink))`, "vector-effect": "non-scaling-stroke" };
  return make(parent, "path", { d: look.path, transform, ...paint, ...more });
}

// Columns, as Python writes them, become one object a point. Accuracies become fractions.
function pointsOf(columns) {
  const fraction = (v) => (Array.isArray(v) ? v.map(fraction) : v === null ? v : v / 1e4);
  const whole = ["setting", "n", "kbit"], entries = Object.entries(columns);
  const read = entries.map(([name, values]) => [name, whole.includes(name) ? values : fraction(values)]);
  return columns.setting.map((_, i) => Object.fromEntries(read.map(([name, values]) => [name, values[i]])));
}

// ---- The trade-off and the choice ----------------------------------------------------------------------------------

// What is drawn in each reading: the place of a point, of one of its seeds and of the ideal, and how an axis is made.
const VIEWS = {
  full: {
    of: (p) => [p.full, p.target_acc],
    seed: (p, [full, , target]) => [full, target],
    ideal: ([source, target]) => [source, target],
    near: ([x, y], [x0, y0]) => x >= x0 - NEAR && y >= y0 - NEAR,
    along: (xs) => shares(xs),
    names: ["source accuracy (%, right is better)", "target accuracy (%, up is better)"],
  },
  known: {
    of: (p) => [p.kbit, p.both],
    seed: (p, [, known, target]) => [p.kbit, known === null ? null : (known + target) / 2],
    ideal: ([source, target]) => [0, (source + target) / 2],
    near: ([, y], [, y0]) => y >= y0 - NEAR,
    along: (xs) => bits(xs),
    names: ["stored for the second task (kbit, left is better)", "mean of both tasks (%, up is better)"],
  },
};

class Tradeoff {
  constructor(root, data, before) {
    this.data = data;
    this.pairs = Object.fromEntries(Object.entries(data.pairs).map(([name, pair]) => [name, { ...pair, ideal: pair.ideal.includes(null) ? null : pair.ideal.map((v) => v / 1e4), points: pointsOf(pair.points) }]));
    this.pinned = null;
    const bar = make(root, "div", { class: "bar" }), draw = () => this.draw();
    this.pair = choice(bar, "Pair", Object.keys(data.pairs).map((name) => [name, name]), draw);
    this.reading = choice(bar, "Reading of the source", Object.entries(READINGS), draw);
    [this.best, this.near, this.seeds] = ["Best of each family", "Near the ideal only", "Show each seed"].map((label) => control(bar, label, "input", { type: "checkbox" }));
    this.best.checked = true;
    const lose = make(root, "div", { class: "bar" });
    this.slider = control(lose, "I can lose at most", "input", { type: "range", min: 0, max: data.drops.length - 1, step: 1, class: "drop" });
    this.slider.value = Math.max(0, data.drops.indexOf(0.05));
    if (before) for (const part of ["reading", "slider"]) this[part].value = before[part].value;
    for (const box of [this.best, this.near, this.seeds, this.slider]) box.addEventListener("input", draw);
    this.amount = make(lose, "output");
    this.told = make(root, "p", { class: "told", role: "status" });
    const two = make(root, "div", { class: "two" });
    this.figure = make(two, "div", { class: "figure" });
    this.svg = make(this.figure, "svg", { role: "group" });
    this.layers = Object.fromEntries(["back", "points", "rings"].map((name) => [name, make(this.svg, "g", { class: name })]));
    this.tip = make(this.figure, "div", { class: "tip", "aria-hidden": "true" });
    this.about = make(this.figure, "p", { class: "about", role: "status" });
    make(this.figure, "p", { class: "key" }, KEY);
    this.families(make(two, "div"), draw);
    this.pointed();
    this.draw();
    this.sized = new ResizeObserver(() => Math.abs(this.width - this.room()) > 1 && this.draw());
    this.sized.observe(this.figure);
  }

  families(side, draw) {
    this.all = make(side, "button", { type: "button" });
    this.count = make(side, "p", { class: "key" });
    this.list = make(side, "div", { class: "families", role: "group", "aria-label": "Families shown" });
    const { looks, first } = this.data, rest = Object.keys(looks).filter((name) => !first.includes(name));
    for (const name of [...first, ...rest]) {
      const row = make(this.list, "label", { class: name === rest[0] ? "rest" : "" }), box = make(row, "input", { type: "checkbox", value: name });
      box.checked = first.includes(name);
      box.addEventListener("change", draw);
      marker(make(row, "svg", { viewBox: "-8 -8 16 16", "aria-hidden": "true" }), looks[name], 0, 0, 6);
      make(row, "span", {}, name);
    }
    this.all.addEventListener("click", () => {
      const boxes = [...this.list.querySelectorAll("input")], on = !boxes.every((box) => box.checked);
      for (const box of boxes) box.checked = on;
      this.draw();
    });
  }

  // The pointer need not hit a point: the nearest one is told, and pinned by a click. A click beside all of them lets the pin go.
  pointed() {
    const nearest = ({ clientX, clientY, pointerType }) => {
      const box = this.svg.getBoundingClientRect(), far = (p) => Math.hypot(this.at(p)[0] - clientX + box.x, this.at(p)[1] - clientY + box.y);
      const [first] = this.shown.map((p) => [far(p), p]).sort((a, b) => a[0] - b[0]);
      return first && first[0] < (pointerType === "mouse" ? 14 : 24) ? first[1] : undefined;
    };
    this.svg.addEventListener("pointermove", (event) => this.show(nearest(event)));
    this.svg.addEventListener("pointerleave", () => this.show());
    this.svg.addEventListener("click", (event) => this.pin((nearest(event) ?? this.shown.find((p) => this.nodes.get(p.setting) === event.target))?.setting ?? null));
  }

  room() {
    return Math.max(300, Math.min(this.figure.clientWidth || 700, 900));
  }

  at(p) {
    const [x, y] = VIEWS[this.reading.value].of(p);
    return [this.X(x), this.Y(y)];
  }

  asked() {
    return this.data.choices[this.reading.value].asked[Number(this.slider.value)];
  }

  // All that is seen. The new marks take the place of the old ones at once.
  draw() {
    const { ideal, points, front, best } = this.pairs[this.pair.value], r = this.reading.value, view = VIEWS[r], star = view.ideal(ideal ?? [1, 1]);
    const on = new Set([...this.list.querySelectorAll("input:checked")].map((box) => box.value)), leads = new Set(best[r]), kept = [this.asked().setting, this.pinned];
    const family = (p) => this.data.settings[p.setting].family, look = (p) => this.data.looks[family(p)];
    const there = points.filter((p) => view.of(p).every((v) => v !== null)), seen = (place) => !this.near.checked || view.near(place, star);
    this.shown = there.filter((p) => kept.includes(p.setting) || (on.has(family(p)) && (!this.best.checked || leads.has(p.setting)) && seen(view.of(p))));
    const back = document.createElementNS(SVG, "g"), over = document.createElementNS(SVG, "g"), places = [star, ...this.shown.map(view.of)];
    this.width = this.room();
    const height = Math.round(this.width * (this.width < 520 ? 0.95 : 0.66));
    for (const [name, value] of Object.entries({ viewBox: `0 0 ${this.width} ${height}`, width: this.width, height })) this.svg.setAttribute(name, value);
    [this.X, this.Y] = axes(back, this.width, height, view.along(places.map(([x]) => x)), shares(places.map(([, y]) => y)), view.names);
    const line = (of, more) => {
      const ends = of.map(view.of).filter(seen).sort((a, b) => a[0] - b[0]).map(([x, y]) => `${this.X(x).toFixed(1)},${this.Y(y).toFixed(1)}`);
      make(back, "polyline", { points: ends.join(" "), "clip-path": "url(#mu-plot)", ...more });
    };
    for (const name of on) line(this.shown.filter((p) => family(p) === name && leads.has(p.setting)), { class: "line", stroke: ink(this.data.looks[name]) });
    line(there.filter((p) => front[r].includes(p.setting)), { class: "front" });
    if (ideal) make(back, "path", { class: "ideal", d: STAR, transform: `translate(${this.X(star[0])} ${this.Y(star[1])})` });
    if (ideal) make(back, "text", { x: this.X(star[0]) + (r === "full" ? -11 : 11), y: this.Y(star[1]) - 7, "text-anchor": r === "full" ? "end" : "start" }, "ideal");
    this.nodes = new Map();
    for (const p of this.shown) {
      if (this.seeds.checked) for (const [x, y] of p.seeds.map((seed) => view.seed(p, seed))) {
        if (x !== null && y !== null && seen([x, y])) marker(back, look(p), this.X(x), this.Y(y), 2, { class: "seed" });
      }
      this.nodes.set(p.setting, this.point(over, look(p), p));
    }
    this.svg.setAttribute("aria-label", `${this.shown.length} settings: ${view.names[1]}, against ${view.names[0]}; ${this.pair.value}, ${READINGS[r]}`);
    this.count.textContent = `${this.shown.length} of ${there.length} settings shown`;
    this.all.textContent = on.size < Object.keys(this.data.looks).length ? "Show all families" : "Show none";
    this.layers.back.replaceChildren(back);
    this.layers.points.replaceChildren(over);
    this.emphasise();
  }

  point(layer, look, p) {
    const more = { class: "point", tabindex: -1, role: "button", "aria-label": this.describe(p).join(" · "), "data-setting": p.setting };
    const node = marker(layer, look, ...this.at(p), 4.5, more);
    node.addEventListener("focus", () => this.show(p));
    node.addEventListener("blur", () => this.show());
    node.addEventListener("keydown", (event) => this.keyed(event, p.setting));
    return node;
  }

  // All that depends on the slider and on what is pinned.
  emphasise() {
    const drop = this.data.drops[Number(this.slider.value)], { worst } = this.data.choices[this.reading.value], { setting, same, text } = this.asked();
    this.amount.textContent = `${+(100 * drop).toFixed(2)} points of the source`;
    this.slider.setAttribute("aria-valuetext", this.amount.textContent);
    this.told.textContent = text;
    const rings = document.createElementNS(SVG, "g");
    for (const p of this.shown) {
      const node = this.nodes.get(p.setting), kind = p.setting === setting ? "chosen" : same.includes(p.setting) ? "same" : "";
      const out = worst[p.setting] === null || worst[p.setting] > drop, [cx, cy] = this.at(p);
      node.setAttribute("class", `point ${out ? "out" : ""} ${kind}`);
      node.setAttribute("aria-pressed", p.setting === this.pinned);
      if (kind) make(rings, "circle", { class: `ring ${kind}`, r: kind === "same" ? 7 : 10, cx, cy });
      if (p.setting === this.pinned) make(rings, "circle", { class: "ring pinned", r: 13, cx, cy });
      if (kind === "chosen") this.name(rings, p, cx, cy);
    }
    this.layers.rings.replaceChildren(rings);
    const first = this.nodes.get(this.pinned) || this.nodes.get(setting) || this.nodes.values().next().value;
    for (const node of this.nodes.values()) node.setAttribute("tabindex", node === first ? 0 : -1);
    this.show();
  }

  name(layer, p, cx, cy) {
    const left = cx > this.width / 2;
    make(layer, "text", { class: "name", x: cx + (left ? -15 : 15), y: cy + 16, "text-anchor": left ? "end" : "start" }, this.data.settings[p.setting].approach);
  }

  pin(setting) {
    this.pinned = this.pinned === setting ? null : setting;
    this.emphasise();
  }

  keyed(event, setting) {
    const [axis, step] = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowUp: [1, -1], ArrowDown: [1, 1] }[event.key] || [];
    if (event.key === "Enter" || event.key === " ") this.pin(setting);
    else if (event.key === "Escape") this.pin(null);
    else if (axis !== undefined) {
      const along = [...this.shown].sort((a, b) => this.at(a)[axis] - this.at(b)[axis] || this.at(a)[1 - axis] - this.at(b)[1 - axis]);
      this.nodes.get(along[along.findIndex((p) => p.setting === setting) + step]?.setting)?.focus();
    } else return;
    event.preventDefault();
  }

  // Tells of a point, beside it and under the plot; of the pinned one, if none is given.
  show(p) {
    const pinned = this.shown.find((q) => q.setting === this.pinned), told = p && this.describe(p);
    this.about.textContent = p ? told.join(" · ") : pinned ? `Pinned: ${this.describe(pinned).join(" · ")}` : HINT;
    this.tip.hidden = !p;
    for (const node of this.layers.points.querySelectorAll(".near")) node.classList.remove("near");
    if (!p) return;
    this.nodes.get(p.setting).classList.add("near");
    const [x, y] = this.at(p), right = x > this.width / 2;
    this.tip.textContent = told.join("\n");
    this.tip.style.cssText = `top: ${Math.max(0, y - 40)}px; ${right ? `right: ${this.figure.clientWidth - x + 16}px` : `left: ${x + 16}px`}`;
  }

  describe(p) {
    const { approach, text } = this.data.settings[p.setting], r = this.reading.value;
    const value = (name) => `${percent(p[name])}${p[`${name}_ci`] === null ? "" : ` ± ${percent(p[`${name}_ci`])}`} %`;
    const known = r === "known" ? [`both tasks ${value("both")}`, `stores ${kilobits(p.kbit)} kbit`] : [];
    const read = [...known, `source ${value(r)}`, `target ${value("target_acc")}`];
    return [`${approach}${text ? ` (${text})` : ""}`, ...read, `${this.pair.value}, ${p.n} seed${p.n > 1 ? "s" : ""}${p.target_acc_ci === null ? "" : " (± 95 % interval)"}`];
  }
}

// An axis of accuracies, with round numbers around the values: its ends, its ticks and what they are called.
function shares(values) {
  const [low, high] = [Math.max(0, Math.floor(20 * Math.min(...values)) / 20), Math.min(1.01, Math.ceil(20 * Math.max(...values)) / 20)];
  const step = high - low > 0.5 ? 0.1 : high - low > 0.2 ? 0.05 : high - low > 0.1 ? 0.02 : 0.01;
  const ticks = Array.from({ length: 60 }, (_, i) => step * (Math.ceil(low / step - 1e-9) + i)).filter((v) => v <= high + 1e-9);
  return { ticks: ticks.map((v) => [v, (100 * v).toFixed(0)]), along: (v) => (v - low) / (high - low) };
}

// An axis of kbit, logarithmic from 10 on and even below, as in the figures.
function bits(values) {
  const log = (v) => (v < 10 ? v / 10 : Math.log10(v)), low = -0.15, high = log(Math.max(10, ...values)) + 0.15;
  const ticks = [0, 10, 100, 1e3, 1e4, 1e5, 1e6, 1e7].filter((v) => log(v) <= high);
  return { ticks: ticks.map((v) => [v, v.toLocaleString("en")]), along: (v) => (log(v) - low) / (high - low) };
}

// Draws both axes; gives the functions from a value to a place.
function axes(layer, width, height, across, up, [below, beside]) {
  const [left, right, top, bottom] = [52, width - 14, 14, height - 45];
  const X = (v) => left + (right - left) * across.along(v), Y = (v) => bottom - (bottom - top) * up.along(v);
  for (const [v, text] of across.ticks) {
    make(layer, "line", { class: "grid", x1: X(v), x2: X(v), y1: top, y2: bottom });
    make(layer, "text", { x: X(v), y: bottom + 17, "text-anchor": "middle" }, text);
  }
  for (const [v, text] of up.ticks) {
    make(layer, "line", { class: "grid", x1: left, x2: right, y1: Y(v), y2: Y(v) });
    make(layer, "text", { x: 46, y: Y(v) + 4, "text-anchor": "end" }, text);
  }
  make(make(layer, "clipPath", { id: "mu-plot" }), "rect", { x: left - 8, y: top - 8, width: right - left + 16, height: bottom - top + 16 });
  make(layer, "text", { x: (left + right) / 2, y: height - 7, "text-anchor": "middle" }, below);
  make(layer, "text", { x: 14, y: (top + bottom) / 2, "text-anchor": "middle", transform: `rotate(-90 14 ${(top + bottom) / 2})` }, beside);
  return [X, Y];
}

// ---- What a mask keeps ---------------------------------------------------------------------------------------------

class Masks {
  constructor(root, model) {
    this.model = model;
    this.about = model.get("masks");
    const { methods, layers, densities, live } = this.about, ask = () => this.ask(), draw = () => this.draw();
    make(root, "h2", {}, "What a mask keeps");
    make(root, "p", { class: "key" }, "One network, the same whatever is chosen above.");
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
    if (!s?.layers) {
      if (s?.number !== undefined) this.read.textContent = "The kernel gave no answer. Move the slider again.";
      return;
    }
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
  const tradeoffs = model.get("tradeoffs"), names = Object.keys(tradeoffs);
  make(root, "h2", {}, "What is kept, and what is gained");
  const bar = make(root, "div", { class: "bar" }), body = make(root, "div");
  let plot;
  const open = (name) => {
    plot?.sized.disconnect();
    body.replaceChildren();
    plot = new Tradeoff(body, tradeoffs[name], plot);
  };
  const images = choice(bar, "Images", names.map((name) => [name, name]), () => open(images.value));
  open(names[0]);
  if (model.get("masks").methods) new Masks(root, model);
  return () => plot.sized.disconnect();
}

export default { render };
