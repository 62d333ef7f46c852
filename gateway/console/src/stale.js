// What a stale read is, shown: a write at the primary, then two reads here, without and with its bookmark.

import { ApiError, run } from "./api.js";
import { cluster, consoleOf, onLook } from "./cluster.js";
import { database, touch } from "./databases.js";
import { $, el, say } from "./dom.js";
import { time } from "./format.js";
import { saw } from "./query.js";

const TABLE = "tidemark_console";
const MAKE = `CREATE TABLE IF NOT EXISTS ${TABLE} (id INTEGER PRIMARY KEY, mark INTEGER NOT NULL, ballast BLOB)`;
/** Rows of a megabyte at most: D1's limit of a value is two. */
const WRITE = `INSERT INTO ${TABLE} (id, mark, ballast)
SELECT column1, 1, randomblob(min(?1, 1000000)) FROM (VALUES (1), (2), (3))
WHERE column1 <= max(1, ?1 / 1000000)
ON CONFLICT (id) DO UPDATE SET mark = mark + 1, ballast = excluded.ballast RETURNING mark`;
const DROP = `DROP TABLE IF EXISTS ${TABLE}`;
const READ = `SELECT mark FROM ${TABLE} WHERE id = 1`;

const tries = { all: 0, stale: 0 };
const made = new Set();
const button = $("stale-run");

onLook(() => {
  const { here } = cluster;
  const leads = here && cluster.known.get(here.node)?.node.leading;
  const replica = [...cluster.known.values()].map(({ node }) => node).find((node) => node.role === "replica" && consoleOf(node));
  const hint = $("stale-hint");
  const wanted = leads ? `leads ${replica?.url ?? ""}` : `copy ${database()}`;
  if (hint.dataset.said === wanted) return;
  hint.dataset.said = wanted;
  if (leads) {
    const elsewhere = replica
      ? [" Try it at ", el("a", { href: consoleOf(replica, "#stale"), target: "_blank", rel: "noreferrer" }, `a replica in ${replica.region}`), "."]
      : [];
    hint.replaceChildren("This node leads, so it has always seen everything.", ...elsewhere);
  } else {
    hint.replaceChildren("It keeps its row in the table ", el("code", {}, TABLE), " of ", el("b", {}, database() ?? ""), ".");
  }
});

button.addEventListener("click", async () => {
  const name = database();
  if (!name) return;
  button.disabled = true;
  try {
    if (!made.has(name)) {
      await run(name, MAKE);
      made.add(name);
    }
    show(await attempt(name));
  } catch (error) {
    made.delete(name);
    $("stale-outcome").replaceChildren(el("p.notice", {}, error.message));
  } finally {
    button.disabled = false;
    touch();
  }
});

$("stale-clear").addEventListener("click", async () => {
  const name = database();
  try {
    await run(name, DROP);
    made.delete(name);
    $("stale-outcome").replaceChildren(el("p.hint", {}, `The table is gone from ${name}.`));
  } catch (error) {
    $("stale-outcome").replaceChildren(el("p.notice", {}, error.message));
  }
  touch();
});

/** Writes once and reads twice; the reads begin together, when the write is acknowledged. */
async function attempt(name) {
  const started = performance.now();
  const write = await run(name, WRITE, { params: [Number($("ballast").value)] });
  const acknowledged = performance.now() - started;
  const mark = write.results[0].results.rows[0][0];
  const [plain, marked] = await Promise.all([
    read(name, "first-unconstrained", started),
    read(name, write.bookmark, started),
  ]);
  saw(name, write.bookmark);
  tries.all += 1;
  if (plain.mark !== mark) tries.stale += 1;
  return { mark, write, acknowledged, plain, marked };
}

async function read(name, bookmark, started) {
  try {
    const done = await run(name, READ, { bookmark });
    const mark = done.results[0].results.rows[0]?.[0] ?? null;
    return { ...done, mark, at: performance.now() - started };
  } catch (error) {
    // The copy may be from before the table.
    if (error instanceof ApiError && /no such table/.test(error.message)) {
      return { mark: null, took: 0, at: performance.now() - started, servedBy: null };
    }
    throw error;
  }
}

function show({ mark, write, acknowledged, plain, marked }) {
  const end = Math.max(plain.at, marked.at);
  const stale = plain.mark !== mark;
  const caughtUp = plain.servedBy?.role === "primary" ? "where writes are made, no read is stale" : "the copy had caught up already";
  $("stale-outcome").replaceChildren(
    el(
      "div.sides",
      {},
      side("Read without a condition", plain, mark, stale ? "stale: the write is not there yet" : caughtUp),
      side("Read with the bookmark", marked, mark, marked.mark === mark ? "sees the write, as promised" : "does not see the write"),
    ),
    el(
      "div.timeline",
      { "aria-hidden": "true" },
      bar("write", 0, acknowledged, end, `acknowledged by ${where(write)}`),
      bar(stale ? "read stale" : "read", acknowledged, plain.at, end, "without a condition"),
      bar("read", acknowledged, marked.at, end, "with the bookmark"),
    ),
    el("p.hint", { id: "stale-tally" }, `Stale in ${tries.stale} of ${tries.all === 1 ? "1 try" : `${tries.all} tries`}.`),
  );
}

function side(title, reply, mark, verdict) {
  const stale = reply.mark !== mark;
  return el(
    stale ? "div.side.stale" : "div.side",
    {},
    el("h3", {}, title),
    el("p.mark-read", {}, reply.mark == null ? "nothing" : String(reply.mark), el("span", {}, ` of ${mark}`)),
    el("p", {}, verdict),
    el("p.hint", {}, `${time(reply.took)} there and back${reply.servedBy ? `, answered by ${where(reply)}` : ""}`),
  );
}

function bar(kind, from, to, end, text) {
  const made = el(`div.span.${kind.replaceAll(" ", ".")}`, {}, el("i"), el("span", {}, `${time(to - from)} ${text}`));
  if (from > end / 2) made.classList.add("late");
  made.style.setProperty("--from", `${(100 * from) / end}%`);
  made.style.setProperty("--length", `${Math.max((100 * (to - from)) / end, 0.5)}%`);
  return made;
}

const where = ({ servedBy }) => (servedBy ? `${servedBy.region} ${servedBy.role}` : "the primary");
