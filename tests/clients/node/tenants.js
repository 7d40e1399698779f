// ioredis, iovalkey and node-redis as a user, at an address: says what they read of the key `k`.
"use strict";

const fs = require("node:fs");

const [port, caFile, username, password] = process.argv.slice(2);
const ca = fs.readFileSync(caFile);

async function main() {
  for (const library of ["ioredis", "iovalkey"]) {
    const Client = require(library).default ?? require(library);
    const options = { username, password, tls: { ca, host: "127.0.0.1" } };
    const plain = new Client({ host: "127.0.0.1", port: Number(port), ...options });
    console.log(library, "plain", await plain.get("k"));
    plain.disconnect();
    const cluster = new Client.Cluster([{ host: "127.0.0.1", port: Number(port) }], { redisOptions: options });
    console.log(library, "cluster", await cluster.get("k"));
    cluster.disconnect();
  }
  const { createClient } = require("redis");
  for (const RESP of [2, 3]) {
    const client = createClient({
      RESP, username, password,
      socket: { host: "127.0.0.1", port: Number(port), tls: true, ca },
    });
    await client.connect();
    console.log("node-redis", RESP, await client.get("k"));
    client.destroy();
  }
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
