// ioredis: `Redis` and `Redis.Cluster`, in RESP2 and RESP3.
"use strict";

const Redis = require("ioredis");
const { runAll } = require("./ioredis_like.js");

runAll("ioredis", Redis.default ?? Redis, [2, 3]);
