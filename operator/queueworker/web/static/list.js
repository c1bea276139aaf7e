// All QueueWorkers, the worst first. Only lines that are on the screen are kept up to date.
import { attr, el, keyed, text } from "./dom.js";
import { count, duration, EXECUTORS, LEVELS, worstFirst } from "./format.js";
import { Sparkline } from "./plots.js";

const MAX_TILES = 24;
const SPARK_POINTS = 60;
const LINKS = ["queue", "events", "journal"];
const SIGNS = { "+": ["●", "connected", "ok"], "-": ["✕", "down", "error"], "?": ["○", "not known", "off"] };

export function href(name) {
  return `#/${name.split("/").map(encodeURIComponent).join("/")}`;
}

/** A badge of a level: shape, colour and word. */
export function badge(level, word) {
  const node = el("span", { class: "badge" }, el("span", { "aria-hidden": "true" }), " ", el("span"));
  setBadge(node, level, word);
  return node;
}

export function setBadge(node, level, word) {
  attr(node, "class", `badge ${level}`);
  text(node.firstChild, LEVELS[level].glyph);
  text(node.lastChild, word);
}

function cell(kind, label, ...children) {
  return el("span", { class: `cell ${kind}` }, el("span", { class: "label" }, label), " ", ...children);
}

class Line {
  constructor(name) {
    this.name = name;
    this.link = el("a", { href: href(name), class: "name", title: name }, name);
    this.badge = badge("off", "");
    this.why = el("span", { class: "why" });
    this.numbers = Object.fromEntries(["rate", "p95", "queued", "used", "failed", "moved"].map((n) => [n, el("b")]));
    this.rate = new Sparkline();
    this.p95 = new Sparkline();
    this.tiles = el("span", { class: "tiles", "aria-hidden": "true" });
    this.pool = el("span", { class: "hidden" });
    this.links = LINKS.map((peer) => el("span", { class: "link", title: peer }, el("span", { "aria-hidden": "true" }), " ", peer, el("span", { class: "hidden" })));
    const { rate, p95, queued, used, failed, moved } = this.numbers;
    this.node = el("li", { class: "line-item" },
      el("span", { class: "cell state" }, this.link, el("span", { class: "about" }, this.badge, " ", this.why)),
      cell("rate", "Tasks/min", rate, this.rate.node), cell("p95", "p95", p95, this.p95.node),
      cell("queued", "Queued", queued), cell("used", "In use", used),
      cell("pool", "Executors", this.pool, this.tiles), cell("failed", "Failed/min", failed),
      cell("links", "Connections", ...this.links), cell("moved", "Migration", moved));
    this.node.line = this;
    this.visible = false;
    this.drawn = {};
  }

  update(row, spark) {
    this.row = row;
    this.spark = spark;
    if (this.visible) this.draw();
  }

  draw() {
    const { row, numbers } = this;
    if (!row) return;
    setBadge(this.badge, row.level, row.reason);
    text(this.why, row.why);
    text(numbers.rate, count(row.tasks_per_minute));
    text(numbers.p95, duration(row.p95_seconds));
    text(numbers.queued, count(row.queued));
    text(numbers.used, `${count(row.in_use)}/${count(row.capacity)}`);
    text(numbers.failed, count(row.failed_per_minute));
    attr(numbers.failed, "class", row.failed_per_minute ? "bad" : null);
    text(numbers.moved, row.migration.replace(" %", "\u00a0%") || "none");
    this.drawn.executors !== row.executors && this.drawTiles(row.executors);
    this.drawn.links !== row.links && this.drawLinks(row.links);
    const key = `${this.spark?.points}`;
    if (this.spark && this.drawn.spark !== key) {
      this.rate.draw(this.spark.rates);
      this.p95.draw(this.spark.p95s);
      this.drawn.spark = key;
    }
  }

  drawTiles(executors) {
    this.drawn.executors = executors;
    const all = executors ? executors.split(" ") : [];
    const some = all.length > MAX_TILES ? worstFirst(all, stateOf).slice(0, MAX_TILES) : all;
    keyed(this.tiles, some.map((tile, index) => [index, tile]), ([index]) => index,
      () => el("span", {}, ""), (node, [, tile]) => drawTile(node, tile));
    attr(this.tiles, "data-more", all.length > MAX_TILES ? `and ${all.length - MAX_TILES} more` : null);
    text(this.pool, poolInWords(all));
  }

  drawLinks(signs) {
    this.drawn.links = signs;
    this.links.forEach((node, index) => {
      const [glyph, word, level] = SIGNS[signs[index]] ?? SIGNS["?"];
      attr(node, "class", `link ${level}`);
      attr(node, "title", `${LINKS[index]}: ${word}`);
      text(node.firstChild, glyph);
      text(node.lastChild, `: ${word}`);
    });
  }
}

function stateOf(tile) {
  return EXECUTORS[tile[0]] ?? EXECUTORS.c;
}

function drawTile(node, tile) {
  const found = stateOf(tile);
  const slots = tile.slice(1);
  const [used, capacity] = slots.split("/").map(Number);
  const filled = capacity ? Math.min(4, Math.ceil((4 * used) / capacity)) : 0;
  attr(node, "class", `tile ${found.level} fill-${filled}`);
  text(node, `${found.glyph} ${slots}`);
  attr(node, "title", `${found.word}, ${slots} in use`);
}

