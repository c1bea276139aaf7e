// One QueueWorker in depth.
import { attr, el, keyed, text } from "./dom.js";
import { Failures } from "./failures.js";
import { ago, byState, count, duration, LEVELS, NONE, worstFirst } from "./format.js";
import { badge, setBadge } from "./list.js";
import { Plot } from "./plots.js";

const MAX_LOG = 40;
const MAX_EXECUTORS = 20; // until a button shows all
const STAGES = [
  ["queued", "Queued", "wait in the queue; asked every 15 s"],
  ["pulled", "Pulled", "wait for a slot or a health check"],
  ["executing", "Executing", "run on an executor"],
  ["to_report", "To report", "have ended; the queue does not know yet"],
  ["to_publish", "To publish", "events that wait for Redis"],
];
const FACTS = ["Tasks/min", "Failed/min", "p50", "p95", "In flight", "Completed", "Failed", "Retried", "Recovered"];
const perMinute = (value) => (value === null ? NONE : `${count(value)}/min`);

/** A point is a rate of 5 s, which jumps; beside the plot stands that of a minute, as in the facts. */
function ofLastMinute(values) {
  const known = values.slice(-12).filter((value) => value !== null);
  return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
}

function section(title, ...children) {
  return el("section", {}, el("h2", {}, title), ...children);
}

/** A table whose cells say their column, for narrow screens. Roles, because CSS takes them away there. */
function table(label, columns) {
  const body = el("tbody", { role: "rowgroup" });
  const head = el("tr", { role: "row" }, ...columns.map((name) => el("th", { role: "columnheader", scope: "col" }, name)));
  const node = el("table", { role: "table", "aria-label": label, class: `stacked ${label.toLowerCase()}` }, el("thead", { role: "rowgroup" }, head), body);
  const row = () => el("tr", { role: "row" }, ...columns.map((name) => el("td", { role: "cell", "data-label": name }, el("span"))));
  const set = (tr, values) => values.forEach((value, n) => text(tr.children[n].firstChild, value));
  return { node, body, row, set };
}

export class Detail {
  constructor(name, path) {
    this.name = name;
    this.badge = badge("off", "…");
    this.why = el("p", { class: "why" }, "No data yet.");
    this.problems = el("ul", { class: "problems" });
    this.advice = section("What is wrong, and what to do", this.problems);
    this.advice.hidden = true;
    this.facts = FACTS.map(() => el("dd", {}, NONE));
    this.stages = STAGES.map(([, label, title]) => el("li", {}, el("b", {}, NONE), el("span", {}, label), el("small", {}, title)));
    this.plots = [
      new Plot("Tasks a minute", ["completed", "failed"], perMinute, { kind: "bad-line", present: ofLastMinute }),
      new Plot("Time on an executor", ["p50", "p95"], duration),
      new Plot("Slots", ["in use", "of the healthy executors"], count),
    ];
    this.links = table("Connections", ["Connection", "State", "About"]);
    this.executors = table("Executors", ["Executor", "State", "In use", "Checked", "Last failure"]);
    this.all = el("button", { type: "button", hidden: "" });
    this.all.addEventListener("click", () => {
      this.wantsAll = true;
      this.showExecutors();
    });
    this.failures = new Failures(path);
    this.log = el("ol", { class: "log" });
    this.noLog = el("p", { class: "quiet" }, "Nothing has changed since the router started.");
    this.conditions = table("Conditions", ["Condition", "Status", "Reason", "Since", "Message"]);
    this.moved = el("p");
    this.rest = el("div", { class: "columns-2" },
      section("Pipeline", el("ol", { class: "pipeline" }, ...this.stages)),
      el("dl", { class: "facts" }, ...FACTS.map((label, n) => el("div", {}, el("dt", {}, label), this.facts[n]))),
      section("The last ten minutes", el("div", { class: "plots" }, ...this.plots.map((plot) => plot.node))),
      section("Executors", this.executors.node, this.all), section("Connections", this.links.node), this.failures.node,
      section("What has changed", this.noLog, this.log), section("Conditions", this.conditions.node),
      section("Migration", this.moved));
    this.rest.hidden = true;
    this.node = el("div", {},
      el("p", { class: "back" }, el("a", { href: "#/" }, "← All QueueWorkers")),
      el("h1", {}, this.badge, " ", name), this.why, this.advice, this.rest);
  }

  /** There is no such object, as far as the operator knows. */
  missing({ ready }) {
    setBadge(this.badge, "off", "unknown");
    text(this.why, ready
      ? `There is no QueueWorker ${this.name}: it was deleted, its name is another one, or its namespace is not watched.`
      : "It is not known yet whether there is such a QueueWorker.");
    this.advice.hidden = this.rest.hidden = true;
  }

