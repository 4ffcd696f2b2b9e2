"""TCP links between services and what they need, which can be cut: the network faults of the chaos test.

Each link is a proxy on a loopback port of its own. Cutting a link stalls it, as a network does that drops every packet:
connections stay, nothing is forwarded, new ones get no response. Restoring it goes on with the same connections, or resets
them. A network namespace with iptables would need root and would do the same.
"""

import asyncio
import logging
import socket
import struct
import threading

CHUNK = 65536
# Closing a socket with this option sends a reset.
RESET = struct.pack("ii", 1, 0)


class Link:
    """A proxy to `target`: the path of a Unix socket, or (host, port)."""

    def __init__(self, links, target):
        self.links, self.target = links, target
        self.port = links.wait(self._open())

    async def _open(self):
        # Cuts may overlap: the link flows when all have ended.
        self.flowing, self.writers, self.cuts = asyncio.Event(), set(), 0
        self.flowing.set()
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self.server.sockets[0].getsockname()[1]

    async def _serve(self, reader, writer):
        others = ()
        self.writers.add(writer)
        try:
            await self.flowing.wait()
            if isinstance(self.target, str):
                others = await asyncio.open_unix_connection(self.target)
            else:
                others = await asyncio.open_connection(*self.target)
            self.writers.add(others[1])
            await asyncio.gather(self._pump(reader, others[1]), self._pump(others[0], writer))
        except OSError:
            # The target is down or has gone: so is the connection.
            pass
        finally:
            for each in (writer, *others[1:]):
                self.writers.discard(each)
                each.transport.abort()

    async def _pump(self, reader, writer):
        while data := await reader.read(CHUNK):
            await self.flowing.wait()
            writer.write(data)
            await writer.drain()
        await self.flowing.wait()
        if writer.can_write_eof():
            writer.write_eof()

    def cut(self):
        self.links.call(self._count, 1)

    def restore(self):
        self.links.call(self._count, -1)

    def _count(self, change):
        self.cuts += change
        if self.cuts:
            self.flowing.clear()
        else:
            self.flowing.set()

    def reset(self):
        """Resets all connections."""
        self.links.call(self._reset)

    def _reset(self):
        for writer in list(self.writers):
            connection = writer.get_extra_info("socket")
            if connection is not None and connection.family != socket.AF_UNIX:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort()


class Links:
    """All links, on a thread of their own."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        # What a link does is seen by both of its ends; a connection that ends in an error is no news.
        self.loop.set_exception_handler(lambda loop, context: None)
        logging.getLogger("asyncio").setLevel(logging.ERROR)
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def to(self, target):
        return Link(self, target)

    def wait(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    def call(self, function, *arguments):
        self.loop.call_soon_threadsafe(function, *arguments)
