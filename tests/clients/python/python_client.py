"""The suite for redis-py and valkey-py, which share their interface."""

import suite


def call(client, args):
    """One command by its words; an error reply is returned, not raised."""
    try:
        # The library looks its parsers and key positions up by the command's name as text, and
        # has to be told which form of SET this is.
        options = {"get": True} if args[0] == b"SET" and args[-1] == b"GET" else {}
        return client.execute_command(args[0].decode(), *args[1:], **options)
    except client.response_error as error:
        return error


def shared(s, client, skip):
    """The operations every client must be able to do."""
    for what, args, want in s.operations(skip):
        s.check(what, call(client, args), want)


def native(s, client):
    """The same by the library's own methods, whose reply parsers are stricter."""
    key, value = s.name("native"), s.name("native value")
    s.check("set()", client.set(key, value, ex=100), True)
    s.check("get()", client.get(key), value)
    s.check("hset()", client.hset(s.name("nh"), mapping={"a": value, "b": "2"}), 2)
    s.check("hgetall()", client.hgetall(s.name("nh")), {"map": {"a": value, "b": "2"}})
    s.check("zadd()", client.zadd(s.name("nz"), {"m": 1.5}), 1)
    s.check("zrange()", client.zrange(s.name("nz"), 0, -1, withscores=True), {"scores": [["m", 1.5]]})
    s.check("sadd()", client.sadd(s.name("ns"), value), 1)
    s.check("smembers()", client.smembers(s.name("ns")), {"set": [value]})
    s.check("xadd()", client.xadd(s.name("nx"), {"f": value}, id="5-1"), "5-1")
    s.check("xrange()", client.xrange(s.name("nx")), {"entries": [["5-1", {"f": value}]]})
    script = client.eval("return ARGV[1]", 1, key, value)
    s.check("eval()", script, value)


def many(s, client, write, read):
    """Keys of many slots, by the methods of a standalone or a cluster client."""
    values = {s.name(f"many {i}"): s.name(f"value {i}") for i in range(100)}
    s.check("mset of 100 slots", bool(write(values)), True)
    s.check("mget of 100 slots", read(list(values)), {"list": list(values.values())})
    s.check("delete of 100 slots", client.delete(*values), 100)


def pipeline(s, pipe):
    """Ten thousand commands in one pipeline; every reply is checked."""
    count = suite.PIPELINE_COMMANDS // 2
    for i in range(count):
        pipe.set(s.name(f"p{i}"), s.name(f"v{i}"))
        pipe.get(s.name(f"p{i}"))
    replies = pipe.execute()
    s.check("pipeline length", len(replies), suite.PIPELINE_COMMANDS)
    for i in range(count):
        if replies[2 * i] is not True or replies[2 * i + 1] != s.name(f"v{i}").encode():
            raise suite.Mismatch(f"pipeline, pair {i}: got {replies[2 * i : 2 * i + 2]}")
    s.passed += 1


def run_all(args, name, module, standalone, cluster):
    """Every mode and protocol of a library; `standalone` and `cluster` are its classes."""
    tls = {"ssl": True, "ssl_ca_certs": args.ca, "socket_timeout": 30}

    def single(protocol):
        def body(s):
            with standalone(host=args.host, port=args.port, protocol=protocol, client_name=s.unique, **tls) as client:
                client.response_error = module.exceptions.ResponseError
                s.check("client_name", client.client_getname(), s.unique)
                skip = ["cross"] if args.cross_slot == "refuse" else []
                shared(s, client, skip)
                native(s, client)
                if args.cross_slot == "split":
                    many(s, client, client.mset, client.mget)
                pipeline(s, client.pipeline(transaction=False))

        return body

    def clustered(protocol):
        def body(s):
            client = cluster(host=args.host, port=args.port, protocol=protocol, **tls)
            client.response_error = module.exceptions.ResponseError
            try:
                shared(s, client, ["standalone", "cross"])
                native(s, client)
                many(s, client, client.mset_nonatomic, client.mget_nonatomic)
                pipeline(s, client.pipeline())
                s.check("readonly", client.readonly(), True)
                s.check("a key after READONLY", client.get(s.name("native")), s.name("native value"))
            finally:
                client.close()

        return body

    for protocol in (2, 3):
        if args.mode in ("standalone", "all"):
            suite.run(f"{name}-resp{protocol}", single(protocol))
        if args.mode in ("cluster", "all"):
            suite.run(f"{name}-cluster-resp{protocol}", clustered(protocol))