  update(detail, now) {
    this.rest.hidden = false;
    setBadge(this.badge, detail.state.level, detail.state.reason);
    text(this.why, detail.state.why || "All is well.");
    this.advice.hidden = detail.problems.length === 0;
    keyed(this.problems, detail.problems, (p) => p.condition.type, () => el("li", {}, el("b"), " ", el("span"), " ", el("em")),
      (item, { condition, advice }) => {
        text(item.children[0], `${condition.type}: ${condition.reason}.`);
        text(item.children[1], condition.message);
        text(item.children[2], advice);
      });
    this.failures.update(detail, now);
    this.showLog(detail, now);
    this.showConditions(detail.conditions, now);
    this.showMigration(detail.migration, now);
    if (detail.router) this.showRouter(detail.router, now);
    if (detail.history) this.showHistory(detail.history, now);
  }

  showRouter({ tasks, queue, events, journal, executors }, now) {
    const values = [tasks.per_minute, tasks.failed_per_minute, null, null, tasks.in_flight, tasks.completed, tasks.failed, tasks.retried, tasks.recovered];
    this.facts.forEach((node, n) => text(node, count(values[n])));
    text(this.facts[2], duration(tasks.p50_seconds));
    text(this.facts[3], duration(tasks.p95_seconds));
    const stages = { queued: queue.depth, ...tasks.pipeline };
    STAGES.forEach(([field], n) => text(this.stages[n].firstChild, count(stages[field])));
    const dropped = events.dropped ? `, ${count(events.dropped)} dropped` : "";
    const rows = [
      ["Queue", queue, queue.url],
      ["Events", events, `${count(events.published)} published${dropped}`],
      ["Journal", journal, "what is in flight, for a successor"],
    ];
    keyed(this.links.body, rows, ([name]) => name, this.links.row, (tr, [name, link, about]) =>
      this.links.set(tr, [name, `${link.connected ? "●" : link.reason === "Unknown" ? "○" : "✕"} ${link.reason}`, link.message || about]));
    this.pool = { executors: worstFirst(executors, (e) => byState[e.state]), now };
    this.showExecutors();
  }

  showExecutors() {
    const { executors, now } = this.pool;
    const some = this.wantsAll ? executors : executors.slice(0, MAX_EXECUTORS);
    keyed(this.executors.body, some, (e) => `${e.name} ${e.url}`, this.executors.row, (tr, e) => this.showExecutor(tr, e, now));
    this.all.hidden = some.length === executors.length;
    text(this.all, `Show all ${count(executors.length)} executors`);
  }

  showExecutor(tr, executor, now) {
    const found = byState[executor.state];
    const until = executor.ejected_until ? `, back in ${Math.max(0, Math.ceil(executor.ejected_until - now))} s` : "";
    const failures = executor.failures.map(({ time, reason }) => `${ago(time, now)}: ${reason}`);
    const last = failures[0] ?? executor.reason;
    this.executors.set(tr, [executor.name, `${found.glyph} ${found.word}${until}`, `${executor.in_flight}/${executor.capacity}`,
      ago(executor.last_check_time, now), last || "none"]);
    attr(tr.children[0], "title", executor.url);
    attr(tr.children[1].firstChild, "class", `mark ${found.level}`);
    attr(tr.children[4], "title", failures.join("\n") || null);
  }

  showHistory({ series, point_seconds: seconds }, now) {
    const at = new Date(now * 1000);
    this.plots[0].draw([series.completed_per_minute, series.failed_per_minute], seconds, at);
    this.plots[1].draw([series.p50_seconds, series.p95_seconds], seconds, at);
    this.plots[2].draw([series.in_use, series.capacity], seconds, at);
  }

  showLog({ events, transitions }, now) {
    const entries = [
      ...events.map((e) => ({ time: e.time, bad: e.type === "Warning", what: e.reason, message: e.message })),
      ...transitions.map((t) => ({ time: t.time, bad: !t.well, what: t.subject.replace(/^executor (?=executor)/, ""), message: t.well ? "recovered" : t.message })),
    ].sort((a, b) => b.time - a.time).slice(0, MAX_LOG);
    this.noLog.hidden = entries.length > 0;
    keyed(this.log, entries, (e) => `${e.time} ${e.what}`,
      (e) => el("li", { class: e.bad ? "error" : "ok" }, el("span", { class: "when quiet" }), " ",
        el("span", { "aria-hidden": "true" }, LEVELS[e.bad ? "error" : "ok"].glyph), " ", el("b", {}, e.what), ` ${e.message}`),
      (item, e) => text(item.firstChild, ago(e.time, now)));
  }

  showConditions(conditions, now) {
    keyed(this.conditions.body, conditions, (c) => c.type, this.conditions.row, (tr, c) =>
      this.conditions.set(tr, [c.type, c.status, c.reason, ago(c.since, now), c.message || NONE]));
  }

  showMigration(migration, now) {
    const since = migration?.standby_since ? `, on standby since ${ago(migration.standby_since, now)}` : "";
    text(this.moved, migration ? `${migration.phase}: ${migration.celery_percent} % of the traffic goes to Celery${since}.` : "Not known.");
  }
}
