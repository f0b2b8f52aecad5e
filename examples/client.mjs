/**
 * A client of the gateway, to be copied into a bot or a page: many channels on one socket that heals itself.
 * Browsers have all it needs; Node needs `npm install ws`, which can send the token in a header.
 *
 * GATEWAY_TOKEN=... node examples/client.mjs --url ws://127.0.0.1:8000 positions:BTCUSDT price:ETHUSDT
 */

const isPage = !globalThis.process?.versions?.node;
const WebSocket = isPage ? globalThis.WebSocket : (await import("ws")).default;

/** The gateway is never silent for longer. */
const HEARTBEAT_S = 15;
/** Heartbeats without any message, after which the line is dead. */
const PATIENCE = 2.5;
const CONNECT_S = 10;
const PAUSE_S = 0.5;
const LONGEST_PAUSE_S = 30;
const GOING_AWAY = 1001;
const ABNORMAL = 1006;
/** Close codes after which the next try would end the same way. */
const FINAL = new Set([1008, 1009, 4400, 4401, 4403, 4404]);
/** HTTP statuses of that kind that pass. */
const PASSING = new Set([408, 429]);
const SUBSCRIPTION_ID = 1;

/** The gateway will not serve this client as it is. `code` is a close code, an HTTP status or an error's code. */
export class Refused extends Error {
  constructor(code, reason) {
    super(`refused by the gateway (${code}): ${reason}`);
    this.code = code;
    this.reason = reason;
  }
}

/**
 * What a client iterates.
 *
 * @typedef {object} Snapshot how a channel stands, whole: the message itself, its money in decimal strings, and
 * @property {"snapshot"} type
 * @property {string} channel
 * @property {string} epoch
 * @property {number} seq
 * @property {number} timestamp_ms
 * @property {boolean} isStale wholly or in parts: `stale` says in which
 * @property {boolean} isNewEpoch another process answers than before: seq has begun anew
 * @property {number} missed seqs left out since the last one of this epoch; normal where the pace is not live
 *
 * @typedef {{type: "status", channel: string, stale: string[], error: object | null}} Status what is stale has changed
 * @typedef {{type: "ended", channel: string, code: string, detail: string}} Ended a channel that cannot be had, or not
 *   any more; others go on. It is asked for again with the next connection.
 * @typedef {{type: "lost", code: number, reason: string, pauseS: number}} Lost the line is lost: all that came before
 *   gets old now. The next try is in `pauseS`.
 * @typedef {Snapshot | Status | Ended | Lost} Message
 */

/** Iterates what its channels say, until it is closed: over reconnects, which it tells of by `lost`. Throws Refused. */
export class Client {
  #url;
  #token;
  #heartbeatS;
  #paces = new Map();
  #seen = new Map();
  #line = null;
  #isClosed = false;
  #wake = () => {};

  /** @param {string} url @param {{token?: string, heartbeatS?: number}} options */
  constructor(url, { token, heartbeatS = HEARTBEAT_S } = {}) {
    this.#url = `${url.replace(/\/+$/, "")}/ws`;
    this.#token = token;
    this.#heartbeatS = heartbeatS;
  }

  /**
   * Have `channels` from now on, over reconnects too; 0 is live: each change as it happens. Channels of indicators may
   * come whenever a candle closes instead.
   */
  subscribe(channels, intervalS = 0, { onClose = false } = {}) {
    const pace = JSON.stringify(onClose ? { interval: intervalS, on: "close" } : { interval: intervalS });
    for (const channel of channels) this.#paces.set(channel, pace);
    this.#line?.send(subscription(channels, pace)); // the next connection asks for all of them
  }

  /** End the iteration from outside; inside of it, `break` does the same. */
  close() {
    this.#isClosed = true;
    this.#line?.close();
    this.#wake();
  }

