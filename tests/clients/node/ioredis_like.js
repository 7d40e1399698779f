// The suite for ioredis and iovalkey, which share their interface.
"use strict";

const { Mismatch, PIPELINE_COMMANDS, argumentsGiven, run } = require("./suite.js");

// The operations every client must be able to do; an error reply is compared, not thrown.
async function shared(s, client, skip) {
  for (const { what, args, want } of s.operations(skip)) {
    const got = await client.callBuffer(args[0].toString(), ...args.slice(1)).catch((error) => error);
    s.check(what, got, want);
  }
}

// The same by the library's own methods, whose reply parsers are stricter.
async function native(s, client) {
  const [key, value] = [s.name("native"), s.name("native value")];
  s.check("set()", await client.set(key, value, "EX", 100), "OK");
  s.check("get()", await client.get(key), value);
  s.check("hset()", await client.hset(s.name("nh"), { a: value, b: "2" }), 2);
  s.check("hgetall()", await client.hgetall(s.name("nh")), { map: { a: value, b: "2" } });
  s.check("zadd()", await client.zadd(s.name("nz"), 1.5, "m"), 1);
  s.check("zrange()", await client.zrange(s.name("nz"), 0, -1, "WITHSCORES"), { scores: [["m", 1.5]] });
  s.check("sadd()", await client.sadd(s.name("ns"), value), 1);
  s.check("smembers()", await client.smembers(s.name("ns")), { set: [value] });
  s.check("eval()", await client.eval("return ARGV[1]", 1, key, value), value);
}

async function crossSlot(s, client) {
  const names = Array.from({ length: 100 }, (_, i) => s.name(`many ${i}`));
  const values = names.map((_, i) => s.name(`value ${i}`));
  s.check("mset() of 100 slots", await client.mset(names.flatMap((name, i) => [name, values[i]])), "OK");
  s.check("mget() of 100 slots", await client.mget(names), { list: values });
  s.check("del() of 100 slots", await client.del(names), 100);
}

// Ten thousand commands in one pipeline; every reply is checked.
async function pipeline(s, client) {
  const pipe = client.pipeline();
  for (let i = 0; i < PIPELINE_COMMANDS / 2; i += 1) {
    pipe.set(s.name(`p${i}`), s.name(`v${i}`));
    pipe.get(s.name(`p${i}`));
  }
  const replies = await pipe.exec();
  s.check("pipeline length", replies.length, PIPELINE_COMMANDS);
  for (let i = 0; i < PIPELINE_COMMANDS / 2; i += 1) {
    const [[e1, set], [e2, get]] = replies.slice(2 * i, 2 * i + 2);
    if (e1 || e2 || set !== "OK" || get !== s.name(`v${i}`)) {
      throw new Mismatch(`pipeline, pair ${i}: got ${e1 ?? set} and ${e2 ?? get}`);
    }
  }
  s.passed += 1;
}

// Every mode and protocol of the library `Redis`; `protocols` is empty for one that only has RESP2.
async function runAll(name, Redis, protocols) {
  const to = argumentsGiven();
  const tls = { ca: to.ca };
  for (const protocol of protocols.length ? protocols : [undefined]) {
    const options = { tls, ...(protocol && { protocol }), commandTimeout: 30_000, maxRetriesPerRequest: 3 };
    const suffix = protocol ? `-resp${protocol}` : "";
    if (to.standalone) {
      await run(`${name}${suffix}`, async (s) => {
        const client = new Redis({ host: to.host, port: to.port, connectionName: s.unique, ...options });
        s.check("connectionName", await client.client("GETNAME"), s.unique);
        await shared(s, client, to.splits ? [] : ["cross"]);
        await native(s, client);
        if (to.splits) await crossSlot(s, client);
        await pipeline(s, client);
        s.check("quit()", await client.quit(), "OK");
      });
    }
    if (to.cluster) {
      await run(`${name}-cluster${suffix}`, async (s) => {
        const client = new Redis.Cluster([{ host: to.host, port: to.port }], { redisOptions: options });
        await shared(s, client, to.splits ? ["standalone"] : ["standalone", "cross"]);
        await native(s, client);
        if (to.splits) await crossSlot(s, client);
        await pipeline(s, client);
        s.check("quit()", await client.quit(), "OK");
      });
    }
  }
}

module.exports = { runAll };
