"""Reads that may be a little old go to the nearest node, primary or replica."""

import time

import demo

args = demo.options()
client = demo.connect(args)


def say_readonly(connection):
    """Said once on each connection, after the handshake."""
    connection.on_connect()
    connection.send_command("READONLY")
    connection.read_response()


# The same port, and the word. With `[reads] address` there is a port that needs no word.
replicas = [demo.connect(args, valkey_connect_func=say_readonly)]
if args.read_port:
    replicas.append(demo.connect(args, port=args.read_port))

for round_ in range(20):
    value = f"round {round_}"
    client.set("readonly:key", value, ex=60)
    for reader in replicas:
        # Replication is asynchronous: what was written shows at the replicas soon, not at once. Who
        # must read their own write reads on the ordinary connection.
        until = time.monotonic() + 10
        while reader.get("readonly:key") != value:
            assert time.monotonic() < until, "the replicas do not follow"
    assert client.get("readonly:key") == value
print(f"ok: 20 writes, each seen by {len(replicas)} read-only clients")
