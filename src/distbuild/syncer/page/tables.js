// The page's texts and tables, of documents that the syncer has sent.

import { kindOf } from "./layout.js";
import { baseName, bytes, clock, commonDirectory, day, duration, element, fill, number, percent, precise, quoted } from "./format.js";

const by = (id) => document.getElementById(id);
const write = (id, text) => {
  if (by(id).textContent !== text) by(id).textContent = text;
};
const n = (text, more = {}) => ({ text, class: "n", ...more });

/** How many jobs have each outcome, and of the local ones each reason. */
export function count(jobs) {
  const found = { outcomes: {}, reasons: {} };
  for (const job of jobs) {
    found.outcomes[job.outcome] = (found.outcomes[job.outcome] ?? 0) + 1;
    if (job.reason) found.reasons[job.reason] = (found.reasons[job.reason] ?? 0) + 1;
  }
  return found;
}

export function slotsOf(status) {
  const up = Object.entries(status?.workers ?? {}).filter(([, worker]) => worker.state === "up");
  return Object.fromEntries(up.map(([host, worker]) => [host, Math.min(number(worker.num_cores), 10000)]));
}

/** The numbers at the top. `lasted`: seconds of the build so far. */
export function showNow({ build, jobs, isLive, status, report }, running, counts, lasted) {
  const { outcomes } = counts;
  const slots = Object.values(slotsOf(status)).reduce((a, b) => a + b, 0);
  write("elapsed", build ? duration(lasted) : "–");
  const isRunning = isLive && running.length > 0;
  const left = isRunning ? estimate(build, jobs.length, lasted) : null;
  write("estimate", left === null ? "–" : `≈ ${duration(left)}`);
  by("estimate").parentElement.title = build?.expected ? `If as many commands come as in an earlier build with the same first file: ${build.expected}` : "No earlier build had the same first file";
  // A worker may have leased some jobs for the time when its slots are free.
  const busy = Math.min(status?.jobs.running ?? 0, slots);
  write("running", isLive && status ? `${busy} / ${slots}` : report ? `≤ ${report.most_at_once} / ${report.slots}` : "–");
  write("queue", isLive && status ? String(status.jobs.queued + status.jobs.running - busy) : "–");
  write("commands", String(jobs.length));
  write("hits", percent(outcomes.hit ?? 0, jobs.length));
  write("local", percent(outcomes.local ?? 0, jobs.length));
  write("failed", String(outcomes.failed ?? 0));
  by("failed").parentElement.classList.toggle("bad", Boolean(outcomes.failed));
  const name = build?.name ? ` ${build.name}` : "";
  const state = isRunning ? "goes on" : build?.is_open ? "no command runs now" : "has ended";
  write("now-heading", isLive ? "The build now" : `Build ${build.number}`);
  write("title", build ? `Build ${build.number}${name}, ${day(build.began)}, ${state}` : "No build yet");
}

function estimate(build, done, lasted) {
  if (!build.expected || done < 5 || done >= build.expected || lasted <= 0) return null;
  return ((build.expected - done) * lasted) / done;
}

export function showReport(report) {
  if (!report) return write("report", "");
  const counted = Object.entries(report.outcomes).map(([name, count]) => `${name} ${count}`).join(", ");
  const limit = report.limit ? ` Limited by ${report.limit}.` : "";
  write("report", `${report.jobs} commands in ${report.wall_s.toFixed(1)} s: ${counted}. On workers ${report.ran_s.toFixed(1)} s of compiling, ${report.parallelism.toFixed(1)} at a time, at most ${report.most_at_once} of ${report.slots} slots.${limit}`);
}

