"""A popular key expires and everybody misses at once: one loads it, the others wait for that one."""

import math
import random
import threading
import time

import demo

args = demo.options()
client = demo.connect(args, max_connections=64)
demo.clean(client, "herd:")
loads = []


def database(key):
    loads.append(key)
    time.sleep(0.2)  # a slow query
    return f"value of {key}"


def get(key, ttl_s=60, patience_s=20):
    """Waits for whoever loads it. The lock ends by itself, so one that dies blocks nobody for long."""
    until = time.monotonic() + patience_s
    while time.monotonic() < until:
        value = client.get(f"herd:{key}")
        if value is not None:
            return value
        if client.set(f"herd:{key}:lock", "1", nx=True, px=10_000):
            # Somebody may have loaded it between our look and our lock.
            value = client.get(f"herd:{key}")
            if value is None:
                value = database(key)
                client.set(f"herd:{key}", value, ex=ttl_s)
            client.delete(f"herd:{key}:lock")
            return value
        time.sleep(random.uniform(0.01, 0.05))
    return database(key)


def should_refresh(left_s, load_s, eagerness=1.0):
    """Better still: one of the readers, drawn by lot, loads it shortly before it expires (XFetch)."""
    return -load_s * eagerness * math.log(1.0 - random.random()) >= left_s


answers = []
threads = [threading.Thread(target=lambda: answers.append(get("front page"))) for _ in range(50)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert answers == ["value of front page"] * 50
assert len(loads) == 1, loads
early = sum(should_refresh(left_s=1.0, load_s=0.2) for _ in range(10_000))
assert 20 <= early <= 140, early  # e^-5 of them
print(f"ok: 50 readers at once, {len(loads)} load; 1 s before it expires {early} of 10000 would refresh it")
