// node test/cluster.mjs URL PROGRAM [PICTURES]: the console of the replica in WEUR of a cluster with one more in APAC.

import { check, have, ms, runSql, text, visit } from "./browser.mjs";

const [url, program, pictures] = process.argv.slice(2);

const lagOf = (region) => `#nodes tr[data-region="${region}"] .lag`;

/** Takes the whole page, from its top: the bar at the window's upper edge goes with what was scrolled to. */
const picture = async (page, name) => {
  if (!pictures) return;
  await page.evaluate(() => scrollTo(0, 0));
  await page.screenshot({ path: `${pictures}/${name}.png`, fullPage: true });
};

await visit(url, { program }, async (page) => {
  await text(page, "#here", (here) => here.includes("at WEUR replica"));
  await text(page, "#state", (state) => state === "live");
  await text(page, "#nodes", (nodes) => nodes.includes("ENAM") && nodes.includes("APAC") && nodes.includes("leads"));

  // A database is made, filled and read, all at a replica.
  await page.fill("#new-name", "harbour");
  await page.keyboard.press("Enter");
  await text(page, "#databases button[aria-current]", (name) => name.includes("harbour"));
  await runSql(page, "CREATE TABLE boats (name TEXT, metres REAL); INSERT INTO boats VALUES ('Wren', 7.5), ('Petrel', 11)");
  await text(page, "#answer", (answer) => answer.includes("answered by ENAM primary"));
  await runSql(page, "SELECT name, metres FROM boats ORDER BY metres");
  await text(page, "#results tbody", (rows) => rows === "Wren7.5Petrel11");
  const answer = await text(page, "#answer", (answer) => answer.includes("answered by WEUR replica"));
  check(/2 rows.* of SQL.* there and back/.test(answer), answer);
  await text(page, "#bookmark", (bookmark) => /^[0-9a-f]{8}(-[0-9a-f]{8}){2}-[0-9a-f]{32}$/.test(bookmark));
  await runSql(page, "SELECT nonsense FROM boats");
  await text(page, "#answer", (answer) => answer.includes("no such column: nonsense"));

  // The change of the way shows in figures, without any load.
  const near = ms(await text(page, lagOf("APAC"), (lag) => ms(lag) > 0));
  await have("delay");
  const far = ms(await text(page, lagOf("APAC"), (lag) => ms(lag) > 700));
  check(far > near, `lag went from ${near} ms to ${far} ms`);
  await text(page, '.station[data-region="APAC"] .figure', (figure) => ms(figure) > 700);
  await text(page, "#lag-readout", (readout) => ms(readout.split("APAC")[1]) > 700);

  // A read with the bookmark sees the write, whatever the other read sees.
  await page.click("#stale-run");
  await text(page, "#stale-outcome .side:nth-child(2)", (side) => side.includes("sees the write, as promised"));
  await text(page, "#stale-tally", (tally) => /Stale in [01] of 1 try/.test(tally));
  await picture(page, "wide");
});

// A small screen in the dark: nothing sticks out.
await visit(url, { program, width: 400, scheme: "dark" }, async (page) => {
  await text(page, "#nodes", (nodes) => nodes.includes("APAC"));
  await page.click("#run");
  await text(page, "#answer", (answer) => answer.includes("answered by"));
  const width = await page.evaluate(() => document.documentElement.scrollWidth);
  check(width <= 400, `the page is ${width} pixels wide on a screen of 400`);
  await picture(page, "narrow");
});

// A token is asked for where one is needed, and kept in the tab.
const lock = async (page) => {
  const isRight = (request) => request.headers().authorization === "Bearer open-sesame";
  const locked = (route) => {
    const body = JSON.stringify({ result: null, success: false, errors: [{ code: 10000, message: "Authentication error" }], messages: [] });
    return isRight(route.request()) ? route.continue() : route.fulfill({ status: 401, contentType: "application/json", body });
  };
  await page.route("**/tidemark/v1/**", locked);
  await page.route("**/client/v4/**", locked);
};
await visit(url, { program, prepare: lock }, async (page) => {
  for (const token of ["wrong", "open-sesame"]) {
    await page.locator("#token-dialog[open] #token").fill(token);
    await page.keyboard.press("Enter");
    if (token === "wrong") await text(page, "#token-notice", (notice) => notice.includes("does not know this token"));
  }
  await text(page, "#nodes", (nodes) => nodes.includes("APAC"));
  await page.reload();
  await text(page, "#nodes", (nodes) => nodes.includes("APAC"));
  check((await page.locator("#token-dialog[open]").count()) === 0, "the token was not kept");
});
