#!/usr/bin/env python3
"""Writes captured/kinds.tsv: the first byte of every reply to the probes below, in both protocols.

usage: capture_kinds.py VALKEY_SERVER FOLDER [PORT]

Every probe runs on a database that was just filled by SETUP: hits, misses, keys of another type,
and every option that could change the shape of the reply.
"""

import os
import sys
import time

from capture import Client, start, write

SETUP = """
SET s 10 | SET t abcabc | HSET h f 1 n 2.5 g v | RPUSH l a b c a | SADD S a b c | SADD S2 b c d | ZADD z 1 a 2 b 3 c
ZADD z2 2 b 4 d | GEOADD g 13.361389 38.115556 P 15.087269 37.502669 C | PFADD hl a b c | SETBIT b 7 1
XADD x 1-1 f v | XADD x 2-1 f v | XGROUP CREATE x gr 0 | XREADGROUP GROUP gr c1 COUNT 1 STREAMS x > | SET e v EX 100
FUNCTION LOAD REPLACE @lib | SCRIPT LOAD @one
"""

LIB = "#!lua name=lib\nserver.register_function{function_name='f',callback=function(k,a) return a[1] end,flags={'no-writes'}}"

PROBES = """
GET s | GET nokey | GET l | GETDEL s | GETDEL nokey | GETEX s | GETEX s EX 10 | GETEX nokey | GETRANGE t 0 2 | GETRANGE nokey 0 1
GETSET s x | GETSET nokey x | SUBSTR t 0 1 | STRLEN s | STRLEN nokey | APPEND s x | DECR s | DECRBY s 2 | INCR s | INCRBY s 2
INCRBYFLOAT s 1.5 | INCR t | SET s x | SET s x NX | SET s x XX | SET s x GET | SET nokey x GET | SET nokey x XX GET | SET l x GET
SET s 10 IFEQ 10 | SET s x IFEQ nope | SET s x IFEQ 10 GET | SET s x KEEPTTL | SETEX s 10 x | PSETEX s 10000 x | SETNX s x
SETNX nokey x | SETRANGE s 1 x | MGET s nokey | MSET a 1 b 2 | MSETNX a 1 b 2 | MSETNX s 1 b 2 | MSETEX 1 a v EX 10 | MSETEX 1 s v NX
LCS s t | LCS t t LEN | LCS t t IDX | LCS t t IDX WITHMATCHLEN | LCS nokey nokey2 | LCS nokey t IDX
DELIFEQ s 10 | DELIFEQ s no | DELIFEQ nokey x | DEL s nokey | UNLINK s | EXISTS s nokey | TOUCH s nokey | TYPE s | TYPE nokey
COPY s c | COPY nokey c | COPY s t | COPY s t REPLACE | RENAME s c | RENAME nokey c | RENAMENX s c | RENAMENX s t | MOVE s 1 | MOVE nokey 1
DUMP s | DUMP nokey | RESTORE c 0 x | RESTORE c 0 @dump | EXPIRE s 10 | EXPIRE nokey 10 | EXPIREAT s 9999999999 | PEXPIRE s 10000
PEXPIREAT s 9999999999999 | PERSIST e | PERSIST s | TTL s | TTL e | TTL nokey | PTTL e | EXPIRETIME e | EXPIRETIME nokey | PEXPIRETIME e
SORT l ALPHA | SORT l ALPHA GET nokey_* | SORT l ALPHA STORE d | SORT nokey | SORT_RO l ALPHA | SORT_RO nokey | SORT s
OBJECT ENCODING s | OBJECT ENCODING nokey | OBJECT FREQ s | OBJECT FREQ nokey | OBJECT IDLETIME s | OBJECT IDLETIME nokey
OBJECT REFCOUNT s | OBJECT REFCOUNT nokey | OBJECT HELP | MEMORY USAGE s | MEMORY USAGE nokey | MEMORY HELP
SETBIT b 1 1 | SETBIT nokey 1 1 | GETBIT b 7 | GETBIT nokey 1 | BITCOUNT b | BITCOUNT nokey | BITCOUNT b 0 -1 BIT | BITPOS b 1
BITPOS nokey 1 | BITPOS nokey 0 | BITOP NOT d b | BITOP AND d nokey nokey2 | BITFIELD b GET u8 0 | BITFIELD b OVERFLOW FAIL INCRBY u2 0 9
BITFIELD b | BITFIELD_RO b GET u8 0 | BITFIELD_RO nokey GET u8 0
PFADD hl z | PFADD hl a | PFADD nokey | PFCOUNT hl | PFCOUNT hl nokey | PFCOUNT nokey | PFMERGE d hl | PFMERGE d
HSET h a 1 | HSET nokey a 1 | HSETNX h f 1 | HMSET h a 1 | HGET h f | HGET h no | HGET nokey f | HMGET h f no | HMGET nokey f
HGETALL h | HGETALL nokey | HKEYS h | HKEYS nokey | HVALS h | HVALS nokey | HLEN h | HLEN nokey | HDEL h f | HDEL nokey f | HEXISTS h f
HEXISTS nokey f | HSTRLEN h f | HSTRLEN nokey f | HINCRBY h f 1 | HINCRBYFLOAT h n 1.5 | HINCRBYFLOAT nokey n 1 | HRANDFIELD h | HRANDFIELD nokey
HRANDFIELD h 2 | HRANDFIELD h -5 | HRANDFIELD h 2 WITHVALUES | HRANDFIELD nokey 2 | HRANDFIELD nokey 2 WITHVALUES | HSCAN h 0
HSCAN h 0 NOVALUES | HSCAN nokey 0 | HEXPIRE h 100 FIELDS 1 f | HEXPIRE nokey 100 FIELDS 1 f | HEXPIRE h 0 FIELDS 1 f
HEXPIREAT h 9999999999 FIELDS 2 f no | HPEXPIRE h 10000 FIELDS 1 f | HPEXPIRE nokey 10000 FIELDS 1 f | HPEXPIREAT h 9999999999999 FIELDS 1 f
HTTL h FIELDS 2 f no | HTTL nokey FIELDS 1 f | HPTTL h FIELDS 1 f | HPTTL nokey FIELDS 1 f | HEXPIRETIME h FIELDS 1 f
HEXPIRETIME nokey FIELDS 1 f | HPEXPIRETIME h FIELDS 1 f | HPERSIST h FIELDS 1 f | HPERSIST nokey FIELDS 1 f
HGETEX h EX 10 FIELDS 2 f no | HGETEX nokey FIELDS 1 f | HSETEX h EX 100 FIELDS 1 a b | HSETEX h FNX FIELDS 1 f b | HSETEX nokey FXX FIELDS 1 f b
HGETDEL h FIELDS 2 f no | HGETDEL nokey FIELDS 1 f
LPUSH l x | LPUSHX nokey x | RPUSH l x | RPUSHX l x | LINSERT l BEFORE b x | LINSERT l BEFORE no x | LINSERT nokey BEFORE b x | LLEN l | LLEN nokey
LINDEX l 0 | LINDEX l 99 | LINDEX nokey 0 | LRANGE l 0 -1 | LRANGE nokey 0 -1 | LREM l 1 a | LSET l 0 x | LSET l 99 x | LSET nokey 0 x
LTRIM l 0 1 | LTRIM nokey 0 1 | LPOP l | LPOP nokey | LPOP l 2 | LPOP l 0 | LPOP nokey 2 | LPOP nokey 0 | RPOP l | RPOP nokey | RPOP l 2
RPOP nokey 2 | LPOS l a | LPOS l no | LPOS nokey a | LPOS l a COUNT 0 | LPOS l no COUNT 0 | LPOS nokey a COUNT 0 | LPOS l a RANK 9
LMOVE l d LEFT RIGHT | LMOVE nokey d LEFT RIGHT | RPOPLPUSH l d | RPOPLPUSH nokey d | LMPOP 1 l LEFT | LMPOP 1 nokey LEFT | LMPOP 2 nokey l LEFT COUNT 2
SADD S x | SCARD S | SCARD nokey | SREM S a | SREM nokey a | SISMEMBER S a | SISMEMBER nokey a | SMISMEMBER S a no | SMISMEMBER nokey a
SMEMBERS S | SMEMBERS nokey | SMOVE S S2 a | SMOVE nokey S2 a | SPOP S | SPOP nokey | SPOP S 2 | SPOP S 0 | SPOP nokey 2 | SPOP nokey 0
SRANDMEMBER S | SRANDMEMBER nokey | SRANDMEMBER S 2 | SRANDMEMBER S -5 | SRANDMEMBER S 0 | SRANDMEMBER nokey 2 | SRANDMEMBER nokey -2
SINTER S S2 | SINTER S nokey | SUNION S S2 | SUNION nokey | SDIFF S S2 | SDIFF nokey | SINTERCARD 2 S S2 | SINTERCARD 1 nokey
SINTERSTORE d S S2 | SUNIONSTORE d S S2 | SDIFFSTORE d nokey | SSCAN S 0 | SSCAN nokey 0
ZADD z 9 a | ZADD z CH 9 a | ZADD z INCR 1 a | ZADD z NX INCR 1 a | ZADD z XX INCR 1 no | ZADD z INCR inf a | ZINCRBY z 1.5 a | ZINCRBY nokey 1 a
ZSCORE z a | ZSCORE z no | ZSCORE nokey a | ZMSCORE z a no | ZMSCORE nokey a | ZCARD z | ZCARD nokey | ZCOUNT z 0 5 | ZLEXCOUNT z - + | ZREM z a
ZRANK z a | ZRANK z no | ZRANK nokey a | ZRANK z a WITHSCORE | ZRANK z no WITHSCORE | ZRANK nokey a WITHSCORE | ZREVRANK z a | ZREVRANK z no
ZREVRANK z a WITHSCORE | ZREVRANK nokey a WITHSCORE | ZRANGE z 0 -1 | ZRANGE z 0 -1 WITHSCORES | ZRANGE z 0 5 BYSCORE WITHSCORES
ZRANGE z - + BYLEX | ZRANGE nokey 0 -1 | ZRANGE nokey 0 -1 WITHSCORES | ZREVRANGE z 0 -1 | ZREVRANGE z 0 -1 WITHSCORES | ZREVRANGE nokey 0 -1
ZRANGEBYSCORE z 0 5 | ZRANGEBYSCORE z 0 5 WITHSCORES | ZRANGEBYSCORE nokey 0 5 | ZREVRANGEBYSCORE z 5 0 | ZREVRANGEBYSCORE z 5 0 WITHSCORES
ZREVRANGEBYSCORE nokey 5 0 | ZRANGEBYLEX z - + | ZRANGEBYLEX nokey - + | ZREVRANGEBYLEX z + - | ZREVRANGEBYLEX nokey + -
ZRANGESTORE d z 0 -1 | ZRANGESTORE d nokey 0 -1 | ZREMRANGEBYRANK z 0 0 | ZREMRANGEBYSCORE z 0 1 | ZREMRANGEBYLEX z - + | ZREMRANGEBYLEX nokey - +
ZPOPMIN z | ZPOPMIN z 2 | ZPOPMIN z 0 | ZPOPMIN nokey | ZPOPMIN nokey 2 | ZPOPMAX z | ZPOPMAX z 2 | ZPOPMAX nokey | ZMPOP 1 z MIN
ZMPOP 1 nokey MIN | ZMPOP 2 nokey z MAX COUNT 2 | ZRANDMEMBER z | ZRANDMEMBER nokey | ZRANDMEMBER z 2 | ZRANDMEMBER z -5 | ZRANDMEMBER z 0
ZRANDMEMBER z 2 WITHSCORES | ZRANDMEMBER nokey 2 | ZRANDMEMBER nokey 2 WITHSCORES | ZDIFF 2 z z2 | ZDIFF 2 z z2 WITHSCORES | ZDIFF 1 nokey
ZINTER 2 z z2 | ZINTER 2 z z2 WITHSCORES | ZINTER 1 nokey | ZUNION 2 z z2 | ZUNION 2 z z2 WITHSCORES | ZUNION 1 nokey | ZINTERCARD 2 z z2
ZDIFFSTORE d 2 z z2 | ZINTERSTORE d 2 z z2 | ZUNIONSTORE d 1 nokey | ZSCAN z 0 | ZSCAN nokey 0
GEOADD g 1 1 Q | GEODIST g P C | GEODIST g P no | GEODIST nokey P C | GEOHASH g P no | GEOHASH nokey P | GEOPOS g P no | GEOPOS nokey P
GEOSEARCH g FROMLONLAT 15 37 BYRADIUS 200 km | GEOSEARCH g FROMLONLAT 15 37 BYRADIUS 200 km WITHDIST WITHHASH WITHCOORD
GEOSEARCH nokey FROMLONLAT 15 37 BYRADIUS 200 km | GEOSEARCH g FROMMEMBER no BYRADIUS 1 km | GEOSEARCHSTORE d g FROMLONLAT 15 37 BYRADIUS 200 km
GEOSEARCHSTORE d nokey FROMLONLAT 15 37 BYRADIUS 200 km | GEORADIUS g 15 37 200 km | GEORADIUS g 15 37 200 km WITHDIST | GEORADIUS nokey 15 37 200 km
GEORADIUS g 15 37 200 km STORE d | GEORADIUS nokey 15 37 200 km STORE d | GEORADIUS_RO g 15 37 200 km | GEORADIUS_RO nokey 15 37 200 km
GEORADIUSBYMEMBER g P 200 km | GEORADIUSBYMEMBER g P 200 km STOREDIST d | GEORADIUSBYMEMBER nokey P 200 km | GEORADIUSBYMEMBER_RO g P 200 km
GEORADIUSBYMEMBER_RO nokey P 1 km
XADD x * f v | XADD nokey NOMKSTREAM * f v | XADD x 1-1 f v | XLEN x | XLEN nokey | XRANGE x - + | XRANGE nokey - + | XREVRANGE x + -
XREVRANGE nokey + - | XDEL x 1-1 | XDEL nokey 1-1 | XTRIM x MAXLEN 0 | XTRIM nokey MAXLEN 0 | XSETID x 9-1 | XSETID nokey 9-1
XREAD STREAMS x 0 | XREAD COUNT 1 STREAMS x nokey 0 0 | XREAD STREAMS nokey 0 | XREAD STREAMS x $ | XREADGROUP GROUP gr c1 STREAMS x >
XREADGROUP GROUP gr c1 STREAMS x 0 | XREADGROUP GROUP gr c9 STREAMS x 9 | XREADGROUP GROUP no c STREAMS x > | XACK x gr 1-1 | XACK nokey gr 1-1
XPENDING x gr | XPENDING x gr - + 10 | XPENDING x gr - + 10 c9 | XPENDING nokey gr | XCLAIM x gr c2 0 1-1 | XCLAIM x gr c2 0 1-1 JUSTID
XCLAIM x gr c2 0 9-9 | XCLAIM x gr c2 999999 1-1 | XAUTOCLAIM x gr c2 0 0 | XAUTOCLAIM x gr c2 0 0 JUSTID | XAUTOCLAIM x no c 0 0
XGROUP CREATE x g2 $ | XGROUP CREATE nokey g2 $ MKSTREAM | XGROUP CREATE x gr $ | XGROUP CREATECONSUMER x gr c5 | XGROUP DELCONSUMER x gr c1
XGROUP DESTROY x gr | XGROUP DESTROY x no | XGROUP SETID x gr 0 | XGROUP HELP | XINFO STREAM x | XINFO STREAM x FULL | XINFO STREAM nokey
XINFO GROUPS x | XINFO CONSUMERS x gr | XINFO CONSUMERS x no | XINFO HELP
EVAL @one 0 | EVALSHA @sha 0 | EVAL_RO @one 0 | EVALSHA_RO @sha 0 | FCALL f 0 a | FCALL_RO f 0 a | SPUBLISH c m | PUBLISH c m
TIME | LOLWUT | LOLWUT VERSION 5 1 1 1 | ACL WHOAMI | ACL CAT | ACL CAT read | ACL GENPASS | ACL GENPASS 5 | ACL HELP | CLIENT HELP | CLUSTER HELP
CONFIG HELP | FUNCTION HELP | LATENCY HELP | MODULE HELP | PUBSUB HELP | SCRIPT HELP | SLOWLOG HELP | COMMANDLOG HELP | CLUSTERSCAN 0 | CLUSTERSCAN nokey
"""


