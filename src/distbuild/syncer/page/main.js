// Keeps what the syncer's events say, and shows it: the present build, or an earlier one that the
// user has opened. Nothing is drawn while nothing changes.

import { HERE, layout } from "./layout.js";
import { Gantt, KINDS } from "./gantt.js";
import { Charts } from "./charts.js";
import { element } from "./format.js";
import * as tables from "./tables.js";

const TICK_MS = 500;
/** The server computes a report from all of the build's jobs, so that large builds get fewer. */
const REPORT_MS = 10_000;
const MAX_SAMPLES = 5000;
const by = (id) => document.getElementById(id);

const live = { build: null, jobs: [], running: new Map(), status: null, report: null, isLive: true };
const sent = [];
let opened = null; // an earlier build
let builds = [];
let chosen = [];
let meanings = {};
let clockOffset = 0; // the syncer's clock less the browser's (seconds)
let timer = null;
let reportTimer = null;
let scheduled = false;

const gantt = new Gantt(by("gantt"), viewChanged, pick);
const charts = new Charts(by("load"), by("rates"), (view) => gantt.setView(view));

function now() {
  return Date.now() / 1000 + clockOffset;
}

function shown() {
  return opened ?? live;
}

function runningOf(state) {
  return state.isLive ? [...state.running.values()].filter((job) => job.build === state.build?.number) : [];
}

/** Seconds from the build's begin to now, or to the end of its last job. */
function lasted(state, running) {
  if (!state.build) return 0;
  const end = running.length ? now() : state.build.began + state.build.wall_s;
  return Math.max(0, end - state.build.began);
}

// --- drawing ------------------------------------------------------------------------------------

function schedule() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    draw();
  });
}

function draw() {
  const state = shown();
  const running = runningOf(state);
  const counts = tables.count(state.jobs);
  tables.showNow(state, running, counts, lasted(state, running));
  tables.showReport(running.length ? null : state.report);
  tables.showWorkers(live.status, state.jobs);
  tables.showFiles(state.jobs, state.report, counts, meanings, pick);
  drawTimes(state, running);
  by("live").hidden = !opened;
  by("start").hidden = Boolean(state.build);
  for (const section of document.querySelectorAll(".of-a-build")) section.hidden = !state.build;
  // Only what runs moves by itself.
  if (running.length && timer === null) timer = setInterval(() => !document.hidden && tick(), TICK_MS);
  if (!running.length && timer !== null) timer = clearInterval(timer) ?? null;
}

function tick() {
  const state = shown();
  const running = runningOf(state);
  tables.showNow(state, running, tables.count(state.jobs), lasted(state, running));
  drawTimes(state, running);
}

function drawTimes(state, running) {
  const slots = tables.slotsOf(live.status);
  const present = state.isLive ? slots : {};
  const groups = layout(state.jobs, running, now(), { ...present, [HERE]: 0 }, slots);
  gantt.show(groups, state.build?.began ?? 0, lasted(state, running));
}

function viewChanged(view, mode) {
  by("all").setAttribute("aria-pressed", String(mode === "all"));
  by("follow").setAttribute("aria-pressed", String(mode === "follow"));
  const state = shown();
  const count = Object.values(tables.slotsOf(live.status)).reduce((a, b) => a + b, 0);
  const slots = state.isLive ? count : (state.report?.slots ?? 0);
  charts?.show({ origin: state.build?.began ?? 0, jobs: state.jobs, running: runningOf(state) }, view, slots, state.isLive ? sent : []);
}

// --- documents ----------------------------------------------------------------------------------

async function get(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(await response.text());
  return response.json();
}

async function fetchReport(state) {
  if (!state.build) return;
  const report = await get(`builds/${state.build.number}`).catch(() => null);
  if (!report || report.number !== state.build.number) return;
  meanings = { ...meanings, ...report.meanings };
  state.report = report;
  if (state === live) state.build = { ...state.build, is_open: report.is_open };
  schedule();
}

async function fetchBuilds() {
  builds = await get("builds").catch(() => builds);
  showBuilds();
}

function showBuilds() {
  tables.showBuilds(builds, shown().build?.number, live.running.size > 0, chosen, open, choose);
  by("compare").disabled = chosen.length !== 2;
}

