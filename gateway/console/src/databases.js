// The list of databases: size, tables, and what is committed to each.

import { ask, databasesPath } from "./api.js";
import { cluster, onLook } from "./cluster.js";
import { $, el, say, svg } from "./dom.js";
import { bytes, count, counted, rate } from "./format.js";

/** Sizes are asked for one by one; of more databases than this, only names and activity are shown. */
const SIZED_MAX = 40;
const SIZES_EVERY_MS = 10_000;
/** Points of the little curve: seconds. */
const CURVE_POINTS = 60;
const CURVE = { width: 60, height: 18 };

const list = $("databases");
const sizes = new Map();
const listeners = [];
let chosen = sessionStorage.getItem("tidemark-database");
let rows = new Map();
let sizing = false;
let sizedAt = 0;

/** The database that queries go to, by name. */
export const database = () => chosen;

export function onChoice(listener) {
  listeners.push(listener);
}

/** Sizes may have changed. */
export function touch() {
  sizedAt = 0;
}

export function choose(name) {
  if (name === chosen) return;
  chosen = name;
  sessionStorage.setItem("tidemark-database", name);
  show();
  for (const listener of listeners) listener(name);
}

onLook(() => {
  show();
  void measure();
});

function show() {
  const databases = [...cluster.databases].sort((a, b) => (a.name < b.name ? -1 : 1));
  if (!databases.some(({ name }) => name === chosen) && databases.length > 0) return choose(databases[0].name);
  const names = databases.map(({ name }) => name).join("\n");
  if (list.dataset.names !== names) {
    list.dataset.names = names;
    rows = new Map(databases.map(({ name, uuid }) => [uuid, row(name)]));
    list.replaceChildren(...[...rows.values()].map(({ item }) => item));
    if (databases.length === 0) list.append(el("li.hint", {}, "There are none yet."));
  }
  for (const { uuid, name, position, damaged } of databases) {
    const { button, detail, curve, now } = rows.get(uuid);
    if (name === chosen) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
    const size = sizes.get(uuid);
    const known = size ? `${bytes(size.file_size)}, ${counted(size.num_tables, "table")}` : `at ${count(position.seq)}`;
    say(detail, damaged ? `damaged: ${damaged}` : known);
    const rates = (cluster.databaseRates.get(uuid) ?? []).slice(-CURVE_POINTS);
    const newest = rates.at(-1) ?? 0;
    say(now, newest > 0 ? `${rate(newest)}/s` : "");
    curve.setAttribute("d", path(rates));
  }
}

function row(name) {
  const detail = el("span.detail");
  const now = el("span.now");
  const curve = svg("path");
  const picture = svg("svg.curve", { viewBox: `0 0 ${CURVE.width} ${CURVE.height}`, "aria-hidden": "true", preserveAspectRatio: "none" }, curve);
  const button = el("button", { type: "button", onclick: () => choose(name) }, el("b", {}, name), now, detail, picture);
  return { item: el("li", {}, button), button, detail, curve, now };
}

function path(rates) {
  const highest = Math.max(...rates, 1);
  const points = rates.map((value, index) => {
    const x = CURVE.width - (rates.length - 1 - index) * (CURVE.width / (CURVE_POINTS - 1));
    return `${x.toFixed(1)} ${(CURVE.height - 1 - ((CURVE.height - 2) * (value ?? 0)) / highest).toFixed(1)}`;
  });
  return points.length > 1 ? `M${points.join("L")}` : "";
}

async function measure() {
  if (sizing || Date.now() - sizedAt < SIZES_EVERY_MS) return;
  sizing = true;
  sizedAt = Date.now();
  try {
    for (const { uuid } of cluster.databases.slice(0, SIZED_MAX)) {
      const { result } = await ask(databasesPath(`/${uuid}`));
      sizes.set(uuid, result);
    }
    show();
  } catch {
    // The list says what is known without; whether the node answers at all is shown elsewhere.
  } finally {
    sizing = false;
  }
}

$("new-database").addEventListener("submit", async (event) => {
  event.preventDefault();
  const field = $("new-name");
  const name = field.value.trim();
  say($("new-database-notice"), "");
  try {
    await ask(databasesPath(), {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ name }),
    });
    field.value = "";
    chosen = name;
    sessionStorage.setItem("tidemark-database", name);
    for (const listener of listeners) listener(name);
  } catch (error) {
    say($("new-database-notice"), error.message);
  }
});