export function showWorkers(status, jobs) {
  const ran = new Map();
  for (const job of jobs) {
    if (job.outcome !== "compiled" || !job.ran_s) continue;
    const known = ran.get(job.worker) ?? ran.set(job.worker, { count: 0, seconds: 0 }).get(job.worker);
    known.count += 1;
    known.seconds += job.ran_s;
  }
  const means = [...ran.values()].map(({ count, seconds }) => seconds / count).sort((a, b) => a - b);
  const median = means.length ? (means[(means.length - 1) >> 1] + means[means.length >> 1]) / 2 : 0;
  const versions = new Map((status?.compilers ?? []).map((each) => [each.path, each.version]));
  const rows = Object.entries(status?.workers ?? {}).map(([host, worker]) => {
    const own = ran.get(host);
    const mean = own ? own.seconds / own.count : 0;
    const why = [worker.error, worker.refused_results ? `${worker.refused_results} results refused: ${worker.refused_why}` : ""].filter(Boolean).join("; ");
    const off = number(worker.clock_off_s);
    return [
      host,
      { text: why ? `${worker.state}: ${why}` : worker.state, class: worker.state === "up" && !why ? "" : "bad" },
      n(worker.num_cores === undefined ? "–" : `${number(worker.running)} / ${number(worker.num_cores)}`),
      n(worker.load === undefined ? "–" : number(worker.load).toFixed(1)),
      n(worker.free_memory_bytes === undefined ? "–" : bytes(worker.free_memory_bytes)),
      n(worker.mirrored_generation === undefined ? "–" : String(Math.max(0, status.mirror.generation - worker.mirrored_generation)), { title: "changes of the mirror that the worker does not have yet" }),
      n(off ? `${off > 0 ? "+" : ""}${off.toFixed(0)} s` : "right", { class: off ? "n bad" : "n" }),
      [worker.compilers].flat().filter((path) => path).map((path) => `${baseName(String(path))} ${versionOf(versions.get(path))}`).join(", ") || "none of yours yet",
      n(own ? own.count : 0),
      n(own ? (1000 * mean).toFixed(0) : "–"),
      n(own && median ? `× ${(mean / median).toFixed(2)}` : "–"),
    ];
  });
  fill(by("workers"), rows, "There is no worker: dist_build.exe setup --invite prints how to add one.");
}

const versionOf = (text) => (text ?? "").split(" ")[1] ?? "";

export function showFiles(jobs, report, counts, meanings, pick) {
  const usual = new Map((report?.slowest ?? []).map((job) => [job.source, job.usual_s]));
  const slowest = jobs.filter((job) => job.ran_s).sort((a, b) => b.ran_s - a.ran_s).slice(0, 12);
  const failed = jobs.filter((job) => job.outcome === "failed").slice(0, 20);
  const shown = [...slowest, ...failed].map((job) => job.source).filter(Boolean);
  const common = commonDirectory(shown).length;
  const rows = slowest.map((job) => {
    const before = usual.get(job.source);
    const change = before ? job.ran_s - before : 0;
    return [
      { text: element("button", { class: "link", title: job.source, click: () => pick(job) }, job.source.slice(common)), class: "path" },
      n(`${job.ran_s.toFixed(2)} s`),
      n(before ? `${before.toFixed(2)} s` : "–"),
      n(before ? `${change >= 0 ? "+" : "−"}${Math.abs(change).toFixed(2)} s` : "–", { class: change > 0.5 * (before ?? 0) && change > 0.2 ? "n bad" : "n" }),
      job.worker,
    ];
  });
  fill(by("slowest"), rows, "No worker has compiled a file in this build.");
  const reasons = Object.entries(counts.reasons).sort((a, b) => b[1] - a[1]);
  fill(by("reasons"), reasons.map(([reason, jobs]) => [reason, n(jobs), { text: meanings[reason] ?? "", class: "path" }]), "Nothing was compiled locally.");
  const known = new Map((report?.failures ?? []).map((job) => [`${job.source} ${job.began}`, job.messages]));
  const failures = failed.map((job) => [
    { text: element("button", { class: "link", title: job.source, click: () => pick(job) }, job.source.slice(common) || "command"), class: "path" },
    n(job.exit_code),
    { text: element("pre", {}, known.get(`${job.source} ${job.began}`) || "…"), class: "path" },
  ]);
  fill(by("failures"), failures, "Nothing failed.");
}

/** `chosen`: the numbers of the builds to compare. */
export function showBuilds(builds, shown, isRunning, chosen, open, choose) {
  const rows = builds.map((build) => {
    const { outcomes } = build;
    const box = element("input", { type: "checkbox", "aria-label": `Compare build ${build.number}`, change: (event) => choose(build.number, event.target.checked) });
    box.checked = chosen.includes(build.number);
    return [
      box,
      element("button", { class: "link", click: () => open(build.number) }, `Build ${build.number}`),
      { text: day(build.began), class: "date" },
      n(`${build.wall_s.toFixed(1)} s${build.is_open && isRunning ? ", goes on" : ""}`),
      ...[build.jobs, outcomes.compiled, outcomes.hit, outcomes.local].map((value) => n(value ?? 0)),
      n(outcomes.failed ?? 0, { class: outcomes.failed ? "n bad" : "n" }),
      { text: build.name, class: "path" },
    ];
  });
  fill(by("builds"), rows, 'No build is recorded (none ever is with "history_bytes": 0 in config.json).');
  builds.forEach((build, i) => by("builds").tBodies[0].rows[i].classList.toggle("shown", build.number === shown));
}

