// The timeline's layout and the curves above it.

import assert from "node:assert/strict";
import { test } from "node:test";

import * as layout from "./layout.js";

const REMOTE = "on the worker";

function job(more = {}) {
  return { source: "/a.c", outcome: "compiled", worker: "w:1", began: 100, took_s: 3, ran_s: 1, rounds: 1, reason: "", phases: { understood: 0.25, prepared: 0.25, queued: 1, [REMOTE]: 1.25, verified: 0.25 }, ...more };
}

const bar = (begin, end, kind = "compiled") => ({ begin, end, kind });

test("a remote job's bar is the compiler's own time, before its result came", () => {
  assert.deepEqual(layout.spanOf(job()), { place: "w:1", begin: 101.75, end: 102.75 });
  assert.deepEqual(layout.spanOf(job({ ran_s: 0 })), { place: "w:1", begin: 101.5, end: 102.75 });
});

test("hits and local commands are on the dev box for as long as they took", () => {
  const here = { place: layout.HERE, begin: 100, end: 103 };
  assert.deepEqual(layout.spanOf(job({ outcome: "hit" })), here);
  assert.deepEqual(layout.spanOf(job({ outcome: "local", worker: "" })), here);
  assert.deepEqual(layout.spanOf(job({ outcome: "cancelled", phases: {} })), here);
});

test("a compile of several rounds is coloured as retried", () => {
  assert.equal(layout.kindOf(job()), "compiled");
  assert.equal(layout.kindOf(job({ rounds: 2 })), "retried");
  assert.equal(layout.kindOf(job({ rounds: 2, outcome: "failed" })), "failed");
});

test("a running job has a bar once it is on a worker or runs on the dev box", () => {
  assert.equal(layout.runningSpan({ began: 1, worker: "", is_local: false }, 9), null);
  assert.deepEqual(layout.runningSpan({ began: 1, worker: "w:1", since: 4 }, 9), { place: "w:1", begin: 4, end: 9 });
  assert.deepEqual(layout.runningSpan({ began: 1, worker: "", is_local: true }, 9), { place: layout.HERE, begin: 1, end: 9 });
});

test("bars of one lane do not overlap, and the first free lane is taken", () => {
  assert.deepEqual(layout.lanes([bar(0, 2), bar(1, 3), bar(2, 4), bar(2.5, 5), bar(5, 6)]), [0, 1, 0, 2, 0]);
});

test("random bars use as many lanes as overlap at most", () => {
  let seed = 7;
  const random = () => (seed = (seed * 16807) % 2147483647) / 2147483647;
  for (let round = 0; round < 50; round++) {
    const bars = Array.from({ length: 40 }, () => bar(random() * 20, 0));
    for (const each of bars) each.end = each.begin + random() * 5;
    bars.sort((a, b) => a.begin - b.begin);
    const found = layout.lanes(bars);
    for (let i = 0; i < bars.length; i++)
      for (let k = 0; k < i; k++) if (found[i] === found[k]) assert.ok(bars[k].end <= bars[i].begin + 1e-6);
    const overlap = Math.max(...bars.map((each) => bars.filter((other) => other.begin <= each.begin && other.end > each.begin).length));
    assert.equal(Math.max(...found) + 1, overlap);
  }
});

test("bars that overlap a little share the slots that there are", () => {
  const bars = [bar(0, 2), bar(1.9, 4), bar(3.9, 6)];
  assert.deepEqual(layout.lanes(bars, 1), [0, 0, 0]);
  assert.deepEqual(bars.map((each) => each.begin), [0, 2, 4]);
  assert.deepEqual(layout.lanes([bar(0, 4), bar(1, 5)], 1), [0, 1], "they overlap for most of their time");
});

test("a running job without a free slot waits on its worker, without a bar", () => {
  assert.deepEqual(layout.lanes([bar(0, 9, "running"), bar(1, 9, "running")], 1), [0, -1]);
});

test("groups are the workers by name and the dev box last, with idle slots", () => {
  const jobs = [job(), job({ worker: "w:10" }), job({ outcome: "local", worker: "" })];
  const groups = layout.layout(jobs, [{ began: 101, worker: "w:2", since: 102 }], 105, { "w:2": 2, [layout.HERE]: 0 });
  assert.deepEqual(groups.map((group) => group.place), ["w:1", "w:2", "w:10", layout.HERE]);
  assert.deepEqual(groups.map((group) => group.lanes.length), [1, 2, 1, 1]);
  assert.deepEqual(groups[1].lanes.flat().map((each) => [each.kind, each.begin, each.end]), [["running", 102, 105]]);
  assert.equal(groups[1].slots, 2);
  assert.equal(groups[0].jobs, 1);
});

test("the bar under the mouse is found, also a narrow one beside it", () => {
  const lane = [bar(1, 2), bar(4, 4.01), bar(6, 9)];
  assert.equal(layout.barAt(lane, 1.5), lane[0]);
  assert.equal(layout.barAt(lane, 3), null);
  assert.equal(layout.barAt(lane, 3.9, 0.2), lane[1]);
  assert.equal(layout.barAt(lane, 10), null);
  assert.equal(layout.barAt([], 1), null);
  assert.equal(layout.firstAfter(lane, 4.5), 2);
});

test("the curves count busy slots, waiting jobs and ended jobs", () => {
  const jobs = [job({ began: 0, phases: { queued: 1, [REMOTE]: 2 }, ran_s: 2, took_s: 3 }), job({ began: 0, outcome: "failed", phases: { queued: 2, [REMOTE]: 1 }, ran_s: 1, took_s: 3 })];
  const running = [{ began: 2, worker: "" }, { began: 0, worker: "w:1", since: 3 }];
  const found = layout.curves(jobs, running, 0, 4, 4);
  assert.deepEqual(found.times, [0, 1, 2, 3]);
  assert.deepEqual(found.busy, [0, 1, 2, 1]);
  assert.deepEqual(found.queued, [2, 1, 1, 1]);
  assert.deepEqual(found.rates.compiled, [0, 0, 0, 1]);
  assert.deepEqual(found.rates.failed, [0, 0, 0, 1]);
  const part = layout.curves(jobs, running, 1, 2, 2);
  assert.deepEqual(part.busy, [1, 1]);
});

test("a view stays inside the build", () => {
  assert.deepEqual(layout.within({ from: -1, to: 1 }, 10), { from: 0, to: 2 });
  assert.deepEqual(layout.within({ from: 9, to: 12 }, 10), { from: 7, to: 10 });
  const view = layout.zoomed({ from: 2, to: 6 }, 3, 0.5, 10);
  assert.deepEqual(view, { from: 2.5, to: 4.5 });
  assert.deepEqual(layout.zoomed({ from: 2, to: 6 }, 4, 100, 10), { from: 0, to: 10 });
});

test("an axis has few marks at round times", () => {
  for (const span of [0.05, 1, 13, 100, 1000, 50000]) {
    const count = span / layout.tickStep(span, 10);
    assert.ok(count <= 10 && count > 2, `${span}: ${count}`);
  }
});
