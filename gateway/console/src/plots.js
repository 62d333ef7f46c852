// Lag and throughput over the last minutes.

import uPlot from "uplot";
import { cluster, onLook } from "./cluster.js";
import { colourOf, colourValueOf, valueOf } from "./colours.js";
import { $, el, say } from "./dom.js";
import { rate, time } from "./format.js";

const HEIGHT = 168;
/** Seconds shown: at first the fewer, in the end the more. */
const SPAN = [60, 300];

/** A plot whose lines may come and go. `lines()` gives them: key, name, colour, value for canvases, points. */
class Plot {
  constructor(name, format, top, lines) {
    this.element = $(`${name}-plot`);
    this.readout = $(`${name}-readout`);
    this.format = format;
    this.top = top;
    this.lines = lines;
    this.shown = "";
    new ResizeObserver(() => this.plot?.setSize({ width: this.element.clientWidth, height: HEIGHT })).observe(this.element);
  }

  update() {
    const lines = this.lines();
    const shape = JSON.stringify(lines.map(({ key, value }) => [key, value])) + valueOf("--ink");
    if (shape !== this.shown) {
      this.shown = shape;
      this.plot?.destroy();
      this.plot = this.made(lines);
    }
    this.current = lines;
    this.plot.setData([cluster.times, ...lines.map(({ points }) => points)], true);
    this.read();
  }

  made(lines) {
    const axis = {
      stroke: valueOf("--soft"),
      font: `12px ${valueOf("--sans")}`,
      grid: { stroke: valueOf("--line"), width: 1 },
      ticks: { show: false },
    };
    const options = {
      width: this.element.clientWidth,
      height: HEIGHT,
      padding: [8, 26, 0, 0],
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, points: { size: 7 } },
      scales: {
        x: { range: (_, oldest, newest) => [Math.max(newest - SPAN[1], Math.min(oldest, newest - SPAN[0])), newest] },
        y: { range: (_, __, highest) => [0, Math.max(highest * 1.15, this.top)] },
      },
      axes: [
        { ...axis, grid: { show: false }, size: 26, space: 70, values: (_, times) => times.map(clock) },
        { ...axis, size: 56, space: 34, values: (_, values) => values.map((value) => this.format(value)) },
      ],
      series: [
        {},
        ...lines.map(({ name, value, dash }) => ({
          label: name,
          stroke: value,
          width: 1.75,
          dash,
          spanGaps: false,
          points: { show: false },
        })),
      ],
      hooks: { setCursor: [() => this.read()] },
    };
    return new uPlot(options, [[], ...lines.map(() => [])], this.element);
  }

  /** Writes the values under the cursor, or the newest. */
  read() {
    const index = this.plot?.cursor.idx;
    const pointed = index != null;
    const last = cluster.times.length - 1;
    const items = this.current.map(({ name, colour, points }) => {
      const value = points[pointed ? index : last];
      const swatch = el("i.swatch");
      swatch.style.setProperty("--hue", colour);
      return el("span", {}, swatch, `${name} `, el("b", {}, value == null ? "–" : this.format(value)));
    });
    const at = pointed ? [el("span.at", {}, `at ${clock(cluster.times[index])}`)] : [];
    this.readout.replaceChildren(...items, ...at);
    if (!pointed) this.element.setAttribute("aria-label", items.map((item) => item.textContent).join(", "));
  }
}

function clock(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString("en-GB");
}

function lagLines() {
  const seen = new Map();
  const replicas = [...cluster.known.values()].map(({ node }) => node).filter((node) => cluster.lags.has(node.node));
  replicas.sort((a, b) => (`${a.region}${a.node}` < `${b.region}${b.node}` ? -1 : 1));
  return replicas.map(({ node, region }) => {
    const number = (seen.get(region) ?? 0) + 1;
    seen.set(region, number);
    return {
      key: node,
      name: number > 1 ? `${region} ${number}` : region,
      colour: colourOf(region),
      value: colourValueOf(region),
      // Neighbours share a colour.
      dash: number > 1 ? [2 * number, 3] : undefined,
      points: cluster.lags.get(node),
    };
  });
}

function rateLines() {
  return [
    { key: "commits", name: "commits/s", colour: "var(--accent)", value: valueOf("--accent"), points: cluster.commitRates },
    { key: "queries", name: "queries/s", colour: "var(--ink)", value: valueOf("--ink"), points: cluster.queryRates },
  ];
}

const plots = [new Plot("lag", time, 20, lagLines), new Plot("rate", rate, 4, rateLines)];

onLook(() => {
  if (cluster.times.length > 0) for (const plot of plots) plot.update();
});
