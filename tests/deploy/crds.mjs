// Checks resources of cert-manager and of the Prometheus operator against these makers' own schemas:
//   crds.mjs FILE    a JSON list of resources; prints what is wrong and ends with 1
// The packages come as validators, which let fields pass that they do not know, where Kubernetes would
// refuse or drop them. But they look at all fields that they do know: a field that none has looked at
// is one that the schema does not have.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const MAKERS = {
  "cert-manager.io": "cert-manager",
  "monitoring.coreos.com": "prometheus-operator",
};

async function kinds(apiVersion) {
  const maker = MAKERS[apiVersion.split("/")[0]];
  if (!maker) throw new Error(`nobody has schemas for ${apiVersion}`);
  const file = join(process.env.NODE_PATH, "@kubernetes-models", maker, apiVersion, "index.js");
  const module = await import(pathToFileURL(file));
  return module.default ?? module; // one of the two packages is of the older kind of module
}

// `value`, which tells by `seen` that a path in it was looked at.
function watched(value, path, seen) {
  if (typeof value !== "object" || value === null) return value;
  return new Proxy(value, {
    get(target, key) {
      const inside = target[key];
      if (typeof key === "symbol" || !Object.hasOwn(target, key)) return inside;
      seen.add(`${path}/${key}`);
      return watched(inside, `${path}/${key}`, seen);
    },
  });
}

function* paths(value, path) {
  if (typeof value !== "object" || value === null) return;
  for (const [key, inside] of Object.entries(value)) {
    yield `${path}/${key}`;
    yield* paths(inside, `${path}/${key}`);
  }
}

async function* wrong(resource) {
  const Kind = (await kinds(resource.apiVersion))[resource.kind];
  if (!Kind) return yield `${resource.apiVersion} has no kind ${resource.kind}`;
  const seen = new Set();
  try {
    Kind.prototype.validate.call(watched(resource, "", seen));
  } catch (error) {
    yield error.message;
  }
  for (const path of paths(resource, "")) {
    const parent = path.slice(0, path.lastIndexOf("/"));
    if (!seen.has(path) && (parent === "" || seen.has(parent))) yield `${path} is not in the schema`;
  }
}

let failed = false;
for (const resource of JSON.parse(readFileSync(process.argv[2], "utf8"))) {
  for await (const message of wrong(resource)) {
    console.error(`${resource.kind} ${resource.metadata?.name}: ${message}`);
    failed = true;
  }
}
process.exit(failed ? 1 : 0);
