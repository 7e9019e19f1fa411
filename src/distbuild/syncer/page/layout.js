// Where the timeline's bars go, and the curves above it. Pure: no page, no clock. Times are Unix
// seconds.

export const HERE = "dev box";
const BEFORE = ["understood", "prepared", "queued"];
const REMOTE = "on the worker";

/** How a job is coloured: its outcome, but a compile that took several rounds is "retried". */
export function kindOf(job) {
  return job.outcome === "compiled" && job.rounds > 1 ? "retried" : job.outcome;
}

/** When and where a job ran: on a worker the compiler's own time, as `dist_build.exe trace` has it. */
export function spanOf(job) {
  const remote = job.phases[REMOTE];
  if (remote === undefined || !job.worker || job.outcome === "hit" || job.outcome === "local") {
    return { place: HERE, begin: job.began, end: job.began + job.took_s };
  }
  let end = job.began + remote;
  for (const phase of BEFORE) end += job.phases[phase] ?? 0;
  return { place: job.worker, begin: end - (job.ran_s || remote), end };
}

/** A bar of a job that still runs; null: it is on no worker and on no slot of the dev box. */
export function runningSpan(job, now) {
  if (job.is_local) return { place: HERE, begin: job.began, end: now };
  return job.worker ? { place: job.worker, begin: job.since ?? job.began, end: now } : null;
}

/**
 * Puts bars, sorted by their begin, into lanes without overlap: the lane of each. The syncer learns of
 * a compile's end a little late, so that bars seem to overlap: with `most` lanes in use, a bar that
 * the first free lane can take for most of its time begins when that lane is free. Then a running job
 * waits for a slot on its worker: its lane is -1.
 */
export function lanes(bars, most = Infinity) {
  let count = 0;
  const free = []; // lanes by number, the smallest is taken first
  const busy = []; // a heap of [end, lane]
  return bars.map((bar) => {
    while (busy.length && busy[0][0] <= bar.begin + 1e-9) push(free, [pop(busy)[1]]);
    let lane = -1;
    if (free.length) lane = pop(free)[0];
    else if (count < most) lane = count++;
    else if (bar.kind === "running") return lane;
    else if (bar.end - busy[0][0] >= (bar.end - bar.begin) / 2) [bar.begin, lane] = pop(busy);
    else lane = count++;
    push(busy, [bar.end, lane]);
    return lane;
  });
}

function push(heap, item) {
  let at = heap.push(item) - 1;
  while (at > 0) {
    const up = (at - 1) >> 1;
    if (heap[up][0] <= item[0]) break;
    heap[at] = heap[up];
    at = up;
  }
  heap[at] = item;
}

function pop(heap) {
  const first = heap[0];
  const item = heap.pop();
  if (heap.length) {
    let at = 0;
    for (;;) {
      let down = 2 * at + 1;
      if (down >= heap.length) break;
      if (down + 1 < heap.length && heap[down + 1][0] < heap[down][0]) down += 1;
      if (heap[down][0] >= item[0]) break;
      heap[at] = heap[down];
      at = down;
    }
    heap[at] = item;
  }
  return first;
}

/**
 * Groups jobs by place and lane. `slots`: how many slots each place has, 0: not known; the places
 * `shown` are there without a job, too. Returns the
 * groups, workers by name and the dev box last: {place, lanes: [[bar, ...], ...], jobs, slots}; a bar
 * is {begin, end, kind, job}.
 */
export function layout(jobs, running, now, shown = {}, slots = shown) {
  const places = new Map(Object.keys(shown).map((place) => [place, []]));
  const add = (span, kind, job) => {
    if (!span) return;
    if (!places.has(span.place)) places.set(span.place, []);
    places.get(span.place).push({ begin: span.begin, end: span.end, kind, job });
  };
  for (const job of jobs) add(spanOf(job), kindOf(job), job);
  for (const job of running) add(runningSpan(job, now), "running", job);
  const order = [...places.keys()].sort((a, b) => (a === HERE) - (b === HERE) || compare(a, b));
  return order.map((place) => {
    const bars = places.get(place).sort((a, b) => a.begin - b.begin || a.end - b.end);
    const rows = Array.from({ length: slots[place] || 1 }, () => []);
    lanes(bars, slots[place] || Infinity).forEach((lane, i) => lane < 0 || (rows[lane] ??= []).push(bars[i]));
    return { place, lanes: rows, jobs: bars.length, slots: slots[place] ?? 0 };
  });
}

const compare = (a, b) => a.localeCompare(b, "en", { numeric: true });

/** The bar of a lane (sorted, without overlap) at a time, or the one that begins at most `near` later. */
export function barAt(lane, time, near = 0) {
  let low = 0;
  let high = lane.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (lane[middle].end < time - near) low = middle + 1;
    else high = middle;
  }
  const bar = lane[low];
  return bar && bar.begin <= time + near ? bar : null;
}

/** The first bar of a lane that ends after a time: where drawing begins. */
export function firstAfter(lane, time) {
  let low = 0;
  let high = lane.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (lane[middle].end < time) low = middle + 1;
    else high = middle;
  }
  return low;
}

export const OUTCOMES = ["compiled", "hit", "local", "failed"];

/**
 * The curves from `begin` to `end` at `count` points: {times, busy, queued, rates: {outcome: [...]}}.
 * busy and queued are means over the time to the next point, rates are jobs per second that ended.
 */
export function curves(jobs, running, begin, end, count) {
  const step = Math.max((end - begin) / count, 1e-3);
  const zeros = () => new Array(count).fill(0);
  const found = { times: [], busy: zeros(), queued: zeros(), rates: {} };
  for (let i = 0; i < count; i++) found.times.push(begin + i * step);
  for (const outcome of OUTCOMES) found.rates[outcome] = zeros();
  const cover = (into, from, to) => {
    const a = Math.max((from - begin) / step, 0);
    const b = Math.min((to - begin) / step, count);
    for (let i = Math.floor(a); i < b; i++) into[i] += Math.min(b, i + 1) - Math.max(a, i);
  };
  for (const job of jobs) {
    const span = spanOf(job);
    if (span.place !== HERE) cover(found.busy, span.begin, span.end);
    const waited = job.phases.queued;
    if (waited) {
      const from = job.began + (job.phases.understood ?? 0) + (job.phases.prepared ?? 0);
      cover(found.queued, from, from + waited);
    }
    const at = Math.floor((job.began + job.took_s - begin) / step);
    if (at >= 0 && at < count && found.rates[job.outcome]) found.rates[job.outcome][at] += 1 / step;
  }
  for (const job of running) {
    const span = runningSpan(job, end);
    if (!span) cover(found.queued, job.began, end);
    else if (span.place !== HERE) cover(found.busy, span.begin, end);
  }
  return found;
}

/** The view after zooming by `factor` about `time`, within the build's [0, end]. */
export function zoomed(view, time, factor, end) {
  const width = Math.min((view.to - view.from) * factor, end);
  const from = time - ((time - view.from) / (view.to - view.from)) * width;
  return within({ from, to: from + Math.max(width, 0.05) }, end);
}

/** The view moved into [0, end]. */
export function within(view, end) {
  const width = view.to - view.from;
  const from = Math.max(0, Math.min(view.from, end - width));
  return { from, to: from + width };
}

/** Round steps for an axis of `span` with about `count` marks. */
export function tickStep(span, count) {
  const rough = span / Math.max(count, 1);
  const steps = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800];
  return steps.find((step) => step >= rough) ?? 3600 * Math.ceil(rough / 3600);
}
