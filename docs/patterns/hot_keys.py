"""One key is too hot for one node: copies of what is read, parts of what is written."""

import random

import demo

args = demo.options()
client = demo.connect(args)
demo.clean(client, "hot:")
COPIES = 8
PARTS = 8


def copy_names(name):
    """No hash tag: the copies must lie in different slots."""
    return [f"hot:{name}:copy:{i}" for i in range(COPIES)]


def write_copies(name, value):
    """Not atomic: for a moment some readers see the old value and some the new one."""
    client.mset({key: value for key in copy_names(name)})


def read_copy(name):
    return client.get(random.choice(copy_names(name)))


def increment(name, by=1):
    """A counter in parts: each write goes to one of them."""
    return client.incrby(f"hot:{name}:part:{random.randrange(PARTS)}", by)


def total(name):
    """A read asks for all parts; Keyway splits the MGET by node and puts the replies together."""
    return sum(int(n or 0) for n in client.mget([f"hot:{name}:part:{i}" for i in range(PARTS)]))


write_copies("banner", "sale!")
assert {read_copy("banner") for _ in range(100)} == {"sale!"}
for _ in range(500):
    increment("views")
assert total("views") == 500
slots = {client.execute_command("CLUSTER KEYSLOT", key) for key in copy_names("banner")}
assert len(slots) > COPIES // 2, slots
print(f"ok: {COPIES} copies in {len(slots)} slots; 500 increments in {PARTS} parts add up")
