"""Opens connections from many kinds of Python code, and says where: for tests/live/python.rs.

Says "ready". For each line of its standard input, "NAME PORT", it opens a connection to that port in the way of that name, keeps it, and
prints a JSON object: its local port, and the functions that were running, the innermost first, with file and line."""

import asyncio
import functools
import json
import os
import queue
import socket
import sys
import threading

kept = []
real_connect = socket.socket.connect
paths = {}


def frames():
    """The frames that called the caller, and the caller."""
    frame, found = sys._getframe(1), []
    while frame:
        code = frame.f_code
        found.append([code.co_qualname, code.co_filename, frame.f_lineno])
        frame = frame.f_back
    return found


class Traced(socket.socket):
    def connect(self, address):
        # One line: the path is that of the call.
        paths[self.fileno()] = frames(); return real_connect(self, address)  # noqa: E702


def plain(port):
    sock = Traced(socket.AF_INET, socket.SOCK_STREAM)
    sock.connect(("127.0.0.1", port))
    return sock


def nested(port):
    def outer():
        def inner():
            return plain(port)

        return (lambda: inner())()

    return outer()


def recursive(port, depth=12):
    return plain(port) if depth == 0 else recursive(port, depth - 1)


def deep(port):
    """Deeper than what is copied."""
    return recursive(port, 200)


def generator(port):
    def source():
        yield plain(port)

    def delegating():
        yield from source()

    return next(delegating())


def comprehension(port):
    return [plain(number) for number in [port]][0]


def through_c(port):
    """Calls that go through C and come back: each is a loop of its own."""
    return list(map(functools.partial(plain), sorted([port], key=lambda number: number)))[0]


class Client:
    def __init__(self, port):
        self.sock = plain(port) if port else None


def constructor(port):
    """Often enough that the call is specialised: then a frame of CPython's own lies between the class and its function."""
    for number in [0] * 200 + [port]:
        client = Client(number)
    return client.sock


def threaded(port):
    """In one of several threads, which live on: the hunt reads where their stacks are a moment later."""
    found, end = queue.SimpleQueue(), threading.Event()

    def opener():
        found.put(plain(port))
        end.wait()

    for target in [end.wait] * 4 + [opener] + [end.wait] * 4:
        threading.Thread(target=target, daemon=True).start()
    return found.get()


def with_asyncio(port):
    """The transport's connect, called by the loop of a task that awaits others."""

    async def lowest():
        sock = Traced(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        return sock

    async def middle():
        return await lowest()

    async def main():
        return await asyncio.create_task(middle())

    return asyncio.run(main())


def interpreter(port):
    """In another interpreter of the same thread, which stays in it: what it runs is freed when it ends."""
    import _interpreters

    reader, writer = os.pipe()
    never, _ = os.pipe()
    here = []
    code = f"""if True:
        import json, os, socket, sys

        def frames():
            frame, found = sys._getframe(1), []
            while frame:
                found.append([frame.f_code.co_qualname, frame.f_code.co_filename, frame.f_lineno])
                frame = frame.f_back
            return found

        def inside(port):
            global sock, path
            sock = socket.socket()
            path = frames(); sock.connect(("127.0.0.1", port))

        inside({port})
        os.write({writer}, json.dumps([sock.fileno(), path]).encode())
        os.read({never}, 1)
    """
    other = _interpreters.create("legacy")

    def run():
        here.extend(frames()); _interpreters.exec(other, code)  # noqa: E702

    threading.Thread(target=run, daemon=True).start()
    number, path = json.loads(os.read(reader, 1 << 16))
    paths[number] = path + here
    return socket.socket(fileno=number)


def executed(port):
    """Code without a file, with a name that is not ASCII."""
    space = {"plain": plain, "port": port}
    code = compile("def відкрити():\n    return plain(port)\nsock = відкрити()\n", "<приклад>", "exec")
    # What is freed when it has run cannot be read afterwards.
    kept.append(code)
    exec(code, space)
    return space["sock"]



print("ready", flush=True)
for line in sys.stdin:
    name, port = line.split()
    sock = globals()[name](int(port))
    kept.append(sock)
    print(json.dumps({"port": sock.getsockname()[1], "path": paths[sock.fileno()]}), flush=True)
# The threads do not end.
os._exit(0)