function poolInWords(tiles) {
  const counts = new Map();
  for (const tile of tiles) counts.set(tile[0], (counts.get(tile[0]) ?? 0) + 1);
  return [...counts].map(([letter, number]) => `${number} ${stateOf(letter).word}`).join(", ") || "none";
}

export class List {
  constructor(announce) {
    this.announce = announce;
    this.lines = new Map();
    this.sparks = new Map();
    this.levels = new Map();
    this.filter = "";
    this.level = "";
    this.order = "";
    this.rows = document.getElementById("rows");
    this.counts = document.getElementById("counts");
    this.buttons = Object.fromEntries(Object.entries(LEVELS).map(([level, { glyph, word }]) => {
      const button = el("button", { type: "button", class: `count ${level}`, "aria-pressed": "false" },
        el("span", { "aria-hidden": "true" }, glyph), " ", el("b"), ` ${word}`);
      button.addEventListener("click", () => this.show({ level: this.level === level ? "" : level }));
      return [level, button];
    }));
    this.counts.append(...Object.values(this.buttons));
    this.seen = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) {
        target.line.visible = isIntersecting;
        if (isIntersecting) target.line.draw();
      }
    }, { rootMargin: "600px" });
  }

  /** True when the history of an object is missing, or has a gap. */
  take(rows) {
    this.all = rows;
    let gap = false;
    for (const row of rows) gap = this.extend(row) || gap;
    this.tellChanges(rows);
    this.render();
    return gap;
  }

  takeHistory(objects) {
    for (const [name, [rates, p95s]] of Object.entries(objects)) {
      const points = this.all.find((row) => row.name === name)?.points ?? 0;
      this.sparks.set(name, { rates, p95s, points });
    }
  }

  extend(row) {
    const spark = this.sparks.get(row.name);
    if (!spark) return row.points > 0;
    if (row.points === spark.points + 1) {
      spark.rates = [...spark.rates, row.point_rate].slice(-SPARK_POINTS);
      spark.p95s = [...spark.p95s, row.p95_seconds].slice(-SPARK_POINTS);
      spark.points = row.points;
    }
    return row.points !== spark.points;
  }

  tellChanges(rows) {
    const first = this.levels.size === 0;
    for (const { name, level, reason } of rows) {
      if (!first && this.levels.get(name) !== `${level} ${reason}`) this.announce(`${name} is ${reason}, ${LEVELS[level].word}`);
      this.levels.set(name, `${level} ${reason}`);
    }
  }

  show(changed) {
    Object.assign(this, changed);
    this.order = "";
    if (this.all) this.render();
  }

  render() {
    for (const [level, button] of Object.entries(this.buttons)) {
      text(button.querySelector("b"), count(this.all.filter((row) => row.level === level).length));
      attr(button, "aria-pressed", String(this.level === level));
    }
    const wanted = this.all.filter((row) => this.wants(row))
      .sort((a, b) => LEVELS[a.level].rank - LEVELS[b.level].rank || (a.name < b.name ? -1 : 1));
    for (const row of wanted) this.lineOf(row.name).update(row, this.sparks.get(row.name));
    const order = wanted.map((row) => row.name).join("\n");
    if (order !== this.order && (this.order === "" || !this.busy || wanted.length !== this.rows.childElementCount)) {
      this.order = order;
      this.rows.replaceChildren(...wanted.map((row) => this.lineOf(row.name).node));
    }
    for (const name of this.lines.keys()) if (!this.all.some((row) => row.name === name)) this.forget(name);
  }

  /** Under the pointer, or with the focus, lines stay where they are. */
  get busy() {
    return this.rows.matches(":hover") || this.rows.contains(document.activeElement);
  }

  wants(row) {
    const found = `${row.name} ${row.reason} ${row.why}`.toLowerCase();
    return (!this.level || row.level === this.level) && found.includes(this.filter.toLowerCase());
  }

  lineOf(name) {
    let line = this.lines.get(name);
    if (!line) {
      this.lines.set(name, (line = new Line(name)));
      this.seen.observe(line.node);
    }
    return line;
  }

  forget(name) {
    this.seen.unobserve(this.lines.get(name).node);
    this.lines.delete(name);
    this.sparks.delete(name);
    this.levels.delete(name);
  }

  /** Moves the focus to the next (1) or the previous (-1) QueueWorker. */
  step(by) {
    const links = [...this.rows.querySelectorAll("a.name")];
    const now = links.indexOf(document.activeElement);
    links[Math.max(0, Math.min(links.length - 1, now + by))]?.focus();
  }
}

/** What stands in place of an empty list. */
export function emptiness(overview, wanted) {
  if (overview.objects.length) return wanted ? [] : [el("p", {}, "No QueueWorker matches the filter.")];
  if (!overview.ready) return [el("p", {}, "No QueueWorkers can be shown yet.")];
  const where = overview.namespaces.length ? `the namespaces ${overview.namespaces.join(", ")}` : "all namespaces";
  const yaml = "apiVersion: crucible.dev/v1alpha1\nkind: QueueWorker\nmetadata: {name: legacy}\nspec:\n  queue: {url: http://queue:8081}\n  executors: {count: 3}\n";
  return [
    el("h2", {}, "No QueueWorker yet"), el("p", {}, `The operator watches ${where}. Make one:`),
    el("pre", { tabindex: "0" }, `kubectl apply -f - <<EOF\n${yaml}EOF`),
  ];
}
