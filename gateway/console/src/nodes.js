// The table of nodes, and the lines of text about the cluster and this node.

import { cluster, consoleOf, isGone, isSilent, onLook } from "./cluster.js";
import { colourOf } from "./colours.js";
import { $, el, say } from "./dom.js";
import { count, counted, short, time } from "./format.js";

const body = el("tbody");
$("nodes").append(
  el(
    "table",
    {},
    el("caption.unseen", {}, "Nodes of the cluster"),
    el(
      "thead",
      {},
      el(
        "tr",
        {},
        ...["Region", "Node", "Part"].map((text) => el("th", { scope: "col" }, text)),
        ...["Lag", "Behind"].map((text) => el("th.number", { scope: "col" }, text)),
      ),
    ),
    body,
  ),
);

onLook(() => {
  const now = Date.now() / 1000;
  const nodes = sorted();
  body.replaceChildren(...nodes.map(({ node, seen }) => row(node, seen, now)));
  const { here, map, trouble } = cluster;
  if (here) {
    $("here").replaceChildren("at ", el("b", {}, here.region), ` ${part(here.node, here.role)} `, el("code", {}, short(here.node)));
    document.title = `${here.region} · Tidemark`;
  }
  const state = $("state");
  state.classList.toggle("bad", trouble != null);
  say(state, trouble ?? "live");
  if (map) {
    const regions = new Set(nodes.map(({ node }) => node.region)).size;
    say(
      $("cluster-summary"),
      `${counted(nodes.length, "node")} in ${counted(regions, "region")}, term ${count(map.term)}, ${counted(map.commits, "commit")}`,
    );
  }
  say($("footer"), here ? `Node ${here.node}` : "");
});

function sorted() {
  const order = ({ node }) => `${node.role === "primary" ? 0 : 1} ${node.region} ${node.node}`;
  return [...cluster.known.values()].sort((a, b) => (order(a) < order(b) ? -1 : 1));
}

/** What a node is called: by its known part, or by its role where no map has it. */
function part(id, role) {
  const node = cluster.known.get(id)?.node;
  if (node?.leading) return "primary, leading";
  if (node?.role === "primary" || role === "primary") return node && !node.voter ? "joining" : "voter";
  return "replica";
}

function row(node, seen, now) {
  const isHere = node.node === cluster.here?.node;
  const gone = isGone(seen);
  const swatch = el("i.swatch");
  swatch.style.setProperty("--hue", colourOf(node.region));
  const name = short(node.node);
  const address = isHere ? null : consoleOf(node);
  const named = address ? el("a", { href: address, title: `Open ${address}`, rel: "noreferrer", target: "_blank" }, name) : name;
  const made = el(
    "tr",
    { "aria-current": isHere ? "true" : null, "data-node": node.node, "data-region": node.region },
    el("th", { scope: "row" }, swatch, node.region, isHere ? el("em", {}, "here") : null),
    el("td.code", {}, named),
    el("td", {}, gone ? "" : node.leading ? el("b.leads", {}, "leads") : part(node.node, node.role)),
    el("td.number.lag", {}, gone ? el("span.bad", {}, `gone ${time((now - seen) * 1000)}`) : lag(node)),
    el("td.number", {}, gone || node.behind == null ? "" : count(node.behind)),
  );
  if (gone) made.classList.add("gone");
  return made;
}

function lag(node) {
  if (node.role === "replica") return node.lag_ms == null ? "" : time(node.lag_ms);
  if (!isSilent(node)) return "";
  return el("span.bad", {}, node.lag_ms == null ? "not heard" : `silent ${time(node.lag_ms)}`);
}
