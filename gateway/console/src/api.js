// What the console asks of its node. It asks nobody else.

const TOKEN = "tidemark-token";
/** In the paths of D1's API. Any account is as good as another. */
const ACCOUNT = "console";

export const databasesPath = (rest = "") => `/client/v4/accounts/${ACCOUNT}/d1/database${rest}`;

/** What went wrong with a request, in the node's words if it had any. */
export class ApiError extends Error {
  constructor(message, status, kind) {
    super(message);
    this.name = "ApiError";
    this.status = status;
    this.kind = kind;
  }
}

/** Called when a token is missing or wrong; resolves to whether there is another to try. */
let askForToken = async () => false;

export function onTokenNeeded(ask) {
  askForToken = ask;
}

export const token = {
  get: () => sessionStorage.getItem(TOKEN),
  set: (text) => sessionStorage.setItem(TOKEN, text),
  forget: () => sessionStorage.removeItem(TOKEN),
};

/** Sends a request and returns what came, whatever it is. Waits for a token when one is needed. */
export async function send(path, { method = "GET", headers = {}, body, wait = 10_000 } = {}) {
  for (;;) {
    const used = token.get();
    const all = { ...headers };
    if (used) all.authorization = `Bearer ${used}`;
    const started = performance.now();
    let response;
    let text;
    try {
      response = await fetch(path, { method, headers: all, body, cache: "no-store", signal: AbortSignal.timeout(wait) });
      text = await response.text();
    } catch (error) {
      const silent = error.name === "TimeoutError";
      throw new ApiError(silent ? "The node did not answer in time" : "The node cannot be reached", 0, "unreachable");
    }
    if (response.status === 401 && (await askForToken(used))) continue;
    return { status: response.status, headers: response.headers, text, took: performance.now() - started };
  }
}

/** Sends a request of which the answer is an envelope; returns its result. */
export async function ask(path, options) {
  const reply = await send(path, options);
  return { ...reply, result: opened(reply) };
}

function opened({ status, headers, text }) {
  let envelope;
  try {
    envelope = JSON.parse(text);
  } catch {
    throw new ApiError(`The node answered ${status} with something unreadable`, status, null);
  }
  if (status >= 400 || envelope.success === false) {
    const message = envelope.errors?.[0]?.message ?? `The node answered ${status}`;
    throw new ApiError(message, status, headers.get("tidemark-failure"));
  }
  return envelope.result;
}

/** Runs SQL; returns D1's results with columns apart from rows, who answered, and the new bookmark. */
export async function run(database, sql, { params = [], bookmark } = {}) {
  const headers = { "content-type": "application/json" };
  if (bookmark) headers["x-d1-bookmark"] = bookmark;
  const body = JSON.stringify({ sql, params });
  const path = databasesPath(`/${encodeURIComponent(database)}/raw`);
  const { result, headers: answered, took } = await ask(path, { method: "POST", headers, body, wait: 40_000 });
  return {
    results: result,
    took,
    bookmark: answered.get("x-d1-bookmark"),
    servedBy: served(answered.get("tidemark-served-by")),
  };
}

/** `WEUR/replica/dfd2…` taken apart. */
export function served(text) {
  const [region, role, node] = (text ?? "").split("/");
  return node ? { region, role, node } : null;
}
