"""A TCP relay on loopback that can lose an answer: what was asked arrives, what was said to it does not."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

CHUNK = 65536


class Relay:
    """Passes bytes between whoever connects to `port` and a server. Connections through it are cut when an answer is
    lost.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self._target, self._word, self._left = target, b"", 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self.lost = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def lose_answers_to(self, word: bytes, times: int = 1) -> None:
        """The next `times` requests that hold `word` are passed on, and their answers are lost with the connection."""
        self._word, self._left = word, times

    def close(self) -> None:
        """No further connections."""
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._pass, args=(client,), daemon=True).start()

    def _pass(self, client: socket.socket) -> None:
        with closing(client), closing(socket.create_connection(self._target)) as server:
            while True:
                ready, _, _ = select.select([client, server], [], [])
                for end, other in ((client, server), (server, client)):
                    if end in ready:
                        data = end.recv(CHUNK)
                        if not data:
                            return
                        other.sendall(data)
                        if end is client and self._left > 0 and self._word in data:
                            self._left -= 1
                            server.recv(CHUNK)  # the server has done it by now
                            self.lost += 1
                            return


@contextmanager
def relay(port: int) -> Iterator[Relay]:
    """A relay to a port of this machine, for the block."""
    made = Relay(("127.0.0.1", port))
    try:
        yield made
    finally:
        made.close()
