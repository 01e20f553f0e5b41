// What the page asks of the gateway. The key goes into a header, never into an address: addresses end in logs.

const SILENCE_MS = 45_000; // the feed gives a sign of life every 15 seconds
const PATIENCE_MS = 20_000;
const PLAIN = { credentials: "omit", cache: "no-store" }; // else a browser answers a 401 with a dialog of its own

export class ApiError extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
  get refused() {
    return this.status === 400 || this.status === 401 || this.status === 403 || this.status === 404;
  }
}

export class Api {
  constructor({ tenant, uid, key }) {
    this.base = `v1/tenants/${encodeURIComponent(tenant)}/users/${encodeURIComponent(uid)}`;
    this.headers = { authorization: `Bearer ${key}` };
  }

  page(limit, cursor, signal) {
    const query = new URLSearchParams({ limit: String(limit) });
    if (cursor) query.set("cursor", cursor);
    return this.#json(`events?${query}`, signal);
  }

  // Of all events, or of those from one moment up to before another (milliseconds).
  count(signal, from, to) {
    const range = from === undefined ? "" : `?${new URLSearchParams({ from: stamp(from), to: stamp(to) })}`;
    return this.#json(`count${range}`, signal);
  }

  // Calls back for every event, and whenever the feed opens, breaks off or starts anew; ends only with the signal or a refusal.
  async follow({ onOpen, onEvent, onReset, onBreak }, signal) {
    let last = "";
    let pause = 500;
    while (!signal.aborted) {
      try {
        for await (const block of this.#feed(last, signal)) {
          if (block.opened) {
            pause = 500;
            await onOpen();
          }
          if (block.event === "reset") onReset();
          else if (block.data) onEvent(JSON.parse(block.data));
          if (block.id) last = block.id; // after the event is in hand: never a gap
        }
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof ApiError && error.refused) throw error;
      }
      if (signal.aborted) return;
      onBreak();
      await sleep(pause, signal);
      pause = Math.min(pause * 2, 8_000);
    }
  }

  async *#feed(last, signal) {
    const stop = new AbortController();
    const ended = () => stop.abort();
    signal.addEventListener("abort", ended);
    let watchdog = setTimeout(ended, SILENCE_MS);
    try {
      const headers = last ? { ...this.headers, "last-event-id": last } : this.headers;
      const answer = await fetch(`${this.base}/live?from=stored`, { ...PLAIN, headers, signal: stop.signal });
      if (!answer.ok) throw await refusal(answer);
      yield { opened: true };
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return;
        clearTimeout(watchdog);
        watchdog = setTimeout(ended, SILENCE_MS);
        const blocks = (rest + value).split("\n\n");
        rest = blocks.pop();
        for (const block of blocks) yield parsed(block);
      }
    } finally {
      clearTimeout(watchdog);
      signal.removeEventListener("abort", ended);
      stop.abort();
    }
  }

  async #json(path, signal) {
    const late = AbortSignal.any([signal, AbortSignal.timeout(PATIENCE_MS)]);
    const answer = await fetch(`${this.base}/${path}`, { ...PLAIN, headers: this.headers, signal: late });
    if (!answer.ok) throw await refusal(answer);
    return answer.json();
  }
}

function stamp(ms) {
  return new Date(ms).toISOString();
}

function parsed(block) {
  const fields = { event: "message", id: "", data: "" };
  for (const line of block.split("\n")) {
    const at = line.indexOf(":");
    if (at > 0) fields[line.slice(0, at)] = line.slice(at + 1).trimStart();
  }
  return fields;
}

async function refusal(answer) {
  const said = await answer.json().catch(() => ({}));
  return new ApiError(answer.status, said.detail ?? `the gateway answered ${answer.status}`);
}

function sleep(ms, signal) {
  return new Promise((done) => {
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", () => { clearTimeout(timer); done(); }, { once: true });
  });
}
