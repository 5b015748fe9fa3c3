"""A server that forgets every third connection: it answers, its client closes, and nobody here ever does.

    python3 leaky_server.py serve        listens on 127.0.0.1:8080
    python3 leaky_server.py visit 30     thirty clients, one after another
"""

import socket
import sys
import time

ADDRESS = ("127.0.0.1", 8080)
forgotten = []


def serve():
    listener = socket.create_server(ADDRESS)
    number = 0
    while True:
        connection, _ = listener.accept()
        answer(connection)
        number += 1
        if number % 3 == 0:
            # The bug: somebody wanted to log these later.
            forgotten.append(connection)
        else:
            connection.close()


def answer(connection):
    connection.recv(100)
    connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nhello\n")


def connect():
    for _ in range(100):
        try:
            return socket.create_connection(ADDRESS)
        except ConnectionRefusedError:
            # The server has only just been started.
            time.sleep(0.1)
    return socket.create_connection(ADDRESS)


def visit(count):
    for _ in range(count):
        with connect() as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            connection.recv(100)
        time.sleep(0.05)


if sys.argv[1:2] == ["serve"]:
    serve()
elif sys.argv[1:2] == ["visit"] and len(sys.argv) == 3:
    visit(int(sys.argv[2]))
else:
    sys.exit(__doc__)
