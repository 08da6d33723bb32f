// What the user does with a block view: zoom, pan, brush, keyboard, hover, pick. Zoom and pan are local; the server refines the view
// 350 ms after the last of them.

const INSTANCES = new WeakMap();
const REFINE_AFTER_MS = 350;
const CLICK_PIXELS = 4;
const LINES_PER_WHEEL = 400;

export default function ({ data, parentElement, setStateValue, setTriggerValue }) {
  const root = parentElement.querySelector(".blocks");
  if (!root || !data) return undefined;
  let view = INSTANCES.get(root);
  if (!view) INSTANCES.set(root, (view = new BlocksView(root)));
  view.setStateValue = setStateValue;
  view.setTriggerValue = setTriggerValue;
  view.load(unpack(data));
  view.resizes.observe(root);
  return () => view.resizes.disconnect();
}

class BlocksView extends BlocksDrawing {
  constructor(root) {
    super(root);
    this.resizes = new ResizeObserver(() => this.draw());
    const { plot, minimap } = this;
    plot.addEventListener("wheel", (event) => this.onWheel(event), { passive: false });
    plot.addEventListener("pointerdown", (event) => this.onPress(event));
    plot.addEventListener("pointermove", (event) => this.onMove(event));
    plot.addEventListener("pointerup", (event) => this.onRelease(event));
    plot.addEventListener("pointerleave", () => (this.tooltip.hidden = true));
    plot.addEventListener("keydown", (event) => this.onKey(event));
    for (const kind of ["pointerdown", "pointermove"]) minimap.addEventListener(kind, (event) => this.onBrush(event));
  }

  load(set) {
    const before = this.set;
    this.set = set;
    if (!before || before.recording !== set.recording) {
      [this.x0, this.x1] = set.view;
      this.overview = null;
      this.pinned = null;
    }
    if (!before || before.recording !== set.recording || before.layout !== set.layout) {
      [this.y0, this.y1] = [0, set.height || 1];
      this.overview = null;
    }
    if (set.view[0] <= set.full[0] && set.view[1] >= set.full[1]) this.overview = set;
    this.plot.setAttribute("aria-label", `Blocks of memory, ${set.layout} over ${set.axis}: ${set.statement}. Peak ${formatBytes(set.peak[1])}.`);
    this.drawLegend();
    this.draw();
  }

  // Moving the view ------------------------------------------------------------------------------------------------------------------

  moveX(start, end) {
    const [low, high] = this.set.full;
    const least = this.set.axis === "event" ? 4 : 1;
    const span = Math.min(Math.max(end - start, Math.min(least, high - low)), high - low);
    const left = Math.min(Math.max(start, low), high - span);
    [this.x0, this.x1] = [left, left + span];
    this.moved();
  }

  moveY(start, end) {
    const height = this.set.height || 1;
    const span = Math.min(Math.max(end - start, height / 1e4), height);
    const bottom = Math.min(Math.max(start, 0), height - span);
    [this.y0, this.y1] = [bottom, bottom + span];
    this.moved();
  }

  moved() {
    this.tooltip.hidden = true;
    if (!this.frame) {
      this.frame = requestAnimationFrame(() => {
        this.frame = 0;
        this.draw();
      });
    }
    clearTimeout(this.refining);
    this.refining = setTimeout(() => this.refine(), REFINE_AFTER_MS);
  }

  refine() {
    const [factor, unit] = this.xUnit();
    const [start, end] = [this.x0, this.x1].map((x) => Number((x / factor).toPrecision(6)).toLocaleString("en-US"));
    this.status.textContent = `Showing ${start} to ${end}${unit}.`;
    this.setStateValue("view", { start: this.x0, end: this.x1, of: this.set.recording });
  }

  zoomX(factor, center = (this.x0 + this.x1) / 2) {
    this.moveX(center - (center - this.x0) * factor, center + (this.x1 - center) * factor);
  }

  zoomY(factor, center = (this.y0 + this.y1) / 2) {
    this.moveY(center - (center - this.y0) * factor, center + (this.y1 - center) * factor);
  }

  // Pointer and keyboard ---------------------------------------------------------------------------------------------------------------

  at(event) {
    const frame = this.plot.getBoundingClientRect();
    const [width, height] = this.size;
    const x = this.x0 + ((event.clientX - frame.left - GUTTER) / width) * (this.x1 - this.x0);
    const y = this.y0 + (1 - (event.clientY - frame.top - STRIP) / height) * (this.y1 - this.y0);
    return [Math.min(Math.max(x, this.set.full[0]), this.set.full[1]), y];
  }

  onWheel(event) {
    event.preventDefault();
    const [x, y] = this.at(event);
    const distance = event.deltaMode === 1 ? event.deltaY * 16 : event.deltaY;
    if (Math.abs(event.deltaX) > Math.abs(event.deltaY) && !event.shiftKey) this.pan(event.deltaX / this.size[0]);
    else if (event.shiftKey) this.zoomY(2 ** ((distance || event.deltaX) / LINES_PER_WHEEL), y);
    else this.zoomX(2 ** (distance / LINES_PER_WHEEL), x);
  }

  pan(share) {
    const step = share * (this.x1 - this.x0);
    this.moveX(this.x0 + step, this.x1 + step);
  }

