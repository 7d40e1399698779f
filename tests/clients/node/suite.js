// What the Node client suites share: arguments, the list of operations, and comparing replies.
//
// A suite is given host, port and CA, and nothing else about the server. It says
// `CLIENT ok N operations` for each client that passed, and stops with code 1 at the first
// operation whose reply is not the expected one.
"use strict";

const crypto = require("node:crypto");
const fs = require("node:fs");
const path = require("node:path");
const { parseArgs } = require("node:util");

const OPERATIONS = path.join(__dirname, "..", "operations.json");
const PIPELINE_COMMANDS = 10_000;

class Mismatch extends Error {}

// Host, port and CA, and which part of the suite to run.
function argumentsGiven() {
  const { values } = parseArgs({
    options: {
      host: { type: "string" },
      port: { type: "string" },
      ca: { type: "string" },
      mode: { type: "string", default: "all" },
      "cross-slot": { type: "string", default: "split" },
    },
  });
  for (const name of ["host", "port", "ca"]) {
    if (!values[name]) throw new Error(`--${name} is needed`);
  }
  return {
    host: values.host,
    port: Number(values.port),
    ca: fs.readFileSync(values.ca),
    standalone: values.mode !== "cluster",
    cluster: values.mode !== "standalone",
    splits: values["cross-slot"] === "split",
  };
}

// One client's run: counts what passed, and fails at the first mismatch.
class Suite {
  constructor(client) {
    this.client = client;
    this.unique = `${client}-${crypto.randomBytes(6).toString("hex")}`;
    this.passed = 0;
  }

  // A key or value no other run uses.
  name(suffix) {
    return `${this.unique}:${suffix}`;
  }

  check(what, got, want) {
    if (!same(got, want)) {
      throw new Mismatch(`${what}: expected ${short(want)}, got ${short(got)}`);
    }
    this.passed += 1;
  }

  // The shared operations, less those marked with one of `skip`; arguments are Buffers.
  operations(skip) {
    return JSON.parse(fs.readFileSync(OPERATIONS, "utf8"))
      .operations.filter((operation) => !skip.includes(operation.only))
      .map((operation) => {
        const args = operation.do.map((argument) =>
          typeof argument === "string"
            ? Buffer.from(this.fill(argument))
            : literal(this.fill(argument)),
        );
        return { what: args.map(short).join(" "), args, want: this.fill(operation.want) };
      });
  }

  fill(want) {
    if (typeof want === "string") return want.replaceAll("~", this.unique);
    if (Array.isArray(want)) return want.map((item) => this.fill(item));
    if (want && typeof want === "object") {
      return Object.fromEntries(
        Object.entries(want).map(([key, value]) => [this.fill(key), this.fill(value)]),
      );
    }
    return want;
  }
}

// The bytes that {hex} and {repeat} stand for.
function literal(want) {
  if (want.hex !== undefined) return Buffer.from(want.hex, "hex");
  return Buffer.from(want.repeat[0].repeat(want.repeat[1]));
}

// A reply with every text as a string of bytes, and maps as plain lists of pairs.
function plain(value) {
  if (Buffer.isBuffer(value)) return value.toString("latin1");
  if (typeof value === "string") return Buffer.from(value).toString("latin1");
  return value;
}

function pairs(got) {
  if (got instanceof Map) return [...got.entries()];
  if (got instanceof Set) got = [...got];
  if (!Array.isArray(got)) return got && typeof got === "object" ? Object.entries(got) : [];
  if (got.every(Array.isArray) && got.length > 0) return got;
  const out = [];
  for (let i = 0; i + 1 < got.length; i += 2) out.push([got[i], got[i + 1]]);
  return out;
}

function sameMap(got, want) {
  const sorted = (list) => JSON.stringify(list.map(([k, v]) => [plain(k), plain(v)]).sort());
  return sorted(pairs(got)) === sorted(Object.entries(want));
}

const COMPARE = {
  error: (got, want) => got instanceof Error && got.message.includes(want),
  float: (got, want) => Math.abs(Number(plain(got)) - want) < 1e-9,
  between: (got, want) => typeof got === "number" && want[0] <= got && got <= want[1],
  list: (got, want) =>
    Array.isArray(got) && got.length === want.length && got.every((item, i) => same(item, want[i])),
  set: (got, want) =>
    JSON.stringify([...got].map(plain).sort()) === JSON.stringify(want.map(plain).sort()),
  map: sameMap,
  scores: (got, want) =>
    JSON.stringify(pairs(got).map(([m, s]) => [plain(m), Number(plain(s))])) ===
    JSON.stringify(want.map(([m, s]) => [plain(m), s])),
  entries: (got, want) =>
    got.length === want.length &&
    want.every(([id, fields], i) => plain(got[i][0]) === id && sameMap(got[i][1], fields)),
  hex: (got, hex) => plain(got) === plain(literal({ hex })),
  repeat: (got, repeat) => plain(got) === plain(literal({ repeat })),
};

// Whether a client's reply, in whatever type it prefers, is the expected one.
function same(got, want) {
  if (want && typeof want === "object") {
    const [kind, value] = Object.entries(want)[0];
    if (!COMPARE[kind]) throw new Error(`operations.json: unknown expectation ${kind}`);
    return COMPARE[kind](got, value);
  }
  if (typeof want === "number") return got === want;
  return plain(got) === plain(want);
}

// A value for a message, cut to a readable length.
function short(value) {
  if (Buffer.isBuffer(value)) value = value.toString();
  const text =
    typeof value === "string" ? value : value instanceof Error ? String(value) : JSON.stringify(value);
  return text !== undefined && text.length > 160 ? `${text.slice(0, 160)}... (${text.length})` : `${text}`;
}

// Runs one client's body with a Suite; prints its line, or the mismatch and stops.
async function run(client, body) {
  const suite = new Suite(client);
  const limit = setTimeout(() => {
    console.error(`${client} FAILED after ${suite.passed} operations: nothing for 60 seconds`);
    process.exit(1);
  }, 60_000);
  try {
    await body(suite);
  } catch (error) {
    if (!(error instanceof Mismatch)) console.error(error);
    console.error(`${client} FAILED after ${suite.passed} operations: ${error.message}`);
    process.exit(1);
  }
  clearTimeout(limit);
  console.log(`${client} ok ${suite.passed} operations`);
}

module.exports = { Mismatch, PIPELINE_COMMANDS, argumentsGiven, run };
