// What is known of the cluster: polled once a second, remembered for as long as the plots show.

import { ask, send, served } from "./api.js";

const EVERY_MS = 1000;
/** The plots show five minutes. */
const SAMPLES_MAX = 300;
/** A node may take this long to have the map drawn. */
const WAIT_MS = 2500;
/** Who is gone for longer than this is forgotten. */
const FORGOTTEN_MS = 300_000;

/** State that the views draw. */
export const cluster = {
  /** This node: region, role, node. */
  here: null,
  /** The newest map that was complete, or the only one there is. */
  map: null,
  /** When each known node was last on a complete map, and what it was like: by node. */
  known: new Map(),
  /** This node's databases, the catalogue left out. */
  databases: [],
  /** Seconds since the epoch, oldest first. */
  times: [],
  /** Lag in ms by replica, one per time. */
  lags: new Map(),
  commitRates: [],
  queryRates: [],
  /** Per database: commits per second, one per time. */
  databaseRates: new Map(),
  /** What is wrong, if something is. */
  trouble: null,
};

let listeners = [];
let last = null;
/** When a complete map was seen last. */
let newest = 0;

/** A voter that has not answered for this long is worth a word. Heartbeats are far more frequent. */
const SILENT_MS = 1500;

/** Whether a node that was last seen then is on the map no more. */
export const isGone = (seen) => seen < newest;

/** Whether a voter does not answer the one that leads, or never has. */
export const isSilent = (node) =>
  node.role === "primary" && !node.leading && cluster.map?.complete === true && (node.lag_ms ?? Infinity) > SILENT_MS;

/** Address of the console of a node, if it says where it is reached. Nothing that could be a script is. */
export function consoleOf(node, section = "") {
  try {
    const address = new URL(`/${section}`, node.url);
    return /^https?:$/.test(address.protocol) ? address.href : null;
  } catch {
    return null;
  }
}

/** Calls `listener` after every look. */
export function onLook(listener) {
  listeners.push(listener);
}

/** Looks for ever, as long as somebody does. */
export async function watch() {
  for (;;) {
    const started = performance.now();
    if (!document.hidden) await look();
    const rest = EVERY_MS - (performance.now() - started);
    await new Promise((done) => setTimeout(done, Math.max(rest, 100)));
  }
}

async function look() {
  const headers = { "tidemark-deadline": "2s" };
  const looks = [
    ask("/tidemark/v1/status", { headers, wait: WAIT_MS }),
    ask("/tidemark/v1/cluster", { headers, wait: WAIT_MS }),
    send("/metrics", { wait: WAIT_MS }),
  ];
  const [status, map, metrics] = await Promise.allSettled(looks);
  const now = Date.now() / 1000;
  cluster.trouble = null;
  if (status.status === "fulfilled") {
    cluster.here = served(status.value.headers.get("tidemark-served-by")) ?? cluster.here;
    const { databases } = status.value.result;
    cluster.databases = databases.filter((database) => database.name !== "");
  } else {
    cluster.trouble = status.reason.message;
  }
  if (map.status === "fulfilled") take(map.value.result, now);
  else cluster.trouble ??= map.reason.message;
  const queries = metrics.status === "fulfilled" ? queriesIn(metrics.value.text) : null;
  sample(now, queries);
  for (const listener of listeners) listener();
}

function take(map, now) {
  if (map.complete) newest = now;
  for (const node of map.nodes) {
    // A node that does not lead knows less of others than was known before.
    if (map.complete || !cluster.known.has(node.node)) cluster.known.set(node.node, { node, seen: now });
  }
  if (!map.complete) {
    cluster.trouble = "No node is known to lead";
    for (const { node } of cluster.known.values()) node.leading = false;
  }
  for (const [id, { seen }] of cluster.known) {
    if (map.complete && (now - seen) * 1000 > FORGOTTEN_MS) cluster.known.delete(id);
  }
  // Who left the cell is no voter any more.
  if (map.complete) {
    const present = new Set(map.nodes.map((node) => node.node));
    for (const [id, { node }] of cluster.known) {
      if (node.voter && !present.has(id)) cluster.known.delete(id);
    }
  }
  cluster.map = map;
}

/** Adds a point to every line of the plots. */
function sample(now, queries) {
  const { map } = cluster;
  const complete = map?.complete ? map : null;
  const seqs = new Map(cluster.databases.map(({ uuid, position }) => [uuid, position.seq]));
  const next = { now, queries, commits: complete?.commits, by: complete?.drawn_by, seqs };
  const seconds = last ? now - last.now : null;
  const per = (to, from) => (to == null || from == null || !seconds ? null : Math.max(to - from, 0) / seconds);

  extend();
  set(cluster.times, now);
  // The figures of two nodes are no progress of either.
  set(cluster.commitRates, last?.by === next.by ? per(next.commits, last?.commits) : null);
  set(cluster.queryRates, per(queries, last?.queries));
  for (const { node, seen } of cluster.known.values()) {
    if (node.role === "replica" && complete && seen === now) set(lineOf(cluster.lags, node.node), node.lag_ms);
  }
  for (const [uuid, seq] of seqs) {
    set(lineOf(cluster.databaseRates, uuid), per(seq, last?.seqs.get(uuid)) ?? 0);
  }
  last = next;
}

/** Makes every line one point longer, and drops the oldest point of all when there are enough. */
function extend() {
  const { times, commitRates, queryRates, lags, databaseRates } = cluster;
  for (const line of [times, commitRates, queryRates, ...lags.values(), ...databaseRates.values()]) {
    line.push(null);
    if (line.length > SAMPLES_MAX) line.shift();
  }
  for (const lines of [lags, databaseRates]) {
    for (const [key, line] of lines) {
      if (line.every((value) => value == null)) lines.delete(key);
    }
  }
}

function lineOf(lines, key) {
  if (!lines.has(key)) lines.set(key, new Array(cluster.times.length).fill(null));
  return lines.get(key);
}

function set(line, value) {
  line[line.length - 1] = value ?? null;
}

/** Queries that a node answered since it started, from the text of its metrics. */
function queriesIn(text) {
  let sum = 0;
  const counter = /^tidemark_http_requests_total\{([^}]*)\} (\S+)$/gm;
  for (const [, labels, value] of text.matchAll(counter)) {
    if (/route="(query|raw|binding)"/.test(labels)) sum += Number(value);
  }
  return sum;
}