function choose(number, isChosen) {
  chosen = chosen.filter((each) => each !== number);
  if (isChosen) chosen = [...chosen, number].slice(-2);
  showBuilds();
}

async function open(number) {
  if (number === live.build?.number) opened = null;
  else {
    const [report, jobs] = await Promise.all([get(`builds/${number}`), get(`builds/${number}/jobs`)]);
    meanings = { ...meanings, ...report.meanings };
    opened = { build: report, jobs, running: new Map(), status: live.status, report, isLive: false };
  }
  by("job").hidden = true;
  showBuilds();
  schedule();
  scrollTo({ top: 0 });
}

async function pick(job) {
  gantt.picked = job;
  gantt.redraw();
  const full = job.row === undefined ? null : await get(`jobs/${job.row}`).catch(() => null);
  if (gantt.picked === job) tables.showJob(job, full, meanings, () => pickNone());
}

function pickNone() {
  gantt.picked = null;
  gantt.redraw();
  by("job").hidden = true;
  by("gantt").focus();
}

// --- events -------------------------------------------------------------------------------------

function take(event) {
  clockOffset = event.now - Date.now() / 1000;
  const before = live.build;
  if (event.build !== undefined) live.build = event.build;
  if (live.build?.number !== before?.number) {
    live.jobs = [];
    live.report = null;
  }
  for (const job of event.jobs ?? []) live.jobs.push(job);
  for (const [key, job] of Object.entries(event.begun ?? {})) {
    const known = live.running.get(key);
    // A job that was on its worker before this page was open has begun at an unknown time.
    const since = known?.since ?? (job.worker && before ? event.now : undefined);
    live.running.set(key, { ...job, since });
  }
  for (const key of event.over ?? []) live.running.delete(String(key));
  if (event.status) {
    live.status = event.status;
    sent.push([event.now, event.status.mirror.sent_bytes + event.status.received_bytes]);
    if (sent.length > MAX_SAMPLES) sent.splice(0, sent.length / 2);
  }
  if (event.trouble !== undefined) {
    by("trouble").textContent = event.trouble;
    by("trouble").hidden = !event.trouble;
  }
  if (live.build?.number !== before?.number || live.build?.is_open !== before?.is_open) fetchBuilds();
  if (event.jobs || event.over || live.build?.number !== before?.number) planReport();
  if (!opened || event.status) schedule();
}

function planReport() {
  const isOver = !live.running.size;
  if (reportTimer !== null && !isOver) return;
  clearTimeout(reportTimer);
  const pause = isOver ? TICK_MS : Math.max(REPORT_MS, 2 * live.jobs.length);
  reportTimer = setTimeout(() => {
    reportTimer = null;
    if (live.jobs.length) fetchReport(live); // else the syncer knows no build of this number yet
    fetchBuilds();
  }, pause);
}

function connect() {
  const source = new EventSource("events");
  const say = (text, isOpen) => {
    by("connection").textContent = text;
    by("connection").classList.toggle("open", isOpen);
  };
  source.onopen = () => {
    // The stream begins with all that there is.
    live.jobs = [];
    live.running.clear();
    live.build = null;
    fetchBuilds();
    say("live", true);
  };
  source.onerror = () => {
    const isOver = source.readyState === EventSource.CLOSED;
    say(isOver ? "ended; run dist_build.exe dashboard again" : "the syncer does not answer; trying again", false);
  };
  source.onmessage = (message) => take(JSON.parse(message.data));
}

by("legend").append(
  ...KINDS.map((kind) => {
    const box = element("span");
    box.style.background = `var(--${kind})`;
    return element("li", {}, [box, kind]);
  }),
);
by("all").addEventListener("click", () => gantt.setMode("all"));
by("follow").addEventListener("click", () => gantt.setMode("follow"));
by("zoom-in").addEventListener("click", () => gantt.zoom(0.5));
by("zoom-out").addEventListener("click", () => gantt.zoom(2));
by("fold").addEventListener("click", () => gantt.foldAll());
by("live").addEventListener("click", () => open(live.build?.number));
by("compare").addEventListener("click", async () => tables.showComparison(await get(`compare/${Math.min(...chosen)}/${Math.max(...chosen)}`)));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  gantt.readColours();
  charts.build();
  schedule();
});
connect();
