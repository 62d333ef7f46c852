"""Every call for D1 of PyPI's `cloudflare`, at the node that the environment names."""

import hashlib
import re

import cloudflare
import httpx

client = cloudflare.Cloudflare()
database = client.d1.database
account = {"account_id": "default"}


def fails(kind, code, call):
    """The call fails with this error of the SDK's, and D1's code in it."""
    try:
        call()
    except kind as error:
        assert error.body["errors"][0]["code"] == code, error.body
    else:
        raise AssertionError(f"{kind.__name__} was expected")


def polled(told, again):
    """Asks again and again, as the answers say, until it is done."""
    while told.status != "complete":
        assert told.success and told.status == "active", told
        told = again(told.at_bookmark)
    return told.result


# create, list, get, update, edit
made = database.create(**account, name="shop", primary_location_hint="weur")
assert (made.name, made.version) == ("shop", "production"), made
for name in ["shop-2", "shop-3", "other"]:
    database.create(**account, name=name)
fails(cloudflare.BadRequestError, 7502, lambda: database.create(**account, name="shop"))
names = sorted(found.name for found in database.list(**account, per_page=2))
assert names == ["other", "shop", "shop-2", "shop-3"], names
assert len(list(database.list(**account, name="shop"))) == 3
uuid = made.uuid
assert database.get(uuid, **account).uuid == uuid
assert database.get("shop", **account).created_at == made.created_at
off = database.update(uuid, **account, read_replication={"mode": "disabled"})
assert off.read_replication.mode == "disabled", off
on = database.edit(uuid, **account, read_replication={"mode": "auto"})
assert on.read_replication.mode == "auto", on

# query, raw
batch = [
    {"sql": "CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT)"},
    {"sql": "INSERT INTO t (b) VALUES (?), (?)", "params": ["x", "ü"]},
]
ran = database.query(uuid, **account, batch=batch).result
assert len(ran) == 2 and ran[1].meta.changes == 2, ran
sql = "SELECT a, b FROM t WHERE a > ? ORDER BY a"
query = database.query(uuid, **account, sql=sql, params=["0"]).result
assert query[0].results == [{"a": 1, "b": "x"}, {"a": 2, "b": "ü"}], query
raw = database.raw(uuid, **account, sql=sql, params=["1"]).result
assert raw[0].results.columns == ["a", "b"] and raw[0].results.rows == [[2, "ü"]], raw
fails(cloudflare.BadRequestError, 7500, lambda: database.query(uuid, **account, sql="SELEC"))
fails(cloudflare.BadRequestError, 7400, lambda: database.raw(uuid, **account, batch=[{"sql": 1}]))
nobody = "00000000-0000-4000-8000-000000000000"
fails(cloudflare.NotFoundError, 7404, lambda: database.get(nobody, **account))

# time travel
bookmark = database.time_travel.get_bookmark(uuid, **account).bookmark
assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]{32}", bookmark), bookmark

# import
file = b"CREATE TABLE imported (n);\nINSERT INTO imported VALUES (1), (2), (3);\n"
etag = hashlib.md5(file).hexdigest()
invited = database.import_(uuid, **account, action="init", etag=etag)
sent = httpx.put(invited.upload_url, content=file)
assert sent.status_code == 200 and sent.headers["etag"].strip('"') == etag, sent
begun = database.import_(uuid, **account, action="ingest", etag=etag, filename=invited.filename)
imported = polled(
    begun,
    lambda at: database.import_(uuid, **account, action="poll", current_bookmark=at),
)
assert imported.num_queries == 2 and imported.final_bookmark > bookmark, imported
count = database.query(uuid, **account, sql="SELECT count(*) AS n FROM imported").result
assert count[0].results == [{"n": 3}], count

# export
told = database.export(uuid, **account, output_format="polling")
exported = polled(
    told,
    lambda at: database.export(uuid, **account, output_format="polling", current_bookmark=at),
)
dump = httpx.get(exported.signed_url).text
assert dump.startswith("PRAGMA defer_foreign_keys=TRUE;"), dump
assert len(re.findall(r'INSERT INTO "?imported', dump)) == 3, dump

# delete
assert database.delete(uuid, **account) is None
fails(cloudflare.NotFoundError, 7404, lambda: database.delete(uuid, **account))
fails(cloudflare.NotFoundError, 7404, lambda: database.query(uuid, **account, sql="SELECT 1"))
print("every call was made")
