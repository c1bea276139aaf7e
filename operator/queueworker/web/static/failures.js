// Failed tasks, the newest first, counted by cause; and, where the server allows it, a button that sends one again.
import { attr, el, keyed, text } from "./dom.js";
import { ago, lastLine, plural } from "./format.js";
import { ask } from "./poll.js";

const PAGE = 20;
const MAX_CAUSES = 5;
const RETRY_MS = 60_000; // Redis and the queue may be slow; whoever gave up earlier would not know what became of the task

/** The same for errors that differ in numbers and ids only. */
function cause(error) {
  return lastLine(error).replace(/[0-9a-f]{8,}|\d+/gi, "…").slice(0, 160) || "no error was kept";
}

export class Failures {
  constructor(path) {
    this.path = path;
    this.causes = el("ul", { class: "causes" });
    this.items = el("ol", { class: "failures" });
    this.none = el("p", { class: "quiet" });
    this.token = ""; // kept in memory only
    this.field = el("input", { type: "password", autocomplete: "off" });
    this.field.addEventListener("input", () => (this.token = this.field.value));
    this.access = el("label", { class: "token", hidden: "" }, "Token for Retry ", this.field);
    this.result = el("p", { role: "status", class: "result" });
    this.node = el("section", {}, el("h2", {}, "Failed tasks"), this.none, this.causes, this.access, this.result, this.items);
  }

  update(detail, now) {
    const { failures } = detail;
    this.access.hidden = !detail.actions || !failures.length;
    const shown = { Off: "The operator does not show failed tasks (WEB_FAILURES).", Full: "None since the router started." };
    text(this.none, failures.length ? "" : shown[detail.failures_shown] ?? shown.Full);
    const causes = new Map();
    if (detail.failures_shown === "Full") for (const { error } of failures) causes.set(cause(error), (causes.get(cause(error)) ?? 0) + 1);
    const most = [...causes].sort((a, b) => b[1] - a[1]).slice(0, MAX_CAUSES);
    keyed(this.causes, most, ([name]) => name, ([name]) => el("li", {}, el("b"), ` × ${name}`),
      (item, [, times]) => text(item.firstChild, times));
    keyed(this.items, failures.slice(0, PAGE), (f) => `${f.eval_id} ${f.time}`, (f) => this.item(f, detail), (item, f) =>
      text(item.querySelector(".when"), ago(f.time, now)));
  }

  item(failure, detail) {
    const about = `${failure.executor || "no executor"}, ${plural(failure.attempts, "attempt")}${failure.ambiguous ? ", may have run" : ""}`;
    const parts = [el("code", {}, failure.eval_id), " ", el("span", { class: "when quiet" }), ` ${about}`];
    const body = failure.error
      ? el("details", {}, el("summary", {}, ...parts, el("span", { class: "last" }, lastLine(failure.error))),
        el("pre", { tabindex: "0" }, failure.error))
      : el("p", {}, ...parts);
    const item = el("li", {}, body);
    if (detail.actions) item.append(this.button(failure));
    return item;
  }

  button(failure) {
    const button = el("button", { type: "button" }, "Retry");
    attr(button, "aria-label", `Retry ${failure.eval_id}`);
    button.addEventListener("click", () => void this.retry(failure, button));
    return button;
  }

  async retry(failure, button) {
    const again = failure.ambiguous && !confirm(`${failure.eval_id} may have run already, and would run twice. Send it again?`);
    if (again) return;
    button.disabled = true;
    const path = `${this.path}/failures/${encodeURIComponent(failure.eval_id)}/retry?ambiguous=${failure.ambiguous}`;
    const signal = AbortSignal.timeout(RETRY_MS);
    const said = await ask(path, { method: "POST", headers: { Authorization: `Bearer ${this.token}` }, signal })
      .then(({ body }) => body.message, (error) => error.message);
    text(this.result, `${failure.eval_id}: ${said}`);
    button.disabled = false;
  }
}
