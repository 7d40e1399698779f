"""Many commands, one round trip: replies come in the order of the commands, whatever the slots."""

import time

import demo

args = demo.options()
client = demo.connect(args)
keys = [f"pipelining:{i}" for i in range(1000)]

began = time.perf_counter()
for key in keys[:200]:
    client.set(key, key, ex=60)
singly = (time.perf_counter() - began) / 200

began = time.perf_counter()
# transaction=False: a pipeline, no MULTI; its keys may be of any slots.
with client.pipeline(transaction=False) as pipe:
    for key in keys:
        pipe.set(key, key, ex=60)
        pipe.get(key)
    replies = pipe.execute()
together = (time.perf_counter() - began) / len(replies)

assert replies == [reply for key in keys for reply in (True, key)]

# A transaction needs one slot: a hash tag, the part in braces, says which.
with client.pipeline(transaction=True) as pipe:
    pipe.set("pipelining:{order:7}:state", "paid").incr("pipelining:{order:7}:version")
    paid = pipe.execute()
assert paid[0] is True and paid[1] >= 1
print(f"ok: {singly * 1e6:.0f} us a command singly, {together * 1e6:.0f} us in a pipeline")