  /** @returns {AsyncGenerator<Message, void, void>} */
  async *[Symbol.asyncIterator]() {
    for (let failures = 0; !this.#isClosed; failures += 1) {
      const line = (this.#line = new Line(this.#url, this.#token, this.#heartbeatS, () => this.#greeting()));
      try {
        for await (const message of line) {
          if (message.type === "snapshot") failures = 0;
          yield* this.#understood(message);
        }
      } finally {
        this.#line = null;
        line.close();
      }
      if (this.#isClosed) return;
      const { code, reason } = line.end;
      if (FINAL.has(code) || (code >= 400 && code < 500 && !PASSING.has(code))) throw new Refused(code, reason);
      const lost = { type: "lost", code, reason, pauseS: pauseS(code, reason, failures) };
      yield lost;
      if (!this.#isClosed) await this.#sleep(lost.pauseS);
    }
  }

  async #sleep(seconds) {
    let timer;
    await new Promise((resolve) => {
      this.#wake = resolve;
      timer = setTimeout(resolve, seconds * 1000);
    });
    clearTimeout(timer);
  }

  /** What is said first on every connection: the token, as pages cannot set headers, and what is wanted. */
  *#greeting() {
    if (isPage && this.#token) yield { op: "auth", token: this.#token };
    for (const pace of new Set(this.#paces.values())) {
      const channels = [...this.#paces.keys()].filter((name) => this.#paces.get(name) === pace);
      yield subscription(channels, pace);
    }
  }

  *#understood(message) {
    const { type, channel, code, detail } = message;
    if (type === "snapshot") yield* this.#fresh(message);
    else if (type === "status") yield message;
    else if (type === "ack") yield* (message.errors ?? []).map((fault) => ({ ...fault, type: "ended" }));
    else if (type === "error" && channel) yield { type: "ended", channel, code, detail };
    else if (type === "error" && message.id === SUBSCRIPTION_ID) throw new Refused(code, detail);
  }

  /** A snapshot, unless it or a later one of its epoch was there already. */
  *#fresh(message) {
    const { channel, epoch, seq } = message;
    const seen = this.#seen.get(channel) ?? { epoch, seq: seq - 1 };
    const isNewEpoch = epoch !== seen.epoch;
    if (seq <= seen.seq && !isNewEpoch) return;
    this.#seen.set(channel, { epoch, seq });
    const isStale = Array.isArray(message.stale) ? message.stale.length > 0 : message.stale;
    yield { ...message, isStale, isNewEpoch, missed: isNewEpoch ? 0 : seq - seen.seq - 1 };
  }
}

/** One connection, to its end. Of a channel whose snapshots are not taken in time, only the newest is kept. */
class Line {
  #socket;
  #greeting;
  #heartbeatS;
  #timer;
  #waiting = new Map();
  #wake = () => {};
  /** @type {{code: number, reason: string} | null} */
  end = null;

  constructor(url, token, heartbeatS, greeting) {
    this.#heartbeatS = heartbeatS;
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    this.#socket = isPage ? new WebSocket(url) : new WebSocket(url, { headers });
    this.#socket.onopen = () => {
      for (const message of greeting()) this.send(message);
      this.#hear();
    };
    this.#socket.onmessage = ({ data }) => this.#take(JSON.parse(data));
    this.#socket.onerror = ({ message }) => this.#fail(message);
    this.#socket.onclose = ({ code, reason }) => this.#finish(code, reason);
    this.#await(CONNECT_S, () => this.#finish(ABNORMAL, "not connected in time"));
  }

  send(message) {
    if (this.#socket.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  close() {
    this.#finish(1000, "closed by this client");
    this.#socket.close();
  }

  async *[Symbol.asyncIterator]() {
    while (this.#waiting.size > 0 || this.end === null) {
      for (const [key, message] of this.#waiting) {
        this.#waiting.delete(key);
        yield message;
      }
      if (this.end === null) await new Promise((resolve) => (this.#wake = resolve));
    }
  }

  #take(message) {
    this.#hear();
    const key = message.type === "snapshot" ? message.channel : Symbol(message.type);
    this.#waiting.delete(key); // so that what is newest is also last
    this.#waiting.set(key, message);
    this.#wake();
  }

  /** A sign of life: one heartbeat without another makes a ping; where nothing answers that, the line is dead. */
  #hear() {
    this.#await(this.#heartbeatS, () => {
      this.send({ op: "ping" });
      this.#await(this.#heartbeatS * (PATIENCE - 1), () => this.#finish(ABNORMAL, "no sign of life"));
    });
  }

  /** Node's `ws` tells the status of an upgrade that was refused; browsers keep it to themselves. */
  #fail(detail = "not connected") {
    const status = /Unexpected server response: (\d+)/.exec(detail)?.[1];
    this.#finish(Number(status ?? ABNORMAL), detail);
  }

  #finish(code, reason) {
    clearTimeout(this.#timer);
    this.end ??= { code, reason };
    this.#wake();
  }

  #await(seconds, then) {
    clearTimeout(this.#timer);
    if (this.end === null) this.#timer = setTimeout(then, seconds * 1000);
  }
}

const subscription = (channels, pace) => ({ op: "subscribe", id: SUBSCRIPTION_ID, channels, ...JSON.parse(pace) });

/** How long to wait before the next try, so that not all clients come back in the same moment. */
export function pauseS(code, reason, failures) {
  if (code === GOING_AWAY) return PAUSE_S * Math.random();
  const named = /retry after (\d+\.?\d*) s/.exec(reason)?.[1];
  if (named) return Number(named) * (1 + Math.random() / 2);
  return Math.min(LONGEST_PAUSE_S, PAUSE_S * 2 ** failures) * (0.5 + Math.random() / 2);
}

const USAGE = `usage: node client.mjs [--url ws://HOST:PORT] [--interval SECONDS] CHANNEL...

Print one line per message; --interval 0 shows each change. A token is taken from GATEWAY_TOKEN.`;

/** Print one line per message. */
async function main() {
  const { parseArgs } = await import("node:util");
  const options = {
    url: { type: "string", default: "ws://127.0.0.1:8000" },
    interval: { type: "string", default: "0" },
    help: { type: "boolean", short: "h", default: false },
  };
  const { values, positionals } = parseArgs({ options, allowPositionals: true });
  if (values.help) return console.log(USAGE);
  if (positionals.length === 0) throw new Error("name at least one channel, like price:BTCUSDT");
  if (!/^\d+(\.\d+)?$/.test(values.interval)) throw new Error(`--interval is ${values.interval}; allowed: seconds, as 0.5`);
  const gateway = new Client(values.url, { token: process.env.GATEWAY_TOKEN });
  gateway.subscribe(positionals, Number(values.interval));
  for await (const message of gateway) console.log(JSON.stringify(message));
}

const command = globalThis.process?.argv?.[1]?.replaceAll("\\", "/").replace(/^\/+/, "");
if (command && import.meta.url === new URL(`file:///${command}`).href) {
  main().catch((error) => {
    console.error(error.message);
    process.exitCode = 1;
  });
}
