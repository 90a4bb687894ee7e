"""A real MCP server with the tools of LM Studio's examples besides those of `mcp_server`, which says how it is run."""

from __future__ import annotations

from mcp_server import main, server


@server.tool()
def model_search(sort: str, query: str = "", limit: int = 1) -> str:
    """Search models."""
    return f"{limit} by {sort}: example/model {query}".strip()


@server.tool()
def browser_navigate(url: str) -> str:
    """Open a page in the browser."""
    return f"{url} is open"


if __name__ == "__main__":
    main()