export function showComparison({ before, now, changed }) {
  const heads = ["", `Build ${before.number}`, `Build ${now.number}`];
  const row = (name, cell, of) => element("tr", {}, [name, of(before), of(now)].map((text, i) => element(cell, { class: i ? "n" : "" }, text)));
  const outcomes = [...new Set([...Object.keys(before.outcomes), ...Object.keys(now.outcomes)])];
  const facts = [row("Wall", "td", (build) => `${build.wall_s.toFixed(1)} s`), row("Commands", "td", (build) => build.jobs), ...outcomes.map((name) => row(name, "td", (build) => build.outcomes[name] ?? 0))];
  const first = element("table", { class: "short" }, [element("thead", {}, element("tr", {}, heads.map((text, i) => element("th", { class: i ? "n" : "" }, text)))), element("tbody", {}, facts)]);
  const common = commonDirectory(changed.map(([source]) => source)).length;
  const files = changed.map(([source, then, after]) => element("tr", {}, [element("td", { class: "path", title: source }, source.slice(common)), ...[`${then.toFixed(2)} s`, `${after.toFixed(2)} s`, `${after >= then ? "+" : "−"}${Math.abs(after - then).toFixed(2)} s`].map((text) => element("td", { class: "n" }, text))]));
  const second = element("table", {}, [element("thead", {}, element("tr", {}, ["Files whose time changed most", "Before", "Now", "Change"].map((text, i) => element("th", { class: i ? "n" : "" }, text)))), element("tbody", {}, files)]);
  by("comparison").replaceChildren(first, second);
  by("comparison").hidden = false;
}

/** The chosen job, of its whole record; null: it still runs. */
export function showJob(job, full, meanings, close) {
  const kind = full ? kindOf(job) : "running";
  const facts = [["Outcome", full?.exit_code ? `${kind}, exit code ${full.exit_code}` : kind]];
  if (job.worker) facts.push(["Worker", job.worker]);
  facts.push(["Began", clock(job.began)]);
  if (full) {
    facts.push(["Took", `${precise(full.took_s)}${full.ran_s ? `, of which the compiler ran ${precise(full.ran_s)}` : ""}${full.usual_s ? `, usually ${precise(full.usual_s)}` : ""}`]);
    if (full.cpu_s) facts.push(["Used", `${precise(full.cpu_s)} of processor time${full.memory_bytes ? `, ${bytes(full.memory_bytes)} of memory at the most` : ""}`]);
    if (Object.keys(full.phases).length) facts.push(["Phases", waterfall(full)]);
    if (full.rounds > 1) facts.push(["Compiled", `${full.rounds} times, since a file changed or was missing`]);
    if (full.inputs) facts.push(["Inputs", `${full.inputs} files`]);
    if (full.reason) facts.push(["Why local", `${full.reason}: ${meanings[full.reason] ?? ""}${full.detail ? ` (${full.detail})` : ""}`]);
    if (full.missed) facts.push(["Why no hit", full.missed]);
    facts.push(["Directory", full.cwd]);
  } else facts.push(["State", job.is_local ? "runs on the dev box" : job.worker ? "on the worker" : job.ended || "just begun"]);
  const parts = [element("h3", {}, job.source || "A command without a source"), element("dl", {}, facts.flatMap(([name, text]) => [element("dt", {}, name), element("dd", {}, text)]))];
  if (full?.messages) parts.push(element("pre", {}, full.messages));
  if (full?.command) {
    const line = `cd ${quoted(full.cwd)} && dist_build.exe explain -- ${full.command}`;
    const copy = element("button", { click: () => navigator.clipboard.writeText(line).then(() => (copy.textContent = "Copied")) }, "Copy");
    parts.push(element("p", {}, [element("code", { id: "explain" }, line), " ", copy]));
  }
  parts.push(element("button", { click: close }, "Close"));
  by("job").replaceChildren(...parts);
  by("job").hidden = false;
}

/** The phases below each other, each with its part of the time. */
function waterfall(job) {
  const all = Object.values(job.phases).reduce((a, b) => a + b, 0) || 1;
  let before = 0;
  const rows = Object.entries(job.phases).map(([phase, seconds]) => {
    const bar = element("i");
    bar.style.marginLeft = `${(100 * before) / all}%`;
    bar.style.width = `${(100 * seconds) / all}%`;
    before += seconds;
    return [element("span", {}, phase), element("span", { class: "track" }, bar), element("span", { class: "n" }, precise(seconds))];
  });
  return element("div", { class: "phases" }, rows.flat());
}
