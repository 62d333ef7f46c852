// Builds the console: node build.mjs [--check]
//
// The result is committed in dist/ and compiled into the program, so that neither a build of Tidemark nor a
// running node needs npm. With --check nothing is written: the command fails if dist/ is not what the sources
// give with the packages of package-lock.json.

import { build } from "esbuild";
import { mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { land } from "./land.mjs";

const home = dirname(fileURLToPath(import.meta.url));
const at = (...parts) => join(home, ...parts);
const fonts = {
  "sans-400.woff2": "ibm-plex-sans/files/ibm-plex-sans-latin-400-normal.woff2",
  "sans-600.woff2": "ibm-plex-sans/files/ibm-plex-sans-latin-600-normal.woff2",
  "mono-400.woff2": "ibm-plex-mono/files/ibm-plex-mono-latin-400-normal.woff2",
};

/** The shape of the land and the places of the regions are drawn here, once: no browser needs a projection. */
const landModule = {
  name: "land",
  setup(build) {
    build.onResolve({ filter: /^land$/ }, () => ({ path: "land", namespace: "land" }));
    build.onLoad({ filter: /.*/, namespace: "land" }, async () => ({
      contents: JSON.stringify(await land()),
      loader: "json",
    }));
  },
};

const common = {
  absWorkingDir: home,
  bundle: true,
  minify: true,
  write: false,
  metafile: true,
  legalComments: "none",
  charset: "utf8",
  logLevel: "warning",
};
const script = await build({
  ...common,
  entryPoints: ["src/main.js"],
  outfile: "dist/console.js",
  format: "esm",
  target: ["chrome109", "firefox115", "safari16"],
  plugins: [landModule],
});
const style = await build({
  ...common,
  entryPoints: ["src/console.css"],
  outfile: "dist/console.css",
  external: ["*.woff2"],
});

const files = new Map([
  ["console.js", Buffer.from(script.outputFiles[0].contents)],
  ["console.css", Buffer.from(style.outputFiles[0].contents)],
  ["index.html", await readFile(at("src/index.html"))],
  ["icon.svg", await readFile(at("src/icon.svg"))],
]);
for (const [name, path] of Object.entries(fonts)) {
  files.set(name, await readFile(at("node_modules/@fontsource", path)));
}
files.set("licences.txt", Buffer.from(await licences()));

if (process.argv.includes("--check")) {
  const stale = [];
  for (const [name, content] of files) {
    const committed = await readFile(at("dist", name)).catch(() => undefined);
    if (!committed?.equals(content)) stale.push(name);
  }
  const extra = (await readdir(at("dist"))).filter((name) => !files.has(name));
  if (stale.length + extra.length > 0) {
    console.error(`dist/ is not what the sources build: ${[...stale, ...extra].join(", ")}; run 'npm run build'`);
    process.exit(1);
  }
  console.log(`dist/ is what the sources build: ${files.size} files`);
} else {
  await rm(at("dist"), { recursive: true, force: true });
  await mkdir(at("dist"));
  for (const [name, content] of files) {
    await writeFile(at("dist", name), content);
    console.log(`${String(content.length).padStart(8)}  ${name}`);
  }
}

/** The licences of all packages of which something is in the result. */
async function licences() {
  const inputs = [script, style].flatMap((result) => Object.keys(result.metafile.inputs));
  const names = new Set(["world-atlas", "@fontsource/ibm-plex-sans", "@fontsource/ibm-plex-mono"]);
  for (const input of inputs) {
    const found = /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(input);
    if (found) names.add(found[1]);
  }
  const texts = [];
  for (const name of [...names].sort()) {
    const folder = at("node_modules", name);
    const { version, license } = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
    const file = (await readdir(folder)).find((entry) => /^licen[cs]e(\.|$)/i.test(entry));
    const text = file ? await readFile(join(folder, file), "utf8") : license;
    texts.push(`${name} ${version} (${license})\n\n${text.trim()}\n`);
  }
  return `The console contains parts of these packages.\n\n${texts.join(`\n${"-".repeat(72)}\n\n`)}`;
}
