// Lines from zero to the largest value, with gaps where there is no value.
import { attr, el, keyed, svg, text } from "./dom.js";
import { clock, NONE } from "./format.js";

/** The `d` of an SVG path; null is a gap. A lone point is a short stroke. */
function path(values, most, width, height, slots) {
  const step = width / (slots - 1);
  const first = slots - values.length;
  let made = "";
  let drawing = false;
  values.forEach((value, index) => {
    if (value === null) {
      drawing = false;
      return;
    }
    const x = ((first + index) * step).toFixed(1);
    const y = (height - (value / most) * height).toFixed(1);
    made += `${drawing ? "L" : "M"}${x} ${y}`;
    if (!drawing && (values[index + 1] ?? null) === null) made += "h.1";
    drawing = true;
  });
  return made;
}

export function largest(...series) {
  return Math.max(0, ...series.flat().filter((value) => value !== null));
}

/** A rounded-up end for an axis: 1, 2 or 5 times a power of ten, and such. */
function nice(most) {
  if (most <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(most));
  return [1, 1.5, 2, 3, 5, 7.5, 10].map((factor) => factor * power).find((end) => end >= most * 0.999);
}

const SPARK = { width: 72, height: 20, slots: 60 };

/** A sparkline; the number beside it says what it shows. */
export class Sparkline {
  constructor() {
    this.line = svg("path", { class: "line", transform: "translate(1 1)" });
    const box = `0 0 ${SPARK.width + 2} ${SPARK.height + 2}`;
    this.node = svg("svg", { class: "spark", viewBox: box, "aria-hidden": "true", focusable: "false" }, this.line);
  }

  draw(values) {
    attr(this.line, "d", path(values, largest(values) || 1, SPARK.width, SPARK.height, SPARK.slots));
  }
}

const PLOT = { width: 360, height: 96, slots: 120 };

/**
 * A plot of named series, with a legend and the same as a table. `show` formats a value; `kind` is a class; `present`
 * makes the legend's value of a series.
 */
export class Plot {
  constructor(title, names, show, { kind = "", present = (values) => values[values.length - 1] } = {}) {
    this.names = names;
    this.show = show;
    this.present = present;
    this.lines = names.map((_, index) => svg("path", { class: `line line-${index}` }));
    this.most = el("span", { class: "most" });
    const { width, height } = PLOT;
    const grid = [0, 0.5, 1].map((part) => svg("path", { class: "grid", d: `M0 ${height * part}h${width}` }));
    const view = { viewBox: `0 -2 ${width} ${height + 4}`, preserveAspectRatio: "none", role: "img", "aria-label": title };
    const legend = names.map((name, index) =>
      el("li", {}, el("span", { class: `key key-${index}`, "aria-hidden": "true" }), name, " ", el("b")),
    );
    this.values = legend.map((item) => item.lastChild);
    this.rows = el("tbody");
    this.table = el("details", {}, el("summary", {}, "Show as table"));
    this.head = el("tr", {}, el("th", { scope: "col" }, "Time"), ...names.map((n) => el("th", { scope: "col" }, n)));
    this.table.append(el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `${title}, as a table` },
      el("table", {}, el("thead", {}, this.head), this.rows)));
    this.node = el("figure", { class: kind },
      el("figcaption", {}, title), el("ul", { class: "legend" }, ...legend),
      el("div", { class: "frame" }, this.most, svg("svg", view, ...grid, ...this.lines)),
      el("div", { class: "axis", "aria-hidden": "true" }, el("span", {}, "10 min ago"), el("span", {}, "now")), this.table);
  }

  /** `series` are as long as each other; the newest point is of `now` (a Date), `seconds` after the one before. */
  draw(series, seconds, now) {
    const end = nice(largest(...series));
    text(this.most, this.show(end));
    series.forEach((values, index) => {
      attr(this.lines[index], "d", path(values, end, PLOT.width, PLOT.height, PLOT.slots));
      text(this.values[index], values.length ? this.show(this.present(values)) : NONE);
    });
    if (this.table.open) this.tabulate(series, seconds, now);
  }

  tabulate(series, seconds, now) {
    const points = series[0].map((_, index) => index).reverse();
    keyed(this.rows, points, (index) => index,
      () => el("tr", {}, el("th", { scope: "row" }), ...this.names.map(() => el("td"))),
      (row, index) => {
        text(row.firstChild, clock(new Date(now - (series[0].length - 1 - index) * seconds * 1000)));
        series.forEach((values, n) => text(row.children[n + 1], this.show(values[index])));
      });
  }
}
