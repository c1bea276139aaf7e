// Asks again a second after each answer; less often while there is none; not at all while the page is hidden or paused.

export const STALE_MS = 3000;
const PERIOD_MS = 1000;
const TIMEOUT_MS = 5000;
const BACKOFF_MS = [1000, 2000, 4000, 8000];

/** The JSON of a path below the page, and when the server said it. Throws an Error in words. */
export async function ask(path, options = {}) {
  const answer = await fetch(path, { signal: AbortSignal.timeout(TIMEOUT_MS), ...options });
  const body = await answer.json().catch(() => ({}));
  const by = answer.headers.get("x-answered-by");
  if (!answer.ok) throw Object.assign(new Error(body.detail ?? `HTTP ${answer.status}`), { status: answer.status, by });
  // After a 304 the browser gives us the body that it has, with the new Date.
  const date = Date.parse(answer.headers.get("date") ?? "") / 1000;
  const now = Math.max(body.time ?? 0, date || 0);
  return { body, now, by, version: answer.headers.get("x-page-version") };
}

export class Poller {
  constructor(work, onChange) {
    this.work = work;
    this.onChange = onChange;
    this.paused = false;
    this.failures = 0;
    this.problem = ""; // what an answer without data said
    this.problemBy = null; // and who said it
    this.answeredAt = null; // performance.now() of the last answer with data
    this.answeredDate = null;
    this.nextAt = null;
    this.running = false;
    this.again = false; // something else is to be asked for than what is under way
    document.addEventListener("visibilitychange", () => this.soon());
  }

  /** Ask at once, unless hidden or paused. */
  soon() {
    clearTimeout(this.timer);
    this.nextAt = null;
    this.again = this.running;
    if (!document.hidden && !this.paused && !this.running) void this.turn();
  }

  pause(paused) {
    this.paused = paused;
    this.soon();
    this.onChange();
  }

  get stale() {
    return this.answeredAt === null ? this.failures > 0 : performance.now() - this.answeredAt > STALE_MS;
  }

  async turn() {
    this.running = true;
    try {
      await this.work();
      this.failures = 0;
      this.problem = "";
      this.answeredAt = performance.now();
      this.answeredDate = new Date();
    } catch (error) {
      this.failures += 1;
      this.problem = error.status ? error.message : "";
      this.problemBy = error.by ?? null;
    }
    this.running = false;
    const wait = this.failures
      ? BACKOFF_MS[Math.min(this.failures, BACKOFF_MS.length) - 1] * (0.8 + 0.4 * Math.random())
      : this.again
        ? 0
        : PERIOD_MS;
    this.again = false;
    clearTimeout(this.timer);
    if (!document.hidden && !this.paused) {
      this.nextAt = performance.now() + wait;
      this.timer = setTimeout(() => this.soon(), wait);
    }
    this.onChange();
  }
}
