"""TCP proxies that something bad happens to on the way."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from dataclasses import dataclass


@dataclass
class Proxy:
    """A TCP proxy that does something bad once so many bytes went from the client to the server.

    Attributes:
        port: where it listens.
        passed: bytes that have gone that way, of the newest connection.
    """

    port: int = 0
    passed: int = 0


class Proxies:
    """All proxies of a test, and their sockets."""

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []
        self._over = threading.Event()

    def make(self, to_port: int, after: int, how: str = "reset") -> Proxy:
        """Return a proxy to a port; each connection through it is reset, closed or stalled after `after` bytes."""
        listener = socket.create_server(("127.0.0.1", 0))
        self._sockets.append(listener)
        one = Proxy(port=listener.getsockname()[1])

        def accept() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                server = socket.create_connection(("127.0.0.1", to_port))
                self._sockets.extend((client, server))
                one.passed = 0
                threading.Thread(target=self._pump, args=(client, server, one, after, how), daemon=True).start()
                threading.Thread(target=self._pump, args=(server, client, None, after, how), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        return one

    def close(self) -> None:
        """Let go of everything, also of what is stalled."""
        self._over.set()
        for one in self._sockets:
            one.close()

    def _pump(self, source: socket.socket, sink: socket.socket, one: Proxy | None, after: int, how: str) -> None:
        try:
            while piece := source.recv(1 << 14):
                if one is not None:
                    room = after - one.passed
                    sink.sendall(piece[: max(room, 0)])
                    one.passed += min(len(piece), max(room, 0))
                    if len(piece) > room:
                        break
                else:
                    sink.sendall(piece)
            else:
                sink.shutdown(socket.SHUT_WR)
                return
        except OSError:
            if one is None:
                return
        if how == "stall":
            self._over.wait(120)
        client, server = source, sink
        if how == "reset" and client.fileno() >= 0:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # The other pump waits in recv for this one: a mere close would not be noticed there.
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        client.close()