  onPress(event) {
    if (event.button !== 0) return;
    this.plot.setPointerCapture(event.pointerId);
    this.press = { x: event.clientX, y: event.clientY, view: [this.x0, this.x1, this.y0, this.y1], dragged: false };
  }

  onMove(event) {
    if (!this.press) {
      this.hover(event);
      return;
    }
    const [dx, dy] = [event.clientX - this.press.x, event.clientY - this.press.y];
    if (!this.press.dragged && Math.hypot(dx, dy) < CLICK_PIXELS) return;
    this.press.dragged = true;
    this.plot.classList.add("dragging");
    const [x0, x1, y0, y1] = this.press.view;
    const [width, height] = this.size;
    this.moveX(x0 - (dx / width) * (x1 - x0), x1 - (dx / width) * (x1 - x0));
    this.moveY(y0 + (dy / height) * (y1 - y0), y1 + (dy / height) * (y1 - y0));
  }

  onRelease(event) {
    const clicked = this.press && !this.press.dragged;
    this.press = null;
    this.plot.classList.remove("dragging");
    if (clicked) this.pick(...this.at(event));
  }

  onBrush(event) {
    if (!(event.buttons & 1)) return;
    if (event.type === "pointerdown") this.minimap.setPointerCapture(event.pointerId);
    const frame = this.minimap.getBoundingClientRect();
    const [low, high] = this.set.full;
    const center = low + ((event.clientX - frame.left) / frame.width) * (high - low);
    const half = (this.x1 - this.x0) / 2;
    this.moveX(center - half, center + half);
  }

  onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const [low, high] = this.set.full;
    const half = (this.x1 - this.x0) / 2;
    const zoomIn = () => this.zoomX(0.7);
    const zoomOut = () => this.zoomX(1 / 0.7);
    const left = () => this.pan(-0.2);
    const right = () => this.pan(0.2);
    const everything = () => {
      this.moveY(0, this.set.height || 1);
      this.moveX(low, high);
    };
    const actions = {
      ...{ w: zoomIn, ArrowUp: zoomIn, "+": zoomIn, "=": zoomIn, s: zoomOut, ArrowDown: zoomOut, "-": zoomOut },
      ...{ a: left, ArrowLeft: left, d: right, ArrowRight: right, 0: everything },
      p: () => this.moveX(this.set.peak[0] - half, this.set.peak[0] + half),
      Enter: () => this.pick((this.x0 + this.x1) / 2, null),
      Escape: () => this.pin(null),
    };
    const action = actions[event.key] || actions[event.key.toLowerCase()];
    if (!action) return;
    event.preventDefault();
    action();
  }

  // What is under the pointer --------------------------------------------------------------------------------------------------------

  find(x, y) {
    const set = this.shown;
    const from = x - set.origin;
    for (let i = set.block.length - 1; i >= 0; i--) {
      if (from < set.left[i] || from >= set.right[i] || y < set.bottom[i]) continue;
      if (y < set.bottom[i] + set.sizes[set.size[i]] && !this.hidden.has(set.kinds[set.kind[i]][0])) return i;
    }
    return -1;
  }

  describe(i) {
    const set = this.shown;
    const [category, module, operator, tensor, shape, dtype] = set.kinds[set.kind[i]];
    const text = (index) => set.texts[index] || "";
    const bytes = set.sizes[set.size[i]];
    const life = [set.left[i], set.right[i]].map((x) => this.formatX(x + set.origin));
    const end = set.right[i] + set.origin >= set.full[1] ? "never freed" : `freed ${life[1]}`;
    return [
      `${set.categories[category].label}, ${formatBytes(bytes)}`,
      `${bytes.toLocaleString("en-US")} B`,
      [text(shape), text(dtype)].filter(Boolean).join(" "),
      ...[module, operator, tensor].map(text),
      `born ${life[0]}, ${end}`,
    ].filter(Boolean);
  }

  formatX(x) {
    const [factor, unit] = this.xUnit();
    const text = Number((x / factor).toPrecision(7)).toLocaleString("en-US", { maximumFractionDigits: 3 });
    return unit ? `${text}${unit}` : `event ${text}`;
  }

  hover(event) {
    const i = this.find(...this.at(event));
    this.tooltip.hidden = i < 0;
    if (i < 0) return;
    this.tooltip.replaceChildren(
      ...this.describe(i).map((line) => {
        const row = document.createElement("div");
        row.textContent = line;
        return row;
      }),
    );
    const frame = this.plot.getBoundingClientRect();
    const { offsetWidth: wide, offsetHeight: tall } = this.tooltip;
    const [x, y] = [event.clientX - frame.left, event.clientY - frame.top];
    this.tooltip.style.left = `${x + 14 + wide > frame.width ? Math.max(x - 14 - wide, 0) : x + 14}px`;
    this.tooltip.style.top = `${Math.max(Math.min(y + 14, frame.height - tall), 0)}px`;
  }

  pick(x, y) {
    const i = y === null ? -1 : this.find(x, y);
    const block = i < 0 ? null : this.shown.block[i];
    this.pin(block);
    this.status.textContent = i < 0 ? `Chosen: ${this.formatX(Math.floor(x))}.` : `Pinned: ${this.describe(i).join(", ")}.`;
    this.setTriggerValue("pick", { block, x, of: this.set.recording });
  }

  pin(block) {
    this.pinned = block;
    if (block === null) this.status.textContent = "";
    this.draw();
  }
}
