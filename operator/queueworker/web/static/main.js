// Wires the page: what is asked for, which of the two views is shown, keys, theme, and what the bar says.
import { attr, store, stored, text } from "./dom.js";
import { Detail } from "./detail.js";
import { clock, duration } from "./format.js";
import { emptiness, List } from "./list.js";
import { ask, Poller } from "./poll.js";

const NEWS_MS = 5000;
const HISTORY_MS = 5000;
const THEMES = ["auto", "light", "dark"];
const root = document.documentElement;
const $ = (id) => document.getElementById(id);
const list = new List((sentence) => news.add(sentence));
const news = new Set();
let overview = null;
let answered = { by: null };
let boot = "";
let historyAt = -Infinity;
let detail = null;
let emptyFor = "";

// --- what is asked for

async function work() {
  const open = detail;
  const [all, one] = await Promise.all([ask("api/overview"), open ? ask(path(open.name)).catch((error) => ({ error })) : null]);
  take(all);
  if (open && open === detail) showDetail(open, one);
  if (boot !== overview.boot || list.gap) await takeHistory();
}

function path(name) {
  return `api/objects/${name.split("/").map(encodeURIComponent).join("/")}`;
}

function take(answer) {
  overview = answer.body;
  answered = answer;
  const rows = overview.objects.map((values) => Object.fromEntries(overview.fields.map((field, n) => [field, values[n]])));
  list.gap = list.take(rows);
  const key = `${overview.objects.length} ${list.rows.childElementCount} ${overview.namespaces} ${overview.ready}`;
  if (key !== emptyFor) $("empty").replaceChildren(...emptiness(overview, list.rows.childElementCount));
  emptyFor = key;
  if (answer.version && answer.version !== root.dataset.version) $("reload").hidden = false;
}

async function takeHistory() {
  if (performance.now() - historyAt < HISTORY_MS) return;
  historyAt = performance.now();
  const { body } = await ask("api/sparklines");
  boot = body.boot;
  list.takeHistory(body.objects);
  list.render();
}

function showDetail(open, answer) {
  if (!answer.error) open.update(answer.body, answer.now);
  else if (answer.error.status === 404) open.missing(overview);
  else throw answer.error;
}

// --- the two views

function route() {
  const name = decodeURIComponent(location.hash.replace(/^#\/?/, ""));
  const back = detail?.name;
  detail = name ? new Detail(name, path(name)) : null;
  $("list").hidden = Boolean(detail);
  $("object").hidden = !detail;
  $("object").replaceChildren(...(detail ? [detail.node] : []));
  document.title = name ? `${name} · QueueWorkers` : "QueueWorkers";
  if (detail) $("main").focus({ preventScroll: true });
  else if (back) list.lines.get(back)?.link.focus();
  if (detail) window.scrollTo(0, 0);
  poller.soon();
}

// --- the bar

function tell() {
  const { answeredAt, paused } = poller;
  const age = answeredAt === null ? null : (performance.now() - answeredAt) / 1000;
  const stale = !paused && !document.hidden && poller.stale && poller.failures > 0;
  text($("age"), paused ? `Paused, ${age === null ? "nothing yet" : `${duration(Math.floor(age))} old`}` : ageInWords(age, stale));
  root.classList.toggle("stale", stale);
  $("list").classList.toggle("none", !overview?.objects.length);
  notice(stale);
  if (!overview) text($("empty"), stale ? "No QueueWorkers can be shown yet." : "Asking for the QueueWorkers…");
  else text($("about"), `${overview.kind === "worker" ? "Worker" : "Operator"} ${overview.version}${stale ? "" : `: ${overview.reason}`}.`);
}

/** What is wrong with the answers. The countdown is outside of what is read aloud. */
function notice(stale) {
  const unready = overview && !overview.ready;
  $("notice").hidden = !stale && !unready;
  const [said, next] = $("notice").children;
  text(said, stale ? staleInWords(poller) : unready ? `Not ready: ${overview.reason}.` : "");
  const seconds = Math.max(1, Math.ceil((poller.nextAt - performance.now()) / 1000));
  text(next, stale && poller.nextAt !== null ? `Next try in ${seconds} s.` : "");
}

function staleInWords({ answeredDate, problem }) {
  const since = answeredDate && clock(answeredDate);
  if (problem) return `${problem}. ${since ? `What you see is from ${since}.` : ""}`;
  return since ? `No answer since ${since}. What you see is from then.` : "No answer yet.";
}

function ageInWords(age, stale) {
  const standby = poller.problemBy;
  if (age === null || !overview) return stale && standby ? `No data yet; ${standby} answers` : "Asking…";
  const how = `${age < 1.5 ? "1 s" : duration(Math.round(age))} ago from ${overview.identity}`;
  if (stale) return standby ? `${how}; ${standby} answers` : how;
  if (overview.kind === "worker") return how;
  return `${how} (leader)${answered.by && answered.by !== overview.identity ? `, through ${answered.by} (standby)` : ""}`;
}

function announce() {
  if (!news.size) return;
  const sentences = [...news];
  news.clear();
  text($("news"), sentences.length > 5 ? `${sentences.length} QueueWorkers have changed` : `${sentences.join(". ")}.`);
}

// --- what a person does

function setTheme(theme) {
  if (theme === "auto") delete root.dataset.theme;
  else root.dataset.theme = theme;
  text($("theme"), `Theme: ${theme}`);
  store("theme", theme);
}

function setPaused(paused) {
  attr($("pause"), "aria-pressed", String(paused));
  text($("pause"), paused ? "Go on" : "Pause");
  poller.pause(paused);
}

const KEYS = {
  "/": () => $("filter").focus(),
  j: () => list.step(1),
  k: () => list.step(-1),
  p: () => setPaused(!poller.paused),
  "?": () => $("keys").showModal(),
};

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || $("keys").open) return;
  const typing = event.target.matches("input, textarea, select");
  if (event.key === "Escape") {
    if (typing) event.target.blur();
    else if (detail) location.hash = "#/";
    return;
  }
  const action = KEYS[event.key];
  if (!action || typing || detail || stored("keys", "on") !== "on") return;
  event.preventDefault();
  action();
}

const poller = new Poller(work, tell);
setTheme(THEMES.includes(stored("theme", "auto")) ? stored("theme", "auto") : "auto");
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the part after # is ours
  $("main").focus();
});
$("theme").addEventListener("click", () => setTheme(THEMES[(THEMES.indexOf(root.dataset.theme ?? "auto") + 1) % THEMES.length]));
$("pause").addEventListener("click", () => setPaused(!poller.paused));
$("help").addEventListener("click", () => $("keys").showModal());
$("reload").addEventListener("click", () => location.reload());
$("filter").addEventListener("input", (event) => list.show({ filter: event.target.value }));
$("keys-on").checked = stored("keys", "on") === "on";
$("keys-on").addEventListener("change", (event) => store("keys", event.target.checked ? "on" : "off"));
document.addEventListener("keydown", onKey);
window.addEventListener("hashchange", route);
setInterval(tell, 500);
setInterval(announce, NEWS_MS);
route();
