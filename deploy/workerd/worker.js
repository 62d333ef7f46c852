// Customers of the sample database. Whoever adds one sees it in the list at once, though it is written in
// the primary's region and the list is read in this one: the session's bookmark, kept in a cookie, takes
// care of that.

export default {
  async fetch(request, env) {
    const cookies = request.headers.get("cookie") ?? "";
    const bookmark = cookies.match(/(?:^|; *)bookmark=([0-9a-f-]+)/)?.[1];
    const db = env.DB.withSession(bookmark ?? "first-unconstrained");

    let written;
    if (request.method === "POST") {
      const { name, city } = await request.json();
      written = await db
        .prepare("INSERT INTO customers (name, city, joined) VALUES (?, ?, date())")
        .bind(name, city)
        .run();
    }
    const read = await db
      .prepare("SELECT name, city FROM customers ORDER BY rowid DESC LIMIT 10")
      .all();

    const answer = {
      customers: read.results,
      written_in: written?.meta.served_by_region,
      read_in: read.meta.served_by_region,
    };
    const cookie = `bookmark=${db.getBookmark()}; Path=/; HttpOnly; SameSite=Lax`;
    return Response.json(answer, { headers: { "set-cookie": cookie } });
  },
};
