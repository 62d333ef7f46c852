// A page of the console in a headless browser, and a line to the test that has the cluster.
//
// The script says what it wants done by a line on its output, `do WORD`, and goes on once a line comes in. Whatever
// goes wrong ends it with an error. What the browser says on its console, beyond what a refused request makes it
// say, is such an error; so is a request to anywhere but the node.

import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

/** Longest wait for anything on the page, on a busy machine. */
export const WAIT_MS = 60_000;

const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

/** Has the other side do something. */
export async function have(word) {
  console.log(`do ${word}`);
  const { done } = await answers.next();
  if (done) throw new Error(`nobody did: ${word}`);
}

export function check(holds, text) {
  if (!holds) throw new Error(text);
}

/** Opens the console at `url` and has `work` use it. `settings`: program, width, scheme. */
export async function visit(url, { program, width = 1280, scheme = "light", prepare }, work) {
  const browser = await chromium.launch({
    executablePath: program,
    args: [
      "--headless",
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
  try {
    const page = await browser.newPage({ viewport: { width, height: 860 }, colorScheme: scheme });
    page.setDefaultTimeout(WAIT_MS);
    const faults = [];
    page.on("console", (message) => {
      const refused = /^Failed to load resource: the server responded with a status of [45]\d\d/.test(message.text());
      if (message.type() === "error" && !refused) faults.push(message.text());
    });
    page.on("pageerror", (error) => faults.push(error.stack));
    page.on("request", (request) => {
      if (!request.url().startsWith(`${url}/`)) faults.push(`a request left the node: ${request.url()}`);
    });
    await prepare?.(page);
    await page.goto(`${url}/`);
    await work(page);
    check(faults.length === 0, faults.join("\n"));
    await page.close();
  } finally {
    await browser.close();
  }
}

/** The text of an element, once it fits. */
export async function text(page, selector, fits) {
  let last;
  const until = Date.now() + WAIT_MS;
  while (Date.now() < until) {
    last = await page.locator(selector).allTextContents();
    if (last.length > 0 && fits(last.join("\n"))) return last.join("\n");
    await page.waitForTimeout(100);
  }
  throw new Error(`${selector} is ${JSON.stringify(last)} after ${WAIT_MS} ms`);
}

/** Milliseconds in a text of the console: `84 ms`, `1.2 s`. */
export function ms(text) {
  const [, number, unit] = /([\d.]+) (ms|s|min)/.exec(text) ?? [];
  return Number(number) * { ms: 1, s: 1000, min: 60_000 }[unit];
}

/** Puts SQL into the editor, as typing would, and runs it. */
export async function runSql(page, sql) {
  const content = page.locator("#editor .cm-content");
  await content.click();
  await page.keyboard.press("ControlOrMeta+A");
  await page.keyboard.insertText(sql);
  await page.keyboard.press("Escape");
  await page.keyboard.press("ControlOrMeta+Enter");
}
