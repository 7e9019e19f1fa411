// The two strip charts, with uPlot. They share their cursor, and their time with the timeline.

import { OUTCOMES, curves } from "./layout.js";
import { duration } from "./format.js";

const HEIGHT = 140;
const POINTS = 240;
/** The shortest time (seconds) over which finished jobs are counted. */
const RATE_S = 1;

export class Charts {
  /** `onSelect` is called with the view, {from, to}, that was chosen by dragging. */
  constructor(load, rates, onSelect) {
    this.boxes = [load, rates];
    this.onSelect = onSelect;
    this.sync = uPlot.sync("time");
    this.plots = [];
    this.build();
    new ResizeObserver(() => this.resize()).observe(load);
  }

  build() {
    for (const plot of this.plots) plot.destroy();
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    const time = { label: "time", value: (_, at) => (at == null ? "–" : duration(at)) };
    const line = (label, name, digits, more = {}) => ({
      label,
      stroke: colour(name),
      width: 1.5,
      points: { show: false },
      value: (_, value) => (value == null ? "–" : value.toFixed(digits)),
      ...more,
    });
    const dashes = { local: [6, 3], failed: [2, 2], hit: [10, 3] };
    this.plots = [
      this.plot(0, colour, [time, line("slots busy", "compiled", 1, { fill: `${colour("compiled")}33` }), line("slots", "quiet", 0, { dash: [3, 3] }), line("queue", "local", 1, { dash: [8, 3] })], "slots, jobs"),
      this.plot(1, colour, [time, ...OUTCOMES.map((name) => line(`${name}/s`, name, 1, { dash: dashes[name] })), line("MB/s", "retried", 2, { scale: "mb", dash: [1, 3] })], "jobs/s", "MB/s"),
    ];
    if (this.last) this.show(...this.last);
  }

  plot(index, colour, series, left, right) {
    const axis = (more) => ({ stroke: colour("quiet"), grid: { stroke: colour("line"), width: 0.5 }, ticks: { show: false }, labelSize: 18, labelFont: "11px sans-serif", font: "11px sans-serif", ...more });
    const axes = [axis({ values: (_, marks) => marks.map(duration), size: 24, space: 70 }), axis({ label: left, size: 40 })];
    // The second chart's axis keeps its place in the first, so that both have the same times below
    // each other.
    axes.push(axis({ side: 1, scale: "mb", size: 40, label: right ?? " ", grid: { show: false }, values: right ? undefined : () => [] }));
    const options = {
      width: this.boxes[index].clientWidth || 600,
      height: HEIGHT,
      series,
      axes,
      scales: { x: { time: false, range: (_, min, max) => [this.view?.from ?? min, this.view?.to ?? max] }, y: { range: (_u, _min, max) => [0, Math.max(1, max * 1.05)] }, mb: { range: (_u, _min, max) => [0, Math.max(0.1, max * 1.05)] } },
      cursor: { sync: { key: this.sync.key, setSeries: false }, drag: { x: true, y: false, setScale: false }, points: { size: 5 } },
      hooks: {
        setSelect: [
          (plot) => {
            if (plot.select.width < 4) return;
            const from = plot.posToVal(plot.select.left, "x");
            const to = plot.posToVal(plot.select.left + plot.select.width, "x");
            plot.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
            this.onSelect({ from, to });
          },
        ],
      },
    };
    return new uPlot(options, series.map(() => []), this.boxes[index]);
  }

  /** `sent`: pairs of Unix time and the bytes that went between syncer and workers until then. */
  show(build, view, slots, sent) {
    this.last = [build, view, slots, sent];
    this.view = view;
    const { origin, jobs, running } = build;
    // A curve of part of the build has more points in it.
    const [from, to] = [origin + view.from, origin + view.to];
    const load = curves(jobs, running, from, to, POINTS);
    const busy = load.busy.map((count) => Math.min(count, slots || count));
    const times = load.times.map((at) => at - origin);
    this.plots[0].setData([times, busy, times.map(() => slots), load.queued]);
    const count = Math.max(2, Math.min(POINTS, Math.ceil((to - from) / RATE_S)));
    const { times: at, rates } = curves(jobs, running, from, to, count);
    const each = OUTCOMES.map((outcome) => rates[outcome]);
    this.plots[1].setData([at.map((time) => time - origin), ...each, at.map((time) => sentAt(sent, time))]);
  }

  resize() {
    const width = this.boxes[0].clientWidth;
    for (const plot of this.plots) if (width && plot.width !== width) plot.setSize({ width, height: HEIGHT });
  }
}

/** Megabytes per second between the two samples around a time; null: not known. */
function sentAt(sent, at) {
  let low = 0;
  let high = sent.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sent[middle][0] <= at) low = middle + 1;
    else high = middle;
  }
  if (!low || low === sent.length) return null;
  const [[t0, b0], [t1, b1]] = [sent[low - 1], sent[low]];
  return t1 > t0 ? Math.max(0, (b1 - b0) / (t1 - t0) / 1e6) : null;
}
