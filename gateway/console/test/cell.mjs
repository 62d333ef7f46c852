// node test/cell.mjs URL PROGRAM: the console of a replica of three voters, whose leader dies.

import { check, have, text, visit } from "./browser.mjs";

const [url, program] = process.argv.slice(2);

await visit(url, { program }, async (page) => {
  await text(page, "#nodes tbody", (nodes) => nodes.match(/voter/g)?.length === 2 && nodes.includes("leads"));
  await text(page, '.station[data-region="ENAM"] .figure', (figure) => figure === "leads, 3 voters");
  const leader = () => page.locator("#nodes tr", { has: page.locator(".leads") });
  const before = await leader().getAttribute("data-node");
  await have("kill");
  await text(page, `#nodes tr[data-node="${before}"]`, (row) => /silent|not heard/.test(row));
  const after = await leader().getAttribute("data-node");
  check(after !== before, `${before} still leads`);
  await text(page, "#state", (state) => state === "live");
  await text(page, "#cluster-summary", (summary) => !/term 1,/.test(summary));
});
