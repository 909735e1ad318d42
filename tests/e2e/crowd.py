"""A stand-in for Wix that hangs for some sites, as a process of its own: it takes no time from who asks.

It says its port, then answers each poll with SYNCED, and says nothing to a connection whose id begins so.
"""

import asyncio
import json
import sys
from typing import Final

MUTE: Final = "mute-"


class Talk(asyncio.Protocol):
    """One connection; a request of ours comes in one piece and has no body."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer, or not."""
        connection_id = data.split(b" ", 2)[1].rsplit(b"/", 1)[1].decode()
        if not connection_id.startswith(MUTE):
            body = json.dumps({"connection": {"id": connection_id, "status": "SYNCED"}}).encode()
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


async def main() -> None:
    """Serve until killed."""
    server = await asyncio.get_running_loop().create_server(Talk, "127.0.0.1", 0, backlog=1024)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
