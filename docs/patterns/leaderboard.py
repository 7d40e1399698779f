"""The best of all, and where I stand: a sorted set."""

import demo

args = demo.options()
client = demo.connect(args)
demo.clean(client, "board:")
BOARD = "board:{season:3}"

with client.pipeline(transaction=False) as pipe:
    for player in range(1000):
        pipe.zadd(BOARD, {f"player {player}": player * 10})
    pipe.execute()
client.zincrby(BOARD, 9000, "player 100")


def top(count):
    return client.zrevrange(BOARD, 0, count - 1, withscores=True)


def around(player, each_side=2):
    rank = client.zrevrank(BOARD, player)
    first = max(rank - each_side, 0)
    names = client.zrevrange(BOARD, first, rank + each_side)
    return rank + 1, names


assert top(3) == [("player 100", 10000.0), ("player 999", 9990.0), ("player 998", 9980.0)]
rank, names = around("player 500")
assert rank == 501 and names == [f"player {p}" for p in (502, 501, 500, 499, 498)], (rank, names)
# One board is one key, so one node. A board of millions is split by score or by region, each part
# a key of its own, and the few best of every part are merged.
print(f"ok: player 500 is number {rank} of {client.zcard(BOARD)}")
