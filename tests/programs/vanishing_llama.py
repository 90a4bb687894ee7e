#!/usr/bin/env python3
"""A child that, once it has said that it is well, lives on but listens no more; only in its first life.

The argument names a file that tells the first life from the others.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

ANSWER = b'{"object":"chat.completion","model":"chat","choices":[]}'
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"


async def main(vanishes: bool) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readuntil(b"\r\n\r\n")
        if asked.startswith(b"POST"):
            await reader.readuntil(b"}")
        elif vanishes:
            server.close()
        writer.write(HEAD % len(ANSWER) + ANSWER)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(f"listening on http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    mark = Path(sys.argv[1])
    first_life = not mark.exists()
    mark.touch()
    asyncio.run(main(first_life))
