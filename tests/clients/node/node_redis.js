// node-redis: `createClient` and `createCluster`, in RESP2 and RESP3.
"use strict";

const { createClient, createCluster, RESP_TYPES } = require("redis");
const { Mismatch, PIPELINE_COMMANDS, argumentsGiven, run } = require("./suite.js");

const KEYED_AT_3 = new Set(["EVAL"]);

// The operations every client must be able to do; an error reply is compared, not thrown.
async function shared(s, send, skip) {
  for (const { what, args, want } of s.operations(skip)) {
    s.check(what, await send(args).catch((error) => error), want);
  }
}

// The same by the library's own methods, whose reply parsers are stricter.
async function native(s, client) {
  const [key, value] = [s.name("native"), s.name("native value")];
  s.check("set()", await client.set(key, value, { expiration: { type: "EX", value: 100 } }), "OK");
  s.check("get()", await client.get(key), value);
  s.check("hSet()", await client.hSet(s.name("nh"), { a: value, b: "2" }), 2);
  s.check("hGetAll()", { ...(await client.hGetAll(s.name("nh"))) }, { map: { a: value, b: "2" } });
  s.check("zAdd()", await client.zAdd(s.name("nz"), { score: 1.5, value: "m" }), 1);
  const ranged = await client.zRangeWithScores(s.name("nz"), 0, -1);
  s.check("zRangeWithScores()", ranged.map((m) => [m.value, m.score]), { scores: [["m", 1.5]] });
  s.check("sAdd()", await client.sAdd(s.name("ns"), value), 1);
  s.check("sMembers()", await client.sMembers(s.name("ns")), { set: [value] });
  s.check("eval()", await client.eval("return ARGV[1]", { keys: [key], arguments: [value] }), value);
}

async function crossSlot(s, client) {
  const names = Array.from({ length: 100 }, (_, i) => s.name(`many ${i}`));
  const values = names.map((_, i) => s.name(`value ${i}`));
  s.check("mSet() of 100 slots", await client.mSet(names.map((name, i) => [name, values[i]])), "OK");
  s.check("mGet() of 100 slots", await client.mGet(names), { list: values });
  s.check("del() of 100 slots", await client.del(names), 100);
}

// Ten thousand commands written at once (the library pipelines what one tick asks for).
async function pipeline(s, client) {
  const asked = [];
  for (let i = 0; i < PIPELINE_COMMANDS / 2; i += 1) {
    asked.push(client.set(s.name(`p${i}`), s.name(`v${i}`)), client.get(s.name(`p${i}`)));
  }
  const replies = await Promise.all(asked);
  s.check("pipeline length", replies.length, PIPELINE_COMMANDS);
  for (let i = 0; i < PIPELINE_COMMANDS / 2; i += 1) {
    if (replies[2 * i] !== "OK" || replies[2 * i + 1] !== s.name(`v${i}`)) {
      throw new Mismatch(`pipeline, pair ${i}: got ${replies[2 * i]} and ${replies[2 * i + 1]}`);
    }
  }
  s.passed += 1;
}

async function main() {
  const to = argumentsGiven();
  const raw = { typeMapping: { [RESP_TYPES.BLOB_STRING]: Buffer } };
  const socket = { tls: true, ca: to.ca };
  const url = `rediss://${to.host}:${to.port}`;
  for (const RESP of [2, 3]) {
    if (to.standalone) {
      await run(`node-redis-resp${RESP}`, async (s) => {
        const client = createClient({ url, socket, RESP, name: s.unique });
        client.on("error", (error) => console.error(`node-redis: ${error.message}`));
        await client.connect();
        s.check("name", await client.clientGetName(), s.unique);
        const send = (args) => client.sendCommand(args, raw);
        await shared(s, send, to.splits ? [] : ["cross"]);
        await native(s, client);
        if (to.splits) await crossSlot(s, client);
        await pipeline(s, client);
        await client.close();
      });
    }
    if (to.cluster) {
      await run(`node-redis-cluster-resp${RESP}`, async (s) => {
        const client = createCluster({ rootNodes: [{ url }], defaults: { socket, RESP } });
        client.on("error", (error) => console.error(`node-redis: ${error.message}`));
        await client.connect();
        const send = (args) => {
          const key = args[KEYED_AT_3.has(args[0].toString()) ? 3 : 1];
          return client.sendCommand(key, false, args, raw);
        };
        await shared(s, send, to.splits ? ["standalone"] : ["standalone", "cross"]);
        await native(s, client);
        if (to.splits) await crossSlot(s, client);
        await pipeline(s, client);
        await client.close();
      });
    }
  }
}

main();
