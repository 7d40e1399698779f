"""A room: messages to whoever listens now, and the last of them for whoever comes later."""

import json

import demo

args = demo.options()
client = demo.connect(args)
demo.clean(client, "chat:")
ROOM, KEPT = "chat:room:1", 100


def say(name, text):
    """Kept first, then told: who comes between the two reads it in the history."""
    message = json.dumps({"from": name, "text": text})
    with client.pipeline(transaction=True) as pipe:
        pipe.rpush(f"{ROOM}:history", message).ltrim(f"{ROOM}:history", -KEPT, -1)
        pipe.execute()
    client.publish(ROOM, message)


def hear(subscription, count):
    heard = []
    while len(heard) < count:
        message = subscription.get_message(timeout=10)
        assert message is not None, f"only {len(heard)} of {count} came"
        if message["type"] == "message":
            heard.append(json.loads(message["data"])["text"])
    return heard


# A subscription is a connection of its own here; Keyway has one to a node for all who listen.
listeners = [client.pubsub() for _ in range(5)]
for listener in listeners:
    listener.subscribe(ROOM)
    confirmed = listener.get_message(timeout=10)
    assert confirmed["type"] == "subscribe", confirmed
said = [f"message {i}" for i in range(150)]
for text in said:
    say("ann", text)
for listener in listeners:
    assert hear(listener, len(said)) == said
    listener.close()
history = [json.loads(message)["text"] for message in client.lrange(f"{ROOM}:history", 0, -1)]
assert history == said[-KEPT:]
print(f"ok: {len(said)} messages to {len(listeners)} listeners in order; the last {len(history)} are kept")
