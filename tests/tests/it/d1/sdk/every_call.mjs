// Every call for D1 of npm's `cloudflare`, at the node that the environment names:
// node every_call.mjs <folder of the package>
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const { default: Cloudflare } = await import(pathToFileURL(join(process.argv[2], "index.mjs")));
const client = new Cloudflare();
const { database } = client.d1;
const account_id = "default";

async function all(pages) {
  const items = [];
  for await (const item of pages) items.push(item);
  return items;
}

/** The call fails with this error of the SDK's, and D1's code in it. */
async function fails(kind, code, call) {
  await assert.rejects(call, (error) => {
    assert.ok(error instanceof kind, `${error.constructor.name}: ${error.message}`);
    assert.equal(error.errors[0].code, code);
    return true;
  });
}

/** Asks again and again, as the answers say, until it is done. */
async function polled(first, again) {
  let told = first;
  while (told.status !== "complete") {
    assert.ok(told.success, told.error);
    assert.equal(told.status, "active", told.error);
    told = await again(told.at_bookmark);
  }
  return told.result;
}

// create, list, get, update, edit
const made = await database.create({ account_id, name: "shop", primary_location_hint: "weur" });
assert.equal(made.name, "shop");
assert.equal(made.version, "production");
for (const name of ["shop-2", "shop-3", "other"]) await database.create({ account_id, name });
await fails(Cloudflare.BadRequestError, 7502, () => database.create({ account_id, name: "shop" }));
const names = (await all(database.list({ account_id, per_page: 2 }))).map((found) => found.name);
assert.deepEqual(names.sort(), ["other", "shop", "shop-2", "shop-3"]);
assert.equal((await all(database.list({ account_id, name: "shop" }))).length, 3);
const id = made.uuid;
assert.equal((await database.get(id, { account_id })).uuid, id);
const fields = await database.get("shop", { account_id, fields: ["uuid", "name"] });
assert.deepEqual(fields, { uuid: id, name: "shop" });
const off = await database.update(id, { account_id, read_replication: { mode: "disabled" } });
assert.equal(off.read_replication.mode, "disabled");
const on = await database.edit(id, { account_id, read_replication: { mode: "auto" } });
assert.equal(on.read_replication.mode, "auto");

// query, raw
const batch = [
  { sql: "CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT)" },
  { sql: "INSERT INTO t (b) VALUES (?), (?)", params: ["x", "ü"] },
];
const ran = (await database.query(id, { account_id, batch })).result;
assert.equal(ran.length, 2);
assert.equal(ran[1].meta.changes, 2);
const sql = "SELECT a, b FROM t WHERE a > ? ORDER BY a";
const query = (await database.query(id, { account_id, sql, params: ["0"] })).result;
assert.deepEqual(query[0].results, [{ a: 1, b: "x" }, { a: 2, b: "ü" }]);
const raw = (await database.raw(id, { account_id, sql, params: ["1"] })).result;
assert.deepEqual(raw[0].results, { columns: ["a", "b"], rows: [[2, "ü"]] });
await fails(Cloudflare.BadRequestError, 7500, () => database.query(id, { account_id, sql: "SELEC" }));
await fails(Cloudflare.BadRequestError, 7400, () => database.raw(id, { account_id }));
const nobody = "00000000-0000-4000-8000-000000000000";
await fails(Cloudflare.NotFoundError, 7404, () => database.get(nobody, { account_id }));

// time travel
const { bookmark } = await database.timeTravel.getBookmark(id, { account_id });
assert.match(bookmark, /^[0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]{32}$/);

// import
const file = "CREATE TABLE imported (n);\nINSERT INTO imported VALUES (1), (2), (3);\n";
const etag = createHash("md5").update(file).digest("hex");
const invited = await database.import(id, { account_id, action: "init", etag });
const sent = await fetch(invited.upload_url, { method: "PUT", body: file });
assert.equal(sent.status, 200);
assert.equal(sent.headers.get("etag").replaceAll('"', ""), etag);
const { filename } = invited;
const begun = await database.import(id, { account_id, action: "ingest", etag, filename });
const poll = (current_bookmark) => database.import(id, { account_id, action: "poll", current_bookmark });
const imported = await polled(begun, poll);
assert.equal(imported.num_queries, 2);
assert.ok(imported.final_bookmark > bookmark);
const count = (await database.query(id, { account_id, sql: "SELECT count(*) AS n FROM imported" })).result;
assert.deepEqual(count[0].results, [{ n: 3 }]);

// export
const wish = { account_id, output_format: "polling" };
const told = await database.export(id, wish);
const exported = await polled(told, (current_bookmark) => database.export(id, { ...wish, current_bookmark }));
const dump = await (await fetch(exported.signed_url)).text();
assert.match(dump, /^PRAGMA defer_foreign_keys=TRUE;/);
assert.equal(dump.match(/INSERT INTO "?imported/g).length, 3);

// delete
assert.equal(await database.delete(id, { account_id }), null);
await fails(Cloudflare.NotFoundError, 7404, () => database.delete(id, { account_id }));
await fails(Cloudflare.NotFoundError, 7404, () => database.query(id, { account_id, sql: "SELECT 1" }));
console.log("every call was made");
