"""Connections are kept: one client for the process, however many threads or invocations there are."""

import threading

import valkey

import demo

args = demo.options()

# At module level. A serverless function runs this once for each instance, not for each invocation,
# and an instance handles one event at a time: two connections are plenty.
POOL = valkey.BlockingConnectionPool(
    connection_class=valkey.SSLConnection,
    host=args.host,
    port=args.port,
    ssl_ca_certs=args.ca,
    decode_responses=True,
    client_name="pattern-pooling",
    max_connections=4,
    timeout=20,
    socket_keepalive=True,
)
CACHE = valkey.Valkey(connection_pool=POOL)


def handler(event):
    """What a serverless function or a web request does: it never connects."""
    key = f"pooling:{event}"
    CACHE.set(key, event, ex=60)
    return CACHE.get(key)


def worker(number, results):
    for turn in range(20):
        event = f"{number}-{turn}"
        results.append(handler(event) == event)


results = []
threads = [threading.Thread(target=worker, args=(number, results)) for number in range(32)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()

ours = [line for line in CACHE.client_list() if line["name"] == "pattern-pooling"]
assert len(results) == 32 * 20 and all(results)
assert 1 <= len(ours) <= 4, ours
print(f"ok: {len(results)} requests of 32 threads over {len(ours)} connections")
