// The explorer: one module for JupyterLab (anywidget) and for a page without a server. All values come from Python;
// nothing is computed here but positions on the screen.
const SVG = "http://www.w3.org/2000/svg";
const READINGS = { full: "task unknown", known: "task known" };
const percent = (x) => (100 * x).toFixed(1);

function make(parent, tag, attributes = {}, text = "") {
  const svg = parent.namespaceURI === SVG || tag === "svg";
  const node = svg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text) node.textContent = text;
  parent.append(node);
  return node;
}

function control(parent, label, tag, attributes = {}) {
  const holder = make(parent, "label", {}, label);
  return make(holder, tag, { "aria-label": label, ...attributes });
}

function choice(parent, label, options, change) {
  const select = control(parent, label, "select");
  for (const [value, text] of options) make(select, "option", { value }, text);
  select.addEventListener("change", change);
  return select;
}

function tradeoff(root, profiles) {
  make(root, "h2", {}, "What is kept, and what is gained");
  const bar = make(root, "div", { class: "bar" });
  const profile = choice(bar, "Profile", Object.keys(profiles).map((p) => [p, p]), restart);
  const pair = choice(bar, "Pair", [], draw);
  const reading = choice(bar, "Reading", Object.entries(READINGS), need);
  const seeds = control(bar, "Seeds", "input", { type: "checkbox" });
  seeds.addEventListener("change", draw);
  const lose = make(root, "div", { class: "bar" });
  const slider = control(lose, "I can lose at most", "input", { type: "range", min: 0, step: 1, class: "drop" });
  const amount = make(lose, "output");
  slider.addEventListener("input", need);
  const told = make(root, "div", { class: "told", role: "status", "aria-live": "polite" });
  const two = make(root, "div", { class: "two" });
  const figure = make(two, "div");
  const svg = make(figure, "svg", { viewBox: "0 0 700 470", role: "group" });
  const about = make(figure, "div", { class: "about", "aria-live": "polite" });
  const side = make(two, "div");
  const all = make(make(side, "div", { class: "bar" }), "button", { type: "button" }, "All or none");
  const list = make(side, "div", { class: "families", role: "group", "aria-label": "Families shown" });
  let pinned = null;
  all.addEventListener("click", () => {
    const boxes = [...list.querySelectorAll("input")], on = !boxes.every((b) => b.checked);
    for (const box of boxes) box.checked = on;
    draw();
  });

  function restart() {
    const data = profiles[profile.value];
    pinned = null;
    pair.replaceChildren();
    for (const name of Object.keys(data.pairs)) make(pair, "option", { value: name }, name);
    list.replaceChildren();
    for (const [name, look] of Object.entries(data.looks)) {
      const row = make(list, "label");
      const box = make(row, "input", { type: "checkbox", value: name });
      box.checked = true;
      box.addEventListener("change", draw);
      mark(make(row, "svg", { viewBox: "-8 -8 16 16", "aria-hidden": "true" }), look, 0, 0, 6);
      make(row, "span", {}, name);
    }
    slider.max = data.drops.length - 1;
    slider.value = Math.max(0, data.drops.indexOf(0.05));
    need();
  }

  function mark(parent, look, x, y, size, more = {}) {
    const fill = look.hollow ? "var(--paper)" : look.colour;
    const transform = `translate(${x.toFixed(1)} ${y.toFixed(1)}) scale(${size})`;
    return make(parent, "path", { d: look.path, transform, fill, stroke: look.colour, "vector-effect": "non-scaling-stroke", ...more });
  }

  function need() {
    const data = profiles[profile.value], index = Number(slider.value);
    const text = `${+(100 * data.drops[index]).toFixed(2)} points of the source`;
    amount.textContent = text;
    slider.setAttribute("aria-valuetext", text);
    told.textContent = data.choices[reading.value][index].text;
    draw();
  }

  function draw() {
    const data = profiles[profile.value], now = data.pairs[pair.value], r = reading.value;
    const shown = new Set([...list.querySelectorAll("input:checked")].map((b) => b.value));
    const chosen = data.choices[r][Number(slider.value)].setting;
    const points = now.points.filter((p) => shown.has(data.settings[p.setting].family) && p[r] !== null);
    const xs = [now.ideal[0], ...points.map((p) => p[r])], ys = [now.ideal[1], ...points.map((p) => p.target)];
    const span = (v) => [Math.max(0, Math.floor(20 * Math.min(...v)) / 20), Math.min(1, Math.ceil(20 * Math.max(...v)) / 20 + 0.001)];
    const [x0, x1] = span(xs), [y0, y1] = span(ys);
    const X = (v) => 55 + (625 * (v - x0)) / (x1 - x0), Y = (v) => 425 - (405 * (v - y0)) / (y1 - y0);
    const focused = svg.contains(document.activeElement) ? document.activeElement.dataset.setting : null;
    const layer = document.createElementNS(SVG, "g"); // drawn aside and put in place at once: no flicker
    axes(layer, X, Y, [x0, x1], [y0, y1], r);
    ideal(layer, X(now.ideal[0]), Y(now.ideal[1]));
    const front = points.filter((p) => p.front.includes(r)).sort((a, b) => a[r] - b[r]);
    make(layer, "polyline", { class: "front", points: front.map((p) => `${X(p[r])},${Y(p.target)}`).join(" ") });
    for (const p of points) {
      const s = data.settings[p.setting], look = data.looks[s.family];
      if (seeds.checked) for (const one of p.seeds) if (one[r] !== null) mark(layer, look, X(one[r]), Y(one.target), 2, { class: "seed" });
      const kind = (p.setting === chosen ? " chosen" : "") + (p.setting === pinned ? " pinned" : "");
      const label = describe(s, p, r);
      const node = mark(layer, look, X(p[r]), Y(p.target), kind ? 7 : 4.5, { class: "point" + kind, tabindex: 0, role: "button", "aria-label": label, "data-setting": p.setting, "aria-pressed": p.setting === pinned });
      const show = () => { about.textContent = label; };
      node.addEventListener("pointerenter", show);
      node.addEventListener("focus", show);
      node.addEventListener("pointerleave", rest);
      node.addEventListener("click", () => pin(p.setting));
      node.addEventListener("keydown", (e) => keyed(e, p.setting));
    }
    for (const node of layer.querySelectorAll(".pinned, .chosen")) layer.append(node);
    svg.setAttribute("aria-label", `${points.length} settings: source accuracy against target accuracy, ${now.name}`);
    svg.replaceChildren(layer);
    if (focused) svg.querySelector(`[data-setting="${focused}"]`)?.focus();
    rest();
  }

  function keyed(event, setting) {
    if (event.key === "Enter" || event.key === " ") pin(setting);
    else if (event.key === "Escape") pin(null);
    else if (event.key === "ArrowRight" || event.key === "ArrowLeft") {
      const nodes = [...svg.querySelectorAll(".point")].sort((a, b) => a.getBoundingClientRect().x - b.getBoundingClientRect().x);
      nodes[nodes.indexOf(event.currentTarget) + (event.key === "ArrowRight" ? 1 : -1)]?.focus();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  function pin(setting) {
    pinned = pinned === setting ? null : setting;
    draw();
  }

  function rest() {
    const data = profiles[profile.value], p = data.pairs[pair.value].points.find((q) => q.setting === pinned);
    about.textContent = p ? `Pinned: ${describe(data.settings[pinned], p, reading.value)}` : "Point at a setting, or step through them with Tab and the arrow keys. Click or Enter pins one, Escape lets it go.";
  }

  function describe(s, p, r) {
    const half = (x) => (x === null ? "" : ` ± ${percent(x)}`);
    const source = p[r] === null ? "no answer" : `${percent(p[r])}${half(p[`${r}_ci`])} %`;
    return `${s.approach}${s.text ? ` (${s.text})` : ""} · ${pair.value} · ${p.n} seeds · source ${source}, target ${percent(p.target)}${half(p.target_ci)} % (95 % interval)`;
  }
  restart();
}

function axes(layer, X, Y, [x0, x1], [y0, y1], reading) {
  const step = (a, b) => (b - a > 0.5 ? 0.1 : b - a > 0.2 ? 0.05 : 0.02);
  const ticks = (a, b) => Array.from({ length: 60 }, (_, i) => Math.ceil(a / step(a, b) - 1e-9) * step(a, b) + i * step(a, b)).filter((v) => v <= b + 1e-9);
  for (const v of ticks(x0, x1)) {
    make(layer, "line", { class: "grid", x1: X(v), x2: X(v), y1: Y(y0), y2: Y(y1) });
    make(layer, "text", { x: X(v), y: 442, "text-anchor": "middle" }, (100 * v).toFixed(0));
  }
  for (const v of ticks(y0, y1)) {
    make(layer, "line", { class: "grid", x1: X(x0), x2: X(x1), y1: Y(v), y2: Y(v) });
    make(layer, "text", { x: 48, y: Y(v) + 4, "text-anchor": "end" }, (100 * v).toFixed(0));
  }
  make(layer, "text", { x: 367, y: 463, "text-anchor": "middle" }, `source accuracy after the transfer, % (${READINGS[reading]})`);
  make(layer, "text", { x: 14, y: 222, "text-anchor": "middle", transform: "rotate(-90 14 222)" }, "target accuracy, %");
}

function ideal(layer, x, y) {
  make(layer, "circle", { class: "ring", cx: x, cy: y, r: 7 });
  make(layer, "text", { x: x - 12, y: y + 4, "text-anchor": "end" }, "ideal");
}

function masks(root, model) {
  const about = model.get("masks");
  if (!about.methods) return;
  make(root, "h2", {}, "What a mask keeps");
  const bar = make(root, "div", { class: "bar" });
  const method = choice(bar, "Method", about.methods.map((m) => [m, m]), ask);
  const layer = choice(bar, "Layer", about.layers.map((l, i) => [i, l]), draw);
  const live = about.live, densities = about.densities;
  const slider = control(bar, "Density", "input", { type: "range", class: "density", min: 0, max: densities.length - 1, step: 1 });
  slider.value = densities.indexOf(0.1);
  const amount = make(bar, "output");
  const read = make(root, "div", { class: "told accuracy", role: "status", "aria-live": "polite" });
  const two = make(root, "div", { class: "two" });
  const canvas = make(two, "canvas", { role: "img" });
  const table = make(two, "table", { class: "layers", "aria-label": "Fraction kept in each layer" });
  slider.addEventListener("input", ask);
  let waiting = false, again = false;

  function ask() {
    const density = densities[Number(slider.value)];
    amount.textContent = `${+(100 * density).toFixed(1)} % of the weights kept`;
    slider.setAttribute("aria-valuetext", amount.textContent);
    if (!live) return draw();
    if (waiting) { again = true; return undefined; } // one question at a time: the last position counts
    waiting = true;
    model.set("asked", { method: method.value, density, number: Math.random() });
    return model.save_changes();
  }

  function state() {
    if (live) return model.get("state");
    const density = densities[Number(slider.value)];
    return about.states.find((s) => s.method === method.value && s.density === density);
  }

  function draw() {
    const s = state(), at = Number(layer.value);
    if (!s || !s.layers) return;
    read.textContent = `Through this mask, with nothing trained on the target: source ${percent(s.source)} %, target ${percent(s.target)} % of ${about.images} images each.` + (s.ms ? ` Computed in ${s.ms} ms.` : "");
    table.replaceChildren();
    s.layers.forEach((kept, i) => {
      const row = make(table, "tr");
      make(row, "td", {}, about.layers[i]);
      make(row, "td", {}, `${percent(kept)} %`);
      make(make(row, "td"), "span", { class: "fill", style: `width:${Math.max(1, 90 * kept).toFixed(0)}px` });
    });
    paint(canvas, about.weights[at], s.bits[at]);
    canvas.setAttribute("aria-label", `${about.layers[at]}: ${percent(s.layers[at])} % of its weights are kept, in colour; the others are grey`);
  }

  model.on("change:state", () => {
    waiting = false;
    draw();
    if (again) { again = false; ask(); }
  });
  ask();
}

// Tiles of weights, side by side: kept ones from blue (negative) over white to red, dropped ones grey.
function paint(canvas, tiles, bits) {
  const h = tiles[0].length, w = tiles[0][0].length, across = Math.min(tiles.length, 8), gap = tiles.length > 1 ? 1 : 0;
  const rows = Math.ceil(tiles.length / across), scale = Math.max(4, Math.floor(560 / (across * (w + gap))));
  canvas.width = (across * (w + gap) - gap) * scale;
  canvas.height = (rows * (h + gap) - gap) * scale;
  const pen = canvas.getContext("2d");
  let k = 0;
  tiles.forEach((tile, t) => tile.forEach((row, i) => row.forEach((value, j) => {
    const v = value / 9, fade = Math.round(235 * (1 - Math.abs(v)));
    pen.fillStyle = bits[k++] === "0" ? "#9a9a9a" : v < 0 ? `rgb(${fade},${fade},235)` : `rgb(235,${fade},${fade})`;
    const x = (t % across) * (w + gap) + j, y = Math.floor(t / across) * (h + gap) + i;
    pen.fillRect(x * scale, y * scale, scale - 1, scale - 1);
  })));
}

function render({ model, el }) {
  const root = make(el, "div", { class: "mu" });
  tradeoff(root, model.get("profiles"));
  masks(root, model);
}

export default { render };
