// iovalkey: `Redis` and `Redis.Cluster`; it has RESP2 only.
"use strict";

const Redis = require("iovalkey");
const { runAll } = require("./ioredis_like.js");

runAll("iovalkey", Redis.default ?? Redis, []);
