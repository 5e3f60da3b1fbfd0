"""The page behind an address of this machine."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from st_llm2vec.playground.models import Models
from st_llm2vec.playground.page import answer, page

LARGEST = 2_000_000
"""Bytes of a request: all that the page takes, several times over."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""With these a browser asks nothing of any other machine, whatever the page holds."""
LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")


def build_app(models: Models, host: str = "127.0.0.1") -> Starlette:
    """The application: the page, its two files, and ``/compare``, which takes and gives JSON.

    Args:
        models: What can be compared.
        host: Where it will listen. On the loopback interface requests for other names are refused, so that no page on the
            web can reach it by a name that it has pointed here.
    """

    async def show(request: Request) -> Response:
        return HTMLResponse(page(models), headers=HEADERS)

    async def compare(request: Request) -> Response:
        try:
            return JSONResponse(await run_in_threadpool(answer, models, await _read(request)), headers=HEADERS)
        except ValueError as error:
            return JSONResponse({"error": str(error)}, 400, headers=HEADERS)

    routes = [
        Route("/", show),
        *(Route(f"/{name}", _file(name)) for name in ("page.css", "page.js")),
        Route("/compare", compare, methods=["POST"]),
    ]
    allowed = [*LOOPBACK, host] if is_loopback(host) else ["*"]
    return Starlette(routes=routes, middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=allowed)])


def serve_page(models: Models, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve the page until it is interrupted.

    Args:
        models: What can be compared.
        host: Where to listen.
        port: The port; 0 is any that is free.
        ready: Called with the address once it answers there.

    Raises:
        ValueError: If nothing can listen there.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        raise ValueError(
            f"Nothing can listen at {host}, port {port}: {error.strerror}. Choose another --port."
        ) from error
    with listening:
        shown = f"[{host}]" if ":" in host else host
        ready(f"http://{shown}:{listening.getsockname()[1]}")
        config = uvicorn.Config(build_app(models, host), log_level="warning", timeout_graceful_shutdown=2)
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listening])


def is_loopback(host: str) -> bool:
    """Whether an address or a name is that of this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _file(name: str) -> Callable[[Request], Response]:
    def send(request: Request) -> Response:
        return FileResponse(Path(__file__).with_name(name), headers=HEADERS)

    return send


async def _read(request: Request) -> dict[str, Any]:
    """The fields of a request.

    Raises:
        ValueError: If it is too large, or no JSON object. Other pages cannot send one here without being asked whether they may.
    """
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise ValueError("The request is no JSON: send application/json.")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST:
            raise ValueError(f"The request has more than {LARGEST:,} bytes. Shorten the texts.")
    try:
        sent = json.loads(body)
    except ValueError as error:
        raise ValueError(f"The request is no JSON: {error}.") from error
    if not isinstance(sent, dict):
        raise ValueError("The request is no JSON object.")
    return sent
