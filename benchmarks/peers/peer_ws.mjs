// Node's ws: one buffer for all sockets, `send` in a loop. Skips sockets whose buffer is full.

import { readFileSync } from "node:fs";
import { WebSocketServer } from "ws";

const FIRST_SEQUENCE = 100_000_000_000;
const BUFFERED_BYTES = 65_536;

const [port, sockets, file] = process.argv.slice(2);
const [before, after] = readFileSync(file, "utf8").split(`"seq":${FIRST_SEQUENCE}`);
const server = new WebSocketServer({ host: "127.0.0.1", port: Number(port), perMessageDeflate: false });
let sequence = FIRST_SEQUENCE;

function broadcast() {
  sequence += 1;
  const message = Buffer.from(`${before}"seq":${sequence}${after}`);
  for (const client of server.clients) {
    if (client.bufferedAmount <= BUFFERED_BYTES) client.send(message, { binary: false });
  }
  setImmediate(broadcast);
}

server.on("connection", (socket) => {
  socket.on("error", () => {});
  if (server.clients.size === Number(sockets)) broadcast();
});
