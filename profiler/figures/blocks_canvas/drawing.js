// Draws one block view on a canvas: a rectangle per block, axes, marks, legend and the minimap of the total.
// The payload's layout is described in payload.py. blocks.js, which follows this file, adds what the user does.

const STRIP = 14;
const AXIS = 20;
const GUTTER = 64;
const MIN_WIDTH = 0.7;
const MIN_STEP_PIXELS = 24;
const TYPES = { f4: Float32Array, f8: Float64Array, u2: Uint16Array, u4: Uint32Array };
const HATCHES = {
  "/": [[-1, 8, 8, -1]],
  "\\": [[-1, -1, 8, 8]],
  x: [[-1, 8, 8, -1], [-1, -1, 8, 8]],
  "|": [[3, 0, 3, 7]],
  "-": [[0, 3, 7, 3]],
  "+": [[3, 0, 3, 7], [0, 3, 7, 3]],
  ".": [[3, 3, 4.5, 3]],
};
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

function unpack(data) {
  const bytes = data instanceof Uint8Array ? data : new Uint8Array(data);
  const buffer = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
  const length = new DataView(buffer).getUint32(0, true);
  const set = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  for (const [name, [type, offset, count]] of Object.entries(set.columns)) set[name] = new TYPES[type](buffer, 4 + length + offset, count);
  set.byCategory = set.categories.map(() => []);
  for (let i = 0; i < set.block.length; i++) set.byCategory[set.kinds[set.kind[i]][0]].push(i);
  return set;
}

function formatBytes(bytes) {
  let power = 0;
  while (Math.abs(bytes) >= 999.5 && power < UNITS.length - 1) {
    bytes /= 1024;
    power++;
  }
  return `${power ? Number(bytes.toPrecision(3)) : bytes} ${UNITS[power]}`;
}

function roundStep(rough) {
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= rough * 0.999);
}

class BlocksDrawing {
  constructor(root) {
    this.root = root;
    const find = (name) => root.querySelector(`.${name}`);
    [this.plot, this.minimap, this.tooltip, this.legend, this.status] = ["plot", "minimap", "tooltip", "legend", "status"].map(find);
    this.hidden = new Set();
    this.pinned = null;
  }

  // The view that the server refined, where it covers what is shown; else the whole recording's.
  get shown() {
    const [low, high] = this.set.view;
    const slack = (this.x1 - this.x0) * 1e-6;
    return this.overview && (this.x0 < low - slack || this.x1 > high + slack) ? this.overview : this.set;
  }

  get size() {
    return [this.plot.clientWidth - GUTTER, this.plot.clientHeight - STRIP - AXIS];
  }

  toX(value) {
    return GUTTER + ((value - this.x0) / (this.x1 - this.x0)) * this.size[0];
  }

  toY(bytes) {
    return STRIP + (1 - (bytes - this.y0) / (this.y1 - this.y0)) * this.size[1];
  }

