"""Ask the cache, else the database, and put the answer into the cache: for times that differ."""

import json
import random

import demo

args = demo.options()
client = demo.connect(args)
demo.clean(client, "cache:")
TTL_S = 300
loads = 0


def database(user):
    global loads
    loads += 1
    return {"id": user, "name": f"user {user}"}


def ttl():
    """A fifth up or down: what was put in together must not expire together."""
    return int(TTL_S * random.uniform(0.8, 1.2))


def user_by_id(user):
    key = f"cache:user:{user}"
    found = client.get(key)
    if found is not None:
        return json.loads(found)
    value = database(user)
    client.set(key, json.dumps(value), ex=ttl())
    return value


def rename(user, name):
    """First the database, then out of the cache: the next reader loads what is true now."""
    client.delete(f"cache:user:{user}")
    return name


for _ in range(3):
    for user in range(100):
        assert user_by_id(user)["id"] == user
assert loads == 100, loads
with client.pipeline(transaction=False) as pipe:
    for user in range(100):
        pipe.ttl(f"cache:user:{user}")
    ttls = pipe.execute()
assert all(230 <= left <= 360 for left in ttls) and len(set(ttls)) > 10, sorted(set(ttls))
rename(7, "new name")
user_by_id(7)
assert loads == 101, loads
print(f"ok: 300 reads, 100 loads; they expire within {min(ttls)} to {max(ttls)} s")
