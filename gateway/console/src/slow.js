// Queries by what they cost, from the figures that D1's tools ask for.

import { send } from "./api.js";
import { cluster, onLook } from "./cluster.js";
import { database, onChoice } from "./databases.js";
import { $, el, say } from "./dom.js";
import { count, time } from "./format.js";
import { edit } from "./query.js";

const EVERY_MS = 15_000;
const SHOWN_MAX = 12;
/** As `wrangler d1 insights` asks. */
const QUESTION = `query getD1QueriesOverviewQuery($accountTag: string, $filter: ZoneWorkersRequestsFilter_InputObject) {
  viewer { accounts(filter: {accountTag: $accountTag}) {
    d1QueriesAdaptiveGroups(limit: 100, filter: $filter) {
      sum { queryDurationMs rowsRead rowsWritten rowsReturned }
      avg { queryDurationMs rowsRead rowsWritten rowsReturned }
      count
      dimensions { query databaseId }
    }
  } }
}`;

/** In the console's own look at the schema, and hardly anywhere else. */
const OWN = "pragma_table_info(tables.name)";

const ORDERS = {
  total: (query) => query.total,
  mean: (query) => query.mean,
  rows: (query) => query.rowsRead,
  count: (query) => query.count,
};

let queries = [];
let asked = 0;

onChoice(() => void refresh());
onLook(() => {
  if (Date.now() - asked > EVERY_MS) void refresh();
});
$("slow-refresh").addEventListener("click", () => void refresh());
$("slow-order").addEventListener("change", show);

async function refresh() {
  const name = database();
  const uuid = cluster.databases.find((known) => known.name === name)?.uuid;
  if (!uuid) return;
  asked = Date.now();
  const day = 24 * 3600 * 1000;
  const filter = {
    AND: [
      { datetimeHour_geq: new Date(asked - day).toISOString(), datetimeHour_leq: new Date(asked + 60_000).toISOString() },
      { databaseId: uuid },
    ],
  };
  try {
    const { text, status } = await send("/client/v4/graphql", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ query: QUESTION, variables: { accountTag: "console", filter, databaseId: uuid } }),
    });
    if (status !== 200) throw new Error(`The node answered ${status}`);
    const groups = JSON.parse(text).data?.viewer?.accounts?.[0]?.d1QueriesAdaptiveGroups ?? [];
    // What the console asks for to complete names is nobody's slow query.
    queries = groups.map(understood).filter((query) => query != null && !query.sql.includes(OWN));
    show();
  } catch (error) {
    say($("slow-summary"), error.message);
  }
}

/** One group, whatever of it is there. */
function understood({ sum, avg, count, dimensions } = {}) {
  const sql = dimensions?.query;
  if (typeof sql !== "string") return null;
  const runs = count ?? 0;
  const total = sum?.queryDurationMs ?? (avg?.queryDurationMs ?? 0) * runs;
  return {
    sql,
    count: runs,
    total,
    mean: avg?.queryDurationMs ?? (runs > 0 ? total / runs : 0),
    rowsRead: sum?.rowsRead ?? 0,
    rowsWritten: sum?.rowsWritten ?? 0,
  };
}

function show() {
  const by = ORDERS[$("slow-order").value];
  const sorted = [...queries].sort((a, b) => by(b) - by(a)).slice(0, SHOWN_MAX);
  const name = database() ?? "";
  say($("slow-summary"), sorted.length > 0 ? `of ${name}, as this node has run them` : `No figures of ${name} yet. They come with its queries.`);
  if (sorted.length === 0) return $("slow-queries").replaceChildren();
  const highest = Math.max(...sorted.map(by), Number.MIN_VALUE);
  const headings = ["Runs", "One", "In all", "Rows read", "Rows written"].map((text) => el("th.number", { scope: "col" }, text));
  const table = el(
    "table",
    {},
    el("caption.unseen", {}, "Slow queries"),
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Query"), ...headings)),
    el("tbody", {}, ...sorted.map((query) => row(query, by(query) / highest))),
  );
  $("slow-queries").replaceChildren(el("div.scroll", { tabindex: "0", role: "region", "aria-label": "Slow queries" }, table));
}

function row(query, share) {
  const figures = [count(query.count), time(query.mean), time(query.total), count(query.rowsRead), count(query.rowsWritten)];
  const weight = el("i.weight");
  weight.style.setProperty("--share", `${100 * share}%`);
  const open = el("button.sql", { type: "button", title: "Put it into the editor", onclick: () => edit(query.sql) }, query.sql);
  return el("tr", {}, el("td", {}, open, weight), ...figures.map((text) => el("td.number", {}, text)));
}
