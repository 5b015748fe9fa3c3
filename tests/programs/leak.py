"""Leaks what it accepts: for tests/live/hunt.rs. Says "ready", and ends when its standard input does."""

import select
import socket
import sys


def take_one(listener):
    return listener.accept()


listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
taken = []
print("ready", flush=True)
while sys.stdin not in select.select([sys.stdin, listener], [], [])[0]:
    taken.append(take_one(listener))
