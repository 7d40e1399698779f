"""Jobs that are done once and not lost with the worker: BLMOVE to a list of what is in hand."""

import json
import threading

import demo

args = demo.options()
client = demo.connect(args, max_connections=32)
demo.clean(client, "jobs:")
# One hash tag, so one slot: a job moves between lists in one step.
READY, IN_HAND, DONE = (f"jobs:{{mail}}:{name}" for name in ("ready", "in hand", "done"))
JOBS, WORKERS = 200, 6


def work():
    """Blocks for work: Keyway lends it a connection of its own for as long as it waits."""
    while True:
        job = client.blmove(READY, IN_HAND, timeout=5, src="RIGHT", dest="LEFT")
        if job is None or job == "end":
            client.lrem(IN_HAND, 1, job or "")
            return
        with client.pipeline(transaction=True) as pipe:
            pipe.rpush(DONE, json.loads(job)["id"]).lrem(IN_HAND, 1, job)
            pipe.execute()


def put_back():
    """After a worker died: what was in its hand is ready again."""
    while client.lmove(IN_HAND, READY, "LEFT", "RIGHT") is not None:
        pass


# A worker died with this one.
client.lpush(IN_HAND, json.dumps({"id": "left behind"}))
put_back()
workers = [threading.Thread(target=work) for _ in range(WORKERS)]
for worker in workers:
    worker.start()
for i in range(JOBS):
    client.lpush(READY, json.dumps({"id": f"job {i}"}))
for _ in workers:
    client.lpush(READY, "end")
for worker in workers:
    worker.join()

done = client.lrange(DONE, 0, -1)
assert sorted(done) == sorted([f"job {i}" for i in range(JOBS)] + ["left behind"])
assert client.llen(IN_HAND) == 0
print(f"ok: {len(done)} jobs done once each by {WORKERS} workers")