def words(text, stand_ins):
    for probe in text.replace("\n", "|").split("|"):
        if probe.split():
            yield [stand_ins.get(word, word) for word in probe.split()]


def fill(client, stand_ins):
    client.raw("FLUSHALL")
    for command in words(SETUP, stand_ins):
        reply = client.raw(*command)
        assert not reply.startswith(b"-"), (command, reply)


def name(command, containers):
    head = command[0].lower()
    return head + "|" + command[1].lower() if head in containers else head


def probe(clients, cluster, folder):
    stand_ins = {"@lib": LIB, "@one": "return 1", "@sha": "e0e1f9fabfc9d4800c877a703b823ac0578ff8db"}
    clients[2].raw("SET", "s", "10")
    dump = clients[2].raw("DUMP", "s")
    stand_ins["@dump"] = dump.split(b"\r\n", 1)[1][:-2]
    containers = {command[0] for command in clients[2].value("COMMAND") if command[9]}
    seen = {}
    for command in words(PROBES, stand_ins):
        for protocol, client in clients.items():
            fill(client, stand_ins)
            if command[0] == "CLUSTERSCAN":
                client = cluster[protocol]
            first = client.raw(*command)[:1].decode()
            seen.setdefault(name(command, containers), {2: set(), 3: set()})[protocol].add(first)
    lines = (
        "%s\t%s\t%s" % (name, "".join(sorted(kinds[2])), "".join(sorted(kinds[3])))
        for name, kinds in sorted(seen.items())
    )
    write(os.path.join(folder, "captured"), "kinds.tsv", lines)


def main():
    server, folder = sys.argv[1], sys.argv[2]
    port = int(sys.argv[3]) if len(sys.argv) > 3 else 34080
    # Most probes name keys of several slots; CLUSTERSCAN wants a cluster.
    servers = [start(server, port)]
    servers.append(start(server, port + 1, "--cluster-enabled", "yes", "--cluster-port", str(port + 11)))
    try:
        time.sleep(1)
        cluster = {2: Client(port + 1), 3: Client(port + 1, 3)}
        cluster[2].raw("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        while b"cluster_state:ok" not in cluster[2].raw("CLUSTER", "INFO"):
            time.sleep(0.2)
        probe({2: Client(port), 3: Client(port, 3)}, cluster, folder)
    finally:
        for process in servers:
            process.terminate()


if __name__ == "__main__":
    main()
