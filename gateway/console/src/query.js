// The desk: SQL in, rows out, and the session between.

import { run } from "./api.js";
import { database, onChoice, touch } from "./databases.js";
import { $, el } from "./dom.js";
import { Editor } from "./editor.js";
import { count, counted, seqOf, short, time } from "./format.js";
import { resultTable } from "./results.js";

const HINT = "SELECT name FROM sqlite_schema";
/** Names to complete: tables with their columns. */
const SCHEMA = `SELECT tables.name AS "table", columns.name AS "column"
FROM sqlite_schema AS tables JOIN pragma_table_info(tables.name) AS columns
WHERE tables.type IN ('table', 'view') AND tables.name NOT LIKE 'sqlite_%' ORDER BY tables.name, columns.cid`;
const TABLES = "SELECT name, type FROM sqlite_schema WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%' ORDER BY name";

const isMac = /Mac|iPhone|iPad/.test(navigator.platform);
/** Newest bookmark of the session, by database: they mean nothing to another. */
const bookmarks = new Map();
let running = false;
/** Whether the text is this program's own. */
let untouched = true;

const editor = new Editor($("editor"), { label: "SQL", text: "", hint: HINT, run: () => void execute() });
$("run-key").textContent = isMac ? "⌘↩" : "Ctrl ↩";
$("run").addEventListener("click", () => void execute());
$("new-session").addEventListener("click", () => {
  bookmarks.delete(database());
  showBookmark();
});
$("copy-bookmark").addEventListener("click", async () => {
  const button = $("copy-bookmark");
  try {
    await navigator.clipboard.writeText(bookmarks.get(database()));
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren($("bookmark"));
    button.textContent = "Selected";
  }
  setTimeout(() => (button.textContent = "Copy"), 1500);
});
onChoice((name) => {
  showBookmark();
  void describe(name);
});

/** Puts the newest state of `name` that somebody here has seen into the session. */
export function saw(name, bookmark) {
  if (!bookmark) return;
  const known = bookmarks.get(name);
  // A position never goes back, but answers may arrive out of turn.
  if (!known || bookmark > known) bookmarks.set(name, bookmark);
  showBookmark();
}

/** Puts `sql` into the editor. */
export function edit(sql) {
  untouched = false;
  editor.text = sql;
  $("query").scrollIntoView();
  editor.focus();
}

async function execute() {
  const name = database();
  const sql = editor.chosen.trim() || HINT;
  if (running || !name) return;
  untouched = false;
  running = true;
  const button = $("run");
  const answer = $("answer");
  button.disabled = true;
  answer.classList.remove("bad");
  const waiting = setTimeout(() => answer.replaceChildren("Running…"), 250);
  const contract = $("contract").value;
  const bookmark = contract === "session" ? (bookmarks.get(name) ?? "first-unconstrained") : contract;
  try {
    const done = await run(name, sql, { bookmark });
    clearTimeout(waiting);
    saw(name, done.bookmark);
    answer.replaceChildren(...told(done));
    const several = done.results.length > 1;
    $("results").replaceChildren(...done.results.map((result, at) => resultTable(result, several ? at + 1 : null)));
    if (done.results.some(({ meta }) => meta?.changed_db)) {
      touch();
      void describe(name);
    }
  } catch (error) {
    clearTimeout(waiting);
    answer.classList.add("bad");
    answer.replaceChildren(error.message);
    $("results").replaceChildren();
  } finally {
    running = false;
    button.disabled = false;
  }
}

/** How it went, in a line. */
function told({ results, took, servedBy, bookmark }) {
  const rows = results.reduce((sum, { results }) => sum + (results?.rows?.length ?? 0), 0);
  const changed = results.reduce((sum, { meta }) => sum + (meta?.changes ?? 0), 0);
  const sql = results.reduce((sum, { meta }) => sum + (meta?.timings?.sql_duration_ms ?? meta?.duration ?? 0), 0);
  const parts = [counted(rows, "row")];
  if (changed > 0) parts.push(`${counted(changed, "row")} changed`);
  parts.push(`${time(sql)} of SQL`, `${time(took)} there and back`);
  const said = parts.map((text) => el("span", {}, text));
  if (servedBy) {
    const { region, role, node } = servedBy;
    said.push(el("span", {}, "answered by ", el("b", {}, `${region} ${role}`), " ", el("code", {}, short(node))));
  }
  if (bookmark) said.push(el("span", {}, `at ${count(seqOf(bookmark))}`));
  return said;
}

function showBookmark() {
  const bookmark = bookmarks.get(database());
  const shown = $("bookmark");
  shown.textContent = bookmark ?? "none yet";
  shown.classList.toggle("hint", !bookmark);
  $("copy-bookmark").disabled = !bookmark;
  $("new-session").disabled = !bookmark;
}

/** Reads the names of tables, to complete them and to have something to run. */
async function describe(name) {
  try {
    const { results } = await run(name, SCHEMA, { bookmark: bookmarks.get(name) ?? "first-unconstrained" });
    const schema = {};
    for (const [table, column] of results[0].results.rows) (schema[table] ??= []).push(column);
    editor.schema = schema;
    const first = Object.keys(schema)[0];
    if (untouched) editor.text = first ? `SELECT * FROM ${quoted(first)} LIMIT 20` : TABLES;
  } catch {
    // Completion is a convenience; what is wrong shows when something is run.
  }
}

function quoted(name) {
  return /^[A-Za-z_]\w*$/.test(name) ? name : `"${name.replaceAll('"', '""')}"`;
}
