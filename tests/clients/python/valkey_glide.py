"""valkey-glide: `GlideClient` and `GlideClusterClient`, in RESP2 and RESP3."""

import asyncio

import glide
import suite

GLIDE_TEXTS = {
    # Glide replaces the server's words for some errors by its own.
    "WRONGTYPE Operation against a key holding the wrong kind of value": "wrong kind of value",
}


async def call(client, args):
    """One command by its words; an error reply is returned, not raised."""
    try:
        return await client.custom_command(args)
    except glide.RequestError as error:
        return error


async def shared(s, client, skip):
    """The operations every client must be able to do."""
    for what, args, want in s.operations(skip):
        if isinstance(want, dict) and "error" in want:
            want = {"error": GLIDE_TEXTS.get(want["error"], want["error"])}
        s.check(what, await call(client, args), want)


async def native(s, client):
    """The same by the library's own methods."""
    key, value = s.name("native"), s.name("native value")
    expiry = glide.ExpirySet(glide.ExpiryType.SEC, 100)
    s.check("set()", await client.set(key, value, expiry=expiry), "OK")
    s.check("get()", await client.get(key), value)
    s.check("hset()", await client.hset(s.name("nh"), {"a": value, "b": "2"}), 2)
    s.check("hgetall()", await client.hgetall(s.name("nh")), {"map": {"a": value, "b": "2"}})
    s.check("zadd()", await client.zadd(s.name("nz"), {"m": 1.5}), 1)
    ranged = await client.zrange_withscores(s.name("nz"), glide.RangeByIndex(0, -1))
    s.check("zrange_withscores()", ranged, {"scores": [["m", 1.5]]})
    s.check("sadd()", await client.sadd(s.name("ns"), [value]), 1)
    s.check("smembers()", await client.smembers(s.name("ns")), {"set": [value]})


async def many(s, client):
    """Keys of many slots; the cluster client splits them itself."""
    values = {s.name(f"many {i}"): s.name(f"value {i}") for i in range(100)}
    s.check("mset of 100 slots", await client.mset(values), "OK")
    s.check("mget of 100 slots", await client.mget(list(values)), {"list": list(values.values())})
    s.check("delete of 100 slots", await client.delete(list(values)), 100)


async def pipeline(s, client, batch):
    """Ten thousand commands in one batch; every reply is checked."""
    count = suite.PIPELINE_COMMANDS // 2
    for i in range(count):
        batch.set(s.name(f"p{i}"), s.name(f"v{i}"))
        batch.get(s.name(f"p{i}"))
    replies = await client.exec(batch, raise_on_error=True)
    s.check("batch length", len(replies), suite.PIPELINE_COMMANDS)
    for i in range(count):
        if replies[2 * i] != "OK" or replies[2 * i + 1] != s.name(f"v{i}").encode():
            raise suite.Mismatch(f"batch, pair {i}: got {replies[2 * i : 2 * i + 2]}")
    s.passed += 1


def body(args, clustered, protocol):
    """One client's run, to be given to `suite.run`."""
    with open(args.ca, "rb") as file:
        tls = glide.TlsAdvancedConfiguration(root_pem_cacerts=file.read())
    common = {
        "addresses": [glide.NodeAddress(args.host, args.port)],
        "use_tls": True,
        "request_timeout": 30_000,
        "protocol": protocol,
    }

    async def standalone_run(s):
        advanced = glide.AdvancedGlideClientConfiguration(connection_timeout=5_000, tls_config=tls)
        config = glide.GlideClientConfiguration(**common, advanced_config=advanced, client_name=s.unique)
        client = await glide.GlideClient.create(config)
        s.check("client_name", await client.client_getname(), s.unique)
        await shared(s, client, ["cross"] if args.cross_slot == "refuse" else [])
        await native(s, client)
        if args.cross_slot == "split":
            await many(s, client)
        await pipeline(s, client, glide.Batch(is_atomic=False))
        await client.close()

    async def cluster_run(s):
        advanced = glide.AdvancedGlideClusterClientConfiguration(connection_timeout=5_000, tls_config=tls)
        config = glide.GlideClusterClientConfiguration(**common, advanced_config=advanced)
        client = await glide.GlideClusterClient.create(config)
        await shared(s, client, ["standalone", "cross"])
        await native(s, client)
        await many(s, client)
        await pipeline(s, client, glide.ClusterBatch(is_atomic=False))
        await client.close()

    return lambda s: asyncio.run(cluster_run(s) if clustered else standalone_run(s))


def main():
    """Both classes in both protocols."""
    args = suite.arguments()
    for number, protocol in ((2, glide.ProtocolVersion.RESP2), (3, glide.ProtocolVersion.RESP3)):
        if args.mode in ("standalone", "all"):
            suite.run(f"valkey-glide-resp{number}", body(args, False, protocol))
        if args.mode in ("cluster", "all"):
            suite.run(f"valkey-glide-cluster-resp{number}", body(args, True, protocol))


main()
