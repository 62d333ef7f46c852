// Rows of a result as a table.

import { el } from "./dom.js";
import { bytes, count, counted } from "./format.js";

/** More rows than this are not drawn until asked for. */
const ROWS_SHOWN = 200;

/** One result of a statement. `number` counts from 1 and is null when it is the only one. */
export function resultTable({ results, meta }, number) {
  const { columns = [], rows = [] } = results ?? {};
  const said = number == null ? null : el("h3", {}, `Statement ${number}`);
  if (columns.length === 0) {
    return el("div.result", {}, said, el("p.hint", {}, changes(meta)));
  }
  const body = el("tbody");
  const add = (from, to) => body.append(...rows.slice(from, to).map((row) => el("tr", {}, ...row.map(cell))));
  add(0, ROWS_SHOWN);
  const table = el(
    "table",
    {},
    el("thead", {}, el("tr", {}, ...columns.map((name, at) => el(isNumbers(rows, at) ? "th.number" : "th", { scope: "col" }, name)))),
    body,
  );
  const label = number == null ? "Rows" : `Rows of statement ${number}`;
  const scroll = el("div.scroll", { tabindex: "0", role: "region", "aria-label": label }, table);
  const made = el("div.result", {}, said, scroll);
  if (rows.length > ROWS_SHOWN) {
    const more = el("button.quiet", { type: "button" }, `Show all ${count(rows.length)} rows`);
    more.addEventListener("click", () => {
      add(ROWS_SHOWN);
      more.remove();
      scroll.focus();
    });
    made.append(more);
  }
  return made;
}

function changes(meta) {
  if (!meta?.changed_db) return "No rows.";
  return meta.changes > 0 ? `${counted(meta.changes, "row")} changed.` : "Done.";
}

function isNumbers(rows, at) {
  return rows.length > 0 && rows.slice(0, 20).every((row) => row[at] == null || typeof row[at] === "number");
}

function cell(value) {
  if (value === null) return el("td.null", {}, "NULL");
  if (typeof value === "number") return el("td.number", {}, String(value));
  if (Array.isArray(value)) return el("td.null", {}, `blob of ${bytes(value.length)}`);
  const text = String(value);
  return el("td", { title: text.length > 60 ? text : null }, text);
}
