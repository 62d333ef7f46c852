// The chart: where the nodes are, which of them leads, and commits on their way.
//
// It is a picture for the eye; the table beside it has everything in words.

import land from "land";
import { cluster, isGone, isSilent, onLook } from "./cluster.js";
import { colourOf } from "./colours.js";
import { $, el, svg } from "./dom.js";
import { counted, time } from "./format.js";

/** On which side of a place its name fits. */
const SIDES = { WNAM: "under", ENAM: "south", WEUR: "south", EEUR: "east", OC: "south" };
/** Commits are shown on their way this much slower than they go. */
const SLOWER = 8;
const PULSE_MS = [350, 5000];
/** Most dots at once on one route. */
const PULSES_MAX = 3;

const chart = $("chart");
const routes = svg("g");
const pulses = svg("g");
const picture = svg(
  "svg",
  { viewBox: `0 0 ${land.width} ${land.height}`, "aria-hidden": "true" },
  svg("path.land", { d: land.dots }),
  routes,
  pulses,
);
const stations = el("div.stations", { "aria-hidden": "true" });
chart.append(
  el("div.world", {}, picture, stations),
  el(
    "p.legend",
    { "aria-hidden": "true" },
    el("span", {}, el("i.mark.leader"), "leads"),
    el("span", {}, el("i.mark.voter"), "votes"),
    el("span", {}, el("i.mark.replica"), "replica"),
    el("span.wide", {}, el("i.dot"), `commits on their way, ${SLOWER} times slower`),
  ),
);

const still = matchMedia("(prefers-reduced-motion: reduce)");
let commits = null;
/** By region: the path of its route and the lag of the nearest of its replicas. */
let lines = new Map();
let drawn = "";

onLook(() => {
  const regions = byRegion();
  draw(regions);
  animate();
  chart.setAttribute("aria-label", `Map of the cluster: ${regions.map(inWords).join("; ")}`);
});

function byRegion() {
  const regions = new Map();
  for (const { node, seen } of cluster.known.values()) {
    const gone = isGone(seen) || isSilent(node);
    const found = regions.get(node.region) ?? [];
    found.push({ ...node, gone, here: node.node === cluster.here?.node });
    regions.set(node.region, found);
  }
  let shelf = 0;
  return [...regions].sort().map(([region, nodes]) => {
    const place = land.places[region] ?? [70 + 110 * shelf++, land.height - 40];
    return { region, nodes, place, ...summary(nodes) };
  });
}

function summary(nodes) {
  const leading = nodes.some((node) => node.leading && !node.gone);
  const live = nodes.filter((node) => node.role === "replica" && !node.gone && node.lag_ms != null);
  const lag = live.length > 0 ? Math.min(...live.map((node) => node.lag_ms)) : null;
  const voters = nodes.filter((node) => node.voter).length;
  const answering = nodes.filter((node) => node.voter && !node.gone).length;
  let text = "not connected";
  if (lag != null) text = time(lag);
  else if (leading && answering < voters) text = `leads, ${answering} of ${voters} voters`;
  else if (leading) text = voters > 1 ? `leads, ${counted(voters, "voter")}` : "leads";
  else if (voters > 0) text = "no leader";
  else if (nodes.some((node) => !node.gone)) text = "";
  return { leading, lag, text, gone: nodes.every((node) => node.gone), here: nodes.some((node) => node.here) };
}

const inWords = ({ region, text, here }) => `${region}${here ? ", here" : ""}, ${text}`;

function draw(regions) {
  const home = regions.find((region) => region.leading);
  // Elements stay as long as nothing but figures changed.
  const shape = JSON.stringify(
    regions.map(({ region, nodes, here, gone }) => [region, here, gone, nodes.map((node) => markOf(node))]).concat([home?.region]),
  );
  if (shape !== drawn) {
    drawn = shape;
    redraw(regions, home);
  }
  for (const { region, text, lag } of regions) {
    const figure = stations.querySelector(`[data-region="${CSS.escape(region)}"] .figure`);
    figure.textContent = text;
    if (lines.has(region)) lines.get(region).lag = lag;
  }
}

function redraw(regions, home) {
  lines = new Map();
  routes.replaceChildren();
  pulses.replaceChildren();
  stations.replaceChildren(...regions.map(station));
  if (!home) return;
  for (const { region, place, gone } of regions) {
    if (region === home.region) continue;
    const route = svg(gone ? "path.route.gone" : "path.route", { d: arc(home.place, place) });
    route.style.stroke = colourOf(region);
    routes.append(route);
    if (!gone) lines.set(region, { route, lag: null });
  }
}

function station({ region, nodes, place, gone, here }) {
  const made = el(
    `div.station.${SIDES[region] ?? "east"}`,
    { "data-region": region },
    el("span.marks", {}, ...nodes.map((node) => el(`i.mark.${markOf(node)}`))),
    el("span.label", {}, el("b", {}, region, here ? el("em", {}, "here") : null), el("span.figure")),
  );
  if (gone) made.classList.add("gone");
  made.style.left = `${(100 * place[0]) / land.width}%`;
  made.style.top = `${(100 * place[1]) / land.height}%`;
  made.style.setProperty("--hue", colourOf(region));
  return made;
}

function markOf(node) {
  if (node.gone) return "gone";
  if (node.leading) return "leader";
  return node.role === "primary" ? "voter" : "replica";
}

/** A bow from one place to another, bent towards the north: less so where it leads far to the south. */
function arc([x1, y1], [x2, y2]) {
  const length = Math.hypot(x2 - x1, y2 - y1);
  const lift = length * Math.max(0.24 * (1 - (2 * Math.abs(y2 - y1)) / length), 0.06);
  return `M${x1} ${y1}Q${(x1 + x2) / 2} ${(y1 + y2) / 2 - lift} ${x2} ${y2}`;
}

function animate() {
  const before = commits;
  commits = cluster.map?.complete ? cluster.map.commits : commits;
  if (still.matches || before == null || commits <= before || document.hidden) return;
  const dots = Math.min(commits - before, PULSES_MAX);
  const radius = (3.2 * land.width) / picture.clientWidth;
  for (const [region, { route, lag }] of lines) {
    if (lag == null) continue;
    for (let number = 0; number < dots; number += 1) {
      const took = Math.min(Math.max((lag / 2) * SLOWER, PULSE_MS[0]), PULSE_MS[1]);
      travel(route, colourOf(region), radius, took, (number * 900) / PULSES_MAX);
    }
  }
}

function travel(route, colour, radius, took, wait) {
  const dot = svg("circle.pulse", { r: radius });
  dot.style.fill = colour;
  const length = route.getTotalLength();
  const started = performance.now() + wait;
  const step = (now) => {
    const share = Math.max((now - started) / took, 0);
    if (share >= 1 || !route.isConnected) return dot.remove();
    const { x, y } = route.getPointAtLength(length * share);
    dot.setAttribute("cx", x);
    dot.setAttribute("cy", y);
    if (share > 0 && !dot.isConnected) pulses.append(dot);
    requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
}
