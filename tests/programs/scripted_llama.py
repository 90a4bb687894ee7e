#!/usr/bin/env python3
"""A child that answers every POST, and GET /metrics, with the same bytes, in pieces and with pauses.

The argument is a JSON list: texts are sent as they are, numbers are seconds of silence. Then the connection is closed.
"""

from __future__ import annotations

import asyncio
import json
import sys

WELL = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


async def main(script: list[str | float]) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readuntil(b"\r\n\r\n")
        if asked.startswith(b"GET /metrics "):
            await play(writer)
        elif asked.startswith(b"GET"):
            writer.write(WELL)
        else:
            await reader.readuntil(b"}")
            await play(writer)
        writer.close()

    async def play(writer: asyncio.StreamWriter) -> None:
        for step in script:
            if isinstance(step, str):
                writer.write(step.encode())
                await writer.drain()
            else:
                await asyncio.sleep(step)

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(f"listening on http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