  prepare(canvas) {
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth * ratio, canvas.clientHeight * ratio].map(Math.round);
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, canvas.clientWidth, canvas.clientHeight);
    context.font = `11px ${getComputedStyle(this.root).fontFamily}`;
    return context;
  }

  draw() {
    if (!this.set || !this.plot.clientWidth) return;
    const began = performance.now();
    this.scaled = null;
    const context = this.prepare(this.plot);
    const [width, height] = this.size;
    this.drawGrid(context);
    context.save();
    context.beginPath();
    context.rect(GUTTER, STRIP, width, height);
    context.clip();
    this.shown.byCategory.forEach((places, category) => this.drawCategory(context, places, category));
    this.drawLabels(context);
    this.drawPinned(context);
    context.restore();
    this.drawMarks(context);
    this.drawMinimap();
    this.plot.dataset.drawMs = (performance.now() - began).toFixed(1);
  }

  // Pixels of a block: left, top, right, bottom.
  box(set, i) {
    const { perX, perY, zeroX, zeroY } = this.scale(set);
    const low = zeroY - set.bottom[i] * perY;
    return [zeroX + set.left[i] * perX, low - set.sizes[set.size[i]] * perY, zeroX + set.right[i] * perX, low];
  }

  // From a set's numbers to pixels; computed once a drawing, since reading the canvas' size is slow.
  scale(set) {
    if (this.scaled && this.scaled.set === set) return this.scaled;
    const [width, height] = this.size;
    const perX = width / (this.x1 - this.x0);
    const perY = height / (this.y1 - this.y0);
    const edges = { left: GUTTER, top: STRIP, right: GUTTER + width, bottom: STRIP + height };
    this.scaled = { set, perX, perY, zeroX: GUTTER + (set.origin - this.x0) * perX, zeroY: STRIP + height + this.y0 * perY, ...edges };
    return this.scaled;
  }

  // Edges are put on whole device pixels, so that neighbours leave no seam; what is thinner is still drawn.
  drawCategory(context, places, category) {
    if (this.hidden.has(category) || !places.length) return;
    const set = this.shown;
    const { perX, perY, zeroX, zeroY, left, top, right, bottom } = this.scale(set);
    const ratio = window.devicePixelRatio || 1;
    context.fillStyle = this.fill(context, category);
    for (const i of places) {
      const x0 = Math.max(zeroX + set.left[i] * perX, left - 4);
      const x1 = Math.min(zeroX + set.right[i] * perX, right + 4);
      const low = zeroY - set.bottom[i] * perY;
      const high = low - set.sizes[set.size[i]] * perY;
      if (x1 < x0 || high > bottom || low < top) continue;
      const y0 = Math.round(high * ratio) / ratio;
      const y1 = Math.max(Math.round(low * ratio) / ratio, y0 + 1 / ratio);
      const gap = y1 - y0 > 5 ? 1 / ratio : 0;
      context.fillRect(x0, y0 + gap, Math.max(x1 - x0 - (x1 - x0 > 5 ? 1 : 0), MIN_WIDTH), y1 - y0 - gap);
    }
  }

  fill(context, category) {
    const { color, pattern } = this.set.categories[category];
    if (!pattern) return color;
    const tile = document.createElement("canvas");
    tile.width = tile.height = 7;
    const pen = tile.getContext("2d");
    pen.fillStyle = color;
    pen.fillRect(0, 0, 7, 7);
    pen.strokeStyle = this.set.theme.background;
    pen.globalAlpha = 0.75;
    pen.beginPath();
    for (const [a, b, c, d] of HATCHES[pattern] || []) {
      pen.moveTo(a, b);
      pen.lineTo(c, d);
    }
    pen.stroke();
    return context.createPattern(tile, "repeat");
  }

  drawLabels(context) {
    const set = this.shown;
    const { perX, perY, left, right } = this.scale(set);
    context.textBaseline = "middle";
    let count = 0;
    for (let i = 0; i < set.block.length && count < 300; i++) {
      if (set.sizes[set.size[i]] * perY < 13 || (set.right[i] - set.left[i]) * perX < 60) continue;
      const [x0, y0, x1, y1] = this.box(set, i);
      const [start, end] = [Math.max(x0, left), Math.min(x1, right)];
      const category = set.kinds[set.kind[i]][0];
      if (end - start < 60 || y1 < STRIP || this.hidden.has(category)) continue;
      context.fillStyle = set.categories[category].ink;
      context.fillText(this.fit(context, this.name(set, i), end - start - 10), start + 5, (y0 + y1) / 2);
      count++;
    }
  }

  name(set, i) {
    const [category, module, operator, tensor] = set.kinds[set.kind[i]];
    return set.texts[tensor] || set.texts[module] || set.texts[operator] || set.categories[category].label;
  }

  // Text cut from the left, since the end of a path tells more.
  fit(context, text, width) {
    const keep = Math.floor((text.length * width) / Math.max(context.measureText(text).width, 1));
    return keep >= text.length ? text : keep > 2 ? `…${text.slice(text.length - keep + 1)}` : "";
  }

  drawPinned(context) {
    const set = this.shown;
    const i = this.pinned === null ? -1 : set.block.indexOf(this.pinned);
    if (i < 0) return;
    const [x0, y0, x1, y1] = this.box(set, i);
    context.strokeStyle = set.theme.text;
    context.lineWidth = 2;
    context.strokeRect(x0, y0, Math.max(x1 - x0, 1), Math.max(y1 - y0, 1));
    context.lineWidth = 1;
  }

  drawGrid(context) {
    const { theme } = this.set;
    const [width] = this.size;
    const unit = 1024 ** Math.min(Math.max(Math.floor(Math.log2(Math.max(this.y1 - this.y0, 1)) / 10), 0), 4);
    const step = roundStep((this.y1 - this.y0) / unit / 5) * unit;
    context.strokeStyle = context.fillStyle = theme.muted;
    context.textBaseline = "middle";
    context.textAlign = "right";
    for (let y = Math.ceil(this.y0 / step) * step; y <= this.y1; y += step) {
      context.globalAlpha = 0.25;
      context.fillRect(GUTTER, this.toY(y), width, 1);
      context.globalAlpha = 1;
      context.fillText(formatBytes(Number(y.toPrecision(6))), GUTTER - 6, Math.max(this.toY(y), STRIP + 6));
    }
    this.drawXAxis(context);
    context.textAlign = "left";
  }

  drawXAxis(context) {
    const bottom = this.plot.clientHeight - AXIS / 2;
    const [factor, unit] = this.xUnit();
    const span = (this.x1 - this.x0) / factor;
    let step = roundStep(span / 7);
    if (this.set.axis === "event") step = Math.max(Math.round(step), 1);
    context.textAlign = "center";
    for (let x = Math.ceil(this.x0 / factor / step) * step; x * factor <= this.x1; x += step) {
      const text = `${Number(x.toPrecision(9)).toLocaleString("en-US", { maximumFractionDigits: 6 })}${unit}`;
      context.fillText(text, Math.min(Math.max(this.toX(x * factor), GUTTER + 10), this.plot.clientWidth - 30), bottom);
    }
    context.textAlign = "right";
  }

  xUnit() {
    if (this.set.axis === "event") return [1, ""];
    return this.set.full[1] - this.set.full[0] >= 1e7 ? [1e6, " s"] : [1e3, " ms"];
  }

  drawMarks(context) {
    const { theme, marks, peak, cursor } = this.set;
    const edge = GUTTER + this.size[0];
    context.textBaseline = "middle";
    let number = 0;
    for (const [kind, name, start, end] of marks) {
      const [x0, x1] = [Math.max(this.toX(start), GUTTER), Math.min(this.toX(end), edge)];
      if (x1 <= GUTTER || x0 >= edge) continue;
      if (kind === "phase") this.drawPhase(context, name, x0, x1, theme.strips[number++ % 2]);
      else if (this.toX(start) >= GUTTER && this.toX(end) - this.toX(start) > MIN_STEP_PIXELS) this.drawLine(context, x0, theme.muted, [2, 3], x1 - x0 > 45 ? name : "");
    }
    context.globalAlpha = 1;
    for (const [x, color, label] of [[peak[0], theme.text, `peak ${formatBytes(peak[1])}`], [cursor, this.accent(), ""]]) {
      const place = x === null ? -1 : this.toX(x);
      if (place >= GUTTER && place <= edge) this.drawLine(context, place, color, label ? [6, 3] : [], label);
    }
  }

  drawPhase(context, name, x0, x1, color) {
    context.fillStyle = color;
    context.fillRect(x0, 0, x1 - x0, STRIP - 2);
    context.fillStyle = this.set.theme.muted;
    if (x1 - x0 > context.measureText(name).width + 6) context.fillText(name, x0 + 4, STRIP / 2 - 1);
  }

  drawLine(context, x, color, dash, label) {
    context.strokeStyle = context.fillStyle = color;
    context.setLineDash(dash);
    context.beginPath();
    context.moveTo(x, STRIP);
    context.lineTo(x, STRIP + this.size[1]);
    context.stroke();
    context.setLineDash([]);
    if (!label) return;
    const wide = context.measureText(label).width + 8;
    const left = x + wide > this.plot.clientWidth ? x - wide : x;
    context.globalAlpha = 0.85;
    context.fillStyle = this.set.theme.background;
    context.fillRect(left + 1, STRIP + 1, wide - 2, 14);
    context.globalAlpha = 1;
    context.fillStyle = color;
    context.fillText(label, left + 4, STRIP + 8);
  }

  accent() {
    return getComputedStyle(this.root).getPropertyValue("--st-primary-color").trim() || "#2457c5";
  }

  drawMinimap() {
    const { theme, full, mini_x: xs, mini_y: ys, peak } = this.set;
    const context = this.prepare(this.minimap);
    const [width, height] = [this.minimap.clientWidth, this.minimap.clientHeight];
    const toX = (x) => ((x - full[0]) / (full[1] - full[0] || 1)) * width;
    const top = ys.reduce((most, y) => Math.max(most, y), 1);
    context.fillStyle = theme.muted;
    context.globalAlpha = 0.55;
    context.beginPath();
    context.moveTo(0, height);
    for (let i = 0; i < xs.length; i++) {
      const y = height - (ys[i] / top) * (height - 6);
      context.lineTo(toX(xs[i] + full[0]), y);
      context.lineTo(toX(i + 1 < xs.length ? xs[i + 1] + full[0] : full[1]), y);
    }
    context.lineTo(width, height);
    context.fill();
    context.globalAlpha = 1;
    context.fillStyle = theme.text;
    context.fillRect(toX(peak[0]) - 0.5, 0, 1, height);
    context.strokeStyle = context.fillStyle = this.accent();
    const [x0, x1] = [toX(this.x0), Math.max(toX(this.x1), toX(this.x0) + 2)];
    context.globalAlpha = 0.15;
    context.fillRect(x0, 0, x1 - x0, height);
    context.globalAlpha = 1;
    context.lineWidth = 2;
    context.strokeRect(x0 + 1, 1, Math.max(x1 - x0 - 2, 1), height - 2);
    context.lineWidth = 1;
  }

  drawLegend() {
    const { categories, present } = this.set;
    this.legend.replaceChildren(
      ...present.map((category) => {
        const button = document.createElement("button");
        button.type = "button";
        button.setAttribute("aria-pressed", String(!this.hidden.has(category)));
        const swatch = document.createElement("canvas");
        [swatch.width, swatch.height] = [14, 12];
        const pen = swatch.getContext("2d");
        pen.fillStyle = this.fill(pen, category);
        pen.fillRect(0, 0, 14, 12);
        button.append(swatch, categories[category].label);
        button.addEventListener("click", () => {
          if (!this.hidden.delete(category)) this.hidden.add(category);
          button.setAttribute("aria-pressed", String(!this.hidden.has(category)));
          this.draw();
        });
        return button;
      }),
    );
  }
}
