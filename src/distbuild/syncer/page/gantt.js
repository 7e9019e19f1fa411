// The timeline on a canvas: a row for each slot, below a heading for each worker. layout.js decides
// where the bars are; this draws those in sight, and handles the mouse and the keys.

import { barAt, firstAfter, tickStep, within, zoomed } from "./layout.js";
import { baseName, duration, element } from "./format.js";

const AXIS = 20;
const HEAD = 18;
const ROW = 15;
/** The height from which on the rows scroll. */
const MOST = 400;
const FOLLOW_S = 30;
/** Of the text on light bars. */
const DARK = "#1b1f24";
export const KINDS = ["compiled", "retried", "hit", "local", "failed", "cancelled", "running"];

export class Gantt {
  /** `onView` is called with each new view, {from, to} in seconds of the build, `onPick` with a job. */
  constructor(root, onView, onPick) {
    this.root = root;
    this.rowsBox = root.querySelector("#gantt-rows");
    this.canvas = root.querySelector("canvas");
    this.hint = document.getElementById("hint");
    this.onView = onView;
    this.onPick = onPick;
    this.groups = [];
    this.folded = new Set();
    this.origin = 0;
    this.end = 1;
    this.view = { from: 0, to: 1 };
    this.mode = "all";
    this.picked = null;
    this.drag = null;
    this.readColours();
    this.listen();
  }

  readColours() {
    const style = getComputedStyle(document.documentElement);
    this.colours = {};
    for (const name of [...KINDS, "line", "text", "quiet", "back", "panel", "accent"]) {
      this.colours[name] = style.getPropertyValue(`--${name}`).trim();
    }
  }

  /** New bars; `end`: how long the build has lasted (seconds). */
  show(groups, origin, end) {
    if (origin !== this.origin) [this.mode, this.picked] = ["all", null];
    this.groups = groups;
    this.origin = origin;
    this.end = Math.max(end, 0.5);
    this.place();
    this.moved();
  }

  /** Lays out the rows: each has its top and either a heading or lanes. */
  place() {
    this.rows = [];
    let top = AXIS;
    for (const group of this.groups) {
      const isFolded = this.folded.has(group.place);
      this.rows.push({ top, height: HEAD, group });
      top += HEAD;
      const lanes = group.lanes.length;
      for (let i = 0; i < lanes; i++) {
        const height = isFolded ? (2 * ROW) / lanes : ROW;
        this.rows.push({ top, height, lane: group.lanes[i], isFolded });
        top += height;
      }
      top += 4;
    }
    this.height = top;
    this.rowsBox.style.height = `${top}px`;
    this.root.style.height = `${Math.min(top, MOST) + 2}px`;
    this.headings();
  }

  headings() {
    const heads = this.rows.filter((row) => row.group);
    const texts = heads.map(({ group, top }) => `${top} ${headingOf(group, this.folded)}`).join("\n");
    if (texts === this.headTexts) return;
    this.headTexts = texts;
    const focused = document.activeElement?.dataset?.place;
    const buttons = heads.map(({ group, top }) => {
      const button = element(
        "button",
        { "data-place": group.place, "aria-expanded": String(!this.folded.has(group.place)), click: () => this.fold(group.place) },
        headingOf(group, this.folded),
      );
      button.style.top = `${top}px`;
      return button;
    });
    this.rowsBox.replaceChildren(...buttons);
    buttons.find((button) => button.dataset.place === focused)?.focus();
  }

  fold(place) {
    if (!this.folded.delete(place)) this.folded.add(place);
    this.place();
    this.redraw();
  }

  foldAll() {
    const places = this.groups.map((group) => group.place);
    if (places.some((place) => !this.folded.has(place))) this.folded = new Set(places);
    else this.folded.clear();
    this.place();
    this.redraw();
  }

  setMode(mode) {
    this.mode = mode;
    this.moved();
  }

  setView(view) {
    this.mode = "fixed";
    this.view = within(view, this.end);
    this.moved();
  }

  zoom(factor, time = (this.view.from + this.view.to) / 2) {
    this.mode = "fixed";
    this.view = zoomed(this.view, time, factor, this.end);
    this.moved();
  }

  moved() {
    if (this.mode === "all") this.view = { from: 0, to: this.end };
    if (this.mode === "follow") this.view = { from: Math.max(0, this.end - FOLLOW_S), to: this.end };
    this.onView(this.view, this.mode);
    this.redraw();
  }

