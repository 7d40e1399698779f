// Node frameworks through Keyway, each with nothing but what docs/frameworks.md tells to set.
// Prints a line for each and exits with 1 when one does not do what it should.
//   node node_frameworks.js PORT CA

'use strict';

const assert = require('node:assert');
const fs = require('node:fs');
const http = require('node:http');
const IORedis = require('ioredis');
const { createClient } = require('redis');

const PORT = Number(process.argv[2]);
const CA = fs.readFileSync(process.argv[3]);
const WITHIN_MS = 60_000;

/** A connection of ioredis. */
const ioredis = (options = {}) => new IORedis({ host: '127.0.0.1', port: PORT, tls: { ca: CA }, ...options });

/** A connection of node-redis. */
async function nodeRedis(options = {}) {
  const client = createClient({ url: `rediss://127.0.0.1:${PORT}`, socket: { tls: true, ca: CA }, ...options });
  client.on('error', (error) => console.error('node-redis:', error.message));
  await client.connect();
  return client;
}

async function bullmq() {
  const { FlowProducer, Queue, QueueEvents, Worker } = require('bullmq');
  const connection = ioredis({ maxRetriesPerRequest: null });
  const options = { connection, prefix: '{bull}' };
  const events = new QueueEvents('work', options);
  await events.waitUntilReady();
  const queue = new Queue('work', options);
  const worker = new Worker('work', async (job) => job.data.x * 2, { ...options, concurrency: 4 });
  const jobs = await queue.addBulk(Array.from({ length: 30 }, (_, x) => ({ name: 'twice', data: { x } })));
  const results = await Promise.all(jobs.map((job) => job.waitUntilFinished(events, WITHIN_MS)));
  assert.deepStrictEqual(results, Array.from({ length: 30 }, (_, x) => 2 * x));
  const delayed = await queue.add('later', { x: 21 }, { delay: 300, priority: 2 });
  assert.strictEqual(await delayed.waitUntilFinished(events, WITHIN_MS), 42);
  const child = { name: 'child', queueName: 'work', data: { x: 1 } };
  const flow = await new FlowProducer(options).add({ name: 'parent', queueName: 'work', data: { x: 5 }, children: [child] });
  assert.strictEqual(await flow.job.waitUntilFinished(events, WITHIN_MS), 10);
  await worker.close();
}

async function bull() {
  const Bull = require('bull');
  const createClient = (kind) => ioredis(kind === 'client' ? {} : { maxRetriesPerRequest: null, enableReadyCheck: false });
  const queue = new Bull('work', { createClient, prefix: '{bull-3}' });
  queue.process(4, async (job) => job.data.x + 1);
  const jobs = await Promise.all([1, 2, 3].map((x) => queue.add({ x })));
  assert.deepStrictEqual(await Promise.all(jobs.map((job) => job.finished())), [2, 3, 4]);
}

async function beeQueue() {
  const BeeQueue = require('bee-queue');
  const redis = { host: '127.0.0.1', port: PORT, tls: { ca: CA } };
  const queue = new BeeQueue('work', { redis, prefix: '{bee}' });
  queue.process(async (job) => job.data.x + 1);
  const job = queue.createJob({ x: 41 });
  const result = new Promise((done, failed) => job.on('succeeded', done).on('failed', failed));
  await job.save();
  assert.strictEqual(await result, 42);
}

async function rateLimiterFlexible() {
  const { RateLimiterRedis } = require('rate-limiter-flexible');
  const limiter = new RateLimiterRedis({ storeClient: ioredis(), points: 3, duration: 3600 });
  let taken = 0;
  for (let turn = 0; turn < 5; turn++) {
    await limiter.consume('user').then(() => taken++, (why) => assert(!(why instanceof Error), why));
  }
  assert.strictEqual(taken, 3);
}

async function redlock() {
  const Redlock = require('redlock');
  const locks = new Redlock([ioredis()], { retryCount: 0 });
  const lock = await locks.lock('door', 10_000);
  await assert.rejects(locks.lock('door', 10_000));
  await (await lock.extend(10_000)).unlock();
  await (await locks.lock('door', 10_000)).unlock();
}

async function keyv() {
  const { Keyv } = require('keyv');
  const { default: KeyvRedis } = require('@keyv/redis');
  const store = new Keyv(new KeyvRedis({ url: `rediss://127.0.0.1:${PORT}`, socket: { tls: true, ca: CA } }));
  await store.set('a', 1);
  await store.set('b', 2, 60_000);
  assert.deepStrictEqual(await store.get(['a', 'b']), [1, 2]);
  await store.delete('a');
  assert.strictEqual(await store.get('a'), undefined);
  await store.clear();
}

async function connectRedis() {
  const { RedisStore } = require('connect-redis');
  const store = new RedisStore({ client: await nodeRedis() });
  await store.set('one', { cookie: { originalMaxAge: 60_000 }, name: 'Ada' });
  assert.strictEqual((await store.get('one')).name, 'Ada');
  assert.deepStrictEqual(await store.ids(), ['one']);
  await store.clear();
}

/** Two servers of socket.io hear of each other. */
async function socketIo(adapter) {
  const { Server } = require('socket.io');
  const server = async () => new Server(http.createServer(), { adapter: await adapter() });
  const [one, other] = [await server(), await server()];
  other.on('greeting', (word, answer) => answer(`${word} to you`));
  const until = Date.now() + WITHIN_MS;
  for (;;) { // the servers learn of each other in the background
    try {
      const answers = await new Promise((done, failed) =>
        one.serverSideEmit('greeting', 'hello', (error, answers) => (error ? failed(error) : done(answers))));
      if (answers.length === 1) {
        assert.deepStrictEqual(answers, ['hello to you']);
        return;
      }
    } catch (error) {
      if (Date.now() > until) throw error;
    }
    assert(Date.now() < until, 'the servers did not hear of each other');
    await new Promise((done) => setTimeout(done, 50));
  }
}

const socketIoPubSub = () => socketIo(async () => {
  const { createAdapter } = require('@socket.io/redis-adapter');
  return createAdapter(await nodeRedis(), await nodeRedis());
});

const socketIoSharded = () => socketIo(async () => {
  const { createShardedAdapter } = require('@socket.io/redis-adapter');
  return createShardedAdapter(await nodeRedis({ RESP: 3 }), await nodeRedis({ RESP: 3 }));
});

const socketIoStreams = () => socketIo(async () => {
  const { createAdapter } = require('@socket.io/redis-streams-adapter');
  return createAdapter(await nodeRedis());
});

async function main() {
  let failed = 0;
  const all = { bullmq, bull, beeQueue, rateLimiterFlexible, redlock, keyv, connectRedis, socketIoPubSub, socketIoSharded, socketIoStreams };
  for (const [name, check] of Object.entries(all)) {
    const began = Date.now();
    const late = new Promise((_, tell) => setTimeout(() => tell(new Error('too late')), 2 * WITHIN_MS).unref());
    try {
      await Promise.race([check(), late]);
      console.log(`ok: ${name} (${((Date.now() - began) / 1000).toFixed(1)} s)`);
    } catch (error) {
      failed += 1;
      console.log(`FAILED: ${name}\n${error.stack}`);
    }
  }
  process.exit(failed > 0 ? 1 : 0);
}

process.on('unhandledRejection', (error) => {
  console.log(`FAILED: ${error.stack}`);
  process.exit(1);
});
main();