  redraw() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.draw();
    });
  }

  draw() {
    const ratio = window.devicePixelRatio || 1;
    const width = this.root.clientWidth;
    const height = this.root.clientHeight;
    if (this.canvas.width !== Math.round(width * ratio) || this.canvas.height !== Math.round(height * ratio)) {
      this.canvas.width = Math.round(width * ratio);
      this.canvas.height = Math.round(height * ratio);
      this.canvas.style.width = `${width}px`;
      this.canvas.style.height = `${height}px`;
    }
    const context = this.canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    this.scale = width / (this.view.to - this.view.from);
    const scroll = this.root.scrollTop;
    this.drawAxis(context, width, height);
    context.save();
    context.beginPath();
    context.rect(0, AXIS, width, height - AXIS);
    context.clip();
    for (const row of this.rows ?? []) {
      const top = row.top - scroll;
      if (top + row.height >= AXIS && top <= height && row.lane) this.drawLane(context, row, top, width);
    }
    context.restore();
    if (this.drag?.to !== undefined) {
      context.globalAlpha = 0.2;
      context.fillStyle = this.colours.accent;
      context.fillRect(Math.min(this.drag.x, this.drag.to), AXIS, Math.abs(this.drag.to - this.drag.x), height);
      context.globalAlpha = 1;
    }
  }

  drawAxis(context, width, height) {
    const step = tickStep(this.view.to - this.view.from, width / 90);
    context.font = '11px system-ui, "DejaVu Sans", sans-serif';
    for (let at = Math.ceil(this.view.from / step) * step; at <= this.view.to; at += step) {
      const x = Math.round((at - this.view.from) * this.scale) + 0.5;
      context.fillStyle = this.colours.line;
      context.fillRect(x, AXIS - 4, 1, height);
      context.fillStyle = this.colours.quiet;
      const text = step < 1 ? `${at.toFixed(2)} s` : duration(at);
      const wide = context.measureText(text).width;
      context.fillText(text, Math.min(Math.max(x - wide / 2, 2), width - wide - 2), 12);
    }
  }

  drawLane(context, row, top, width) {
    const { lane, height, isFolded } = row;
    const from = this.origin + this.view.from;
    const gap = isFolded ? 0 : 1;
    context.fillStyle = this.colours.panel;
    context.fillRect(0, top + gap, width, Math.max(height - 2 * gap, 0.5));
    let covered = -1; // bars that are narrower than a pixel share it
    let last = "";
    for (let i = firstAfter(lane, from); i < lane.length; i++) {
      const bar = lane[i];
      const x = (bar.begin - from) * this.scale;
      if (x > width) break;
      const right = Math.max((bar.end - from) * this.scale, x + 1);
      if (right <= covered && bar.kind === last) continue;
      covered = Math.ceil(right);
      last = bar.kind;
      this.drawBar(context, bar, Math.max(x, -1), top + gap, Math.min(right, width + 1), height - 2 * gap, isFolded);
    }
  }

  drawBar(context, bar, x, top, right, height, isFolded) {
    const wide = Math.max(right - x - (right - x > 4 ? 1 : 0), 1);
    const low = bar.kind === "local" || bar.kind === "cancelled"; // another shape, not only a colour
    const cut = low && !isFolded ? height * 0.3 : 0;
    context.fillStyle = this.colours[bar.kind];
    context.fillRect(x, top + cut, wide, height - cut);
    if (isFolded) return;
    if (bar.kind === "failed" && wide > 6) cross(context, x, top, wide, height, this.colours.back);
    if (bar.job === this.picked) {
      context.strokeStyle = this.colours.text;
      context.lineWidth = 2;
      context.strokeRect(x - 1, top - 1, wide + 2, height + 2);
    }
    if (wide > 60 && !low) {
      context.fillStyle = bar.kind === "running" || bar.kind === "local" ? DARK : this.colours.back;
      context.font = '11px system-ui, "DejaVu Sans", sans-serif';
      const before = bar.kind === "failed" ? 14 : 4;
      const fits = Math.floor((wide - before - 4) / 6.2);
      context.fillText(nameOf(bar.job).slice(0, fits), Math.max(x, 0) + before, top + height - 3);
    }
  }

  // --- mouse and keys -----------------------------------------------------------------------------

  timeAt(x) {
    return this.view.from + x / this.scale;
  }

  barUnder(event) {
    const box = this.canvas.getBoundingClientRect();
    const y = event.clientY - box.top + this.root.scrollTop;
    const row = event.clientY - box.top < AXIS ? null : this.rows.find((each) => y >= each.top && y < each.top + each.height);
    const time = this.origin + this.timeAt(event.clientX - box.left);
    return row?.lane ? barAt(row.lane, time, 2 / this.scale) : null;
  }

  listen() {
    this.root.addEventListener("scroll", () => this.redraw());
    new ResizeObserver(() => this.redraw()).observe(this.root);
    this.canvas.addEventListener("pointerdown", (event) => {
      if (event.button === 0) this.drag = { x: event.offsetX };
    });
    this.canvas.addEventListener("pointermove", (event) => {
      if (this.drag && event.pointerType === "mouse" && Math.abs(event.offsetX - this.drag.x) > 4) {
        this.drag.to = event.offsetX;
        this.canvas.setPointerCapture(event.pointerId);
        this.redraw();
      } else this.point(event);
    });
    this.canvas.addEventListener("pointerup", (event) => this.drop(event));
    this.canvas.addEventListener("pointerleave", () => (this.hint.hidden = true));
    this.canvas.addEventListener("dblclick", () => this.setMode("all"));
    this.root.addEventListener("keydown", (event) => this.press(event));
  }

  point(event) {
    const bar = this.barUnder(event);
    this.hint.hidden = !bar;
    if (!bar) return;
    this.hint.textContent = `${nameOf(bar.job)}: ${bar.kind}, ${duration(bar.end - bar.begin)}`;
    this.hint.style.left = `${Math.min(event.clientX + 12, window.innerWidth - 20 - this.hint.offsetWidth)}px`;
    this.hint.style.top = `${event.clientY + 14}px`;
  }

  drop(event) {
    const drag = this.drag;
    this.drag = null;
    if (drag?.to !== undefined) {
      const times = [this.timeAt(drag.x), this.timeAt(drag.to)].sort((a, b) => a - b);
      this.setView({ from: times[0], to: Math.max(times[1], times[0] + 0.05) });
    } else if (drag) {
      const bar = this.barUnder(event);
      if (bar) this.pick(bar.job);
    }
  }

  pick(job) {
    this.picked = job;
    this.onPick(job);
    this.redraw();
  }

  /** Choose the next (1) or previous (-1) job in the order of their begins. */
  step(by) {
    const bars = this.groups.flatMap((group) => group.lanes.flat()).sort((a, b) => a.begin - b.begin);
    const at = bars.findIndex((bar) => bar.job === this.picked);
    const bar = bars[at < 0 ? (by > 0 ? 0 : bars.length - 1) : at + by];
    if (!bar) return;
    const time = bar.begin - this.origin;
    if (time < this.view.from || time > this.view.to) {
      const half = (this.view.to - this.view.from) / 2;
      this.setView({ from: time - half, to: time + half });
    }
    const row = this.rows.find((each) => each.lane?.includes(bar));
    if (row) this.root.scrollTop = Math.max(0, Math.min(this.root.scrollTop, row.top - AXIS - HEAD));
    if (row && row.top + ROW > this.root.scrollTop + this.root.clientHeight) this.root.scrollTop = row.top - AXIS;
    this.pick(bar.job);
  }

  press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target !== this.root) return;
    const width = this.view.to - this.view.from;
    const shift = (by) => this.setView({ from: this.view.from + by, to: this.view.to + by });
    const actions = {
      ArrowLeft: () => shift(-width / 5),
      ArrowRight: () => shift(width / 5),
      "+": () => this.zoom(0.5),
      "-": () => this.zoom(2),
      a: () => this.setMode("all"),
      Escape: () => this.setMode("all"),
      f: () => this.setMode("follow"),
      n: () => this.step(1),
      p: () => this.step(-1),
    };
    if (!actions[event.key]) return;
    event.preventDefault();
    actions[event.key]();
  }
}

function headingOf(group, folded) {
  const slots = group.slots ? ` · ${group.slots} ${group.slots === 1 ? "slot" : "slots"}` : "";
  const jobs = `${group.jobs} ${group.jobs === 1 ? "job" : "jobs"}`;
  return `${folded.has(group.place) ? "▸" : "▾"} ${group.place}${slots} · ${jobs}`;
}

const nameOf = (job) => (job.source ? baseName(job.source) : job.reason || "command");

function cross(context, x, top, wide, height, colour) {
  context.strokeStyle = colour;
  context.lineWidth = 1.5;
  const from = x + Math.min(wide / 2, 7) - 3;
  context.beginPath();
  context.moveTo(from, top + 3);
  context.lineTo(from + 6, top + height - 3);
  context.moveTo(from + 6, top + 3);
  context.lineTo(from, top + height - 3);
  context.stroke();
}
