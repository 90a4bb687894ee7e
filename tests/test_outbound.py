"""The outbound guard, against real servers and a real name server; nothing leaves this machine."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

import psutil
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from dnslib import RR, A, DNSRecord
from dnslib.server import BaseResolver, DNSHandler, DNSLogger, DNSServer

from llamarunner.config import OutboundSettings
from llamarunner.outbound import Answer, Ask, Denied, Outbound, Rules, Unreachable, check_url, is_public

# Ways to spell this machine, and others that nobody outside may reach; PORT is where a server listens here.
_URLS = """
http://127.0.0.1:PORT/ http://127.0.0.1:PORT http://127.0.0.1.:PORT/ http://127.1:PORT/ http://127.0.1:PORT/
http://127.255.255.254:PORT/ http://127.0.0.2:PORT/ http://2130706433:PORT/ http://0x7f000001:PORT/
http://0x7f.0.0.1:PORT/ http://0x7f.1:PORT/ http://0177.0.0.1:PORT/ http://0177.1:PORT/ http://017700000001:PORT/
http://0000177.0.0.1:PORT/ http://0x7F.0X0.0x0.0x1:PORT/ http://00000.0.0.0:PORT/ http://0.0.0.0:PORT/ http://0:PORT/
http://0.0:PORT/ http://0x0:PORT/ http://localhost:PORT/ http://LOCALHOST:PORT/ http://LocalHost:PORT/
http://localhost.:PORT/ http://localhost..:PORT/ http://loc%61lhost:PORT/ http://%6c%6f%63%61%6c%68%6f%73%74:PORT/
http://%31%32%37.0.0.1:PORT/ http://①②⑦.⓪.⓪.①:PORT/ http://①②⑦.0.0.1:PORT/ http://１２７.０.０.１:PORT/
http://127。0。0。1:PORT/ http://127．0．0．1:PORT/ http://127｡0｡0｡1:PORT/ http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ:PORT/ http://ｌｏｃａｌｈｏｓｔ:PORT/
http://[::1]:PORT/ http://[0:0:0:0:0:0:0:1]:PORT/ http://[0000::0001]:PORT/ http://[::]:PORT/ http://[::0]:PORT/
http://[::ffff:127.0.0.1]:PORT/ http://[::ffff:7f00:1]:PORT/ http://[0:0:0:0:0:ffff:127.0.0.1]:PORT/
http://[::FFFF:7F00:0001]:PORT/ http://[::127.0.0.1]:PORT/ http://[::7f00:1]:PORT/ http://[::ffff:0.0.0.0]:PORT/
http://[::ffff:0:127.0.0.1]:PORT/ http://[64:ff9b::127.0.0.1]:PORT/ http://[64:ff9b::7f00:1]:PORT/
http://[64:ff9b:1::7f00:1]:PORT/ http://[2002:7f00:1::]:PORT/ http://[2002:7f00:0001::1]:PORT/
http://[2001:0:7f00:1::]:PORT/ http://[::1%25lo]:PORT/ http://[::1%25]:PORT/ http://[fe80::1%25lo]:PORT/
http://user@127.0.0.1:PORT/ http://user:secret@127.0.0.1:PORT/ http://@127.0.0.1:PORT/ http://:@127.0.0.1:PORT/
http://example.com@127.0.0.1:PORT/ http://example.com:80@127.0.0.1:PORT/ http://127.0.0.1:PORT@127.0.0.1:PORT/
http://example.com\\@127.0.0.1:PORT/ http://127.0.0.1\\@127.0.0.1:PORT/ http:\\\\127.0.0.1:PORT\\
http:127.0.0.1:PORT/ http:/127.0.0.1:PORT/ http:///127.0.0.1:PORT/ //127.0.0.1:PORT/ 127.0.0.1:PORT/
HTTP://127.0.0.1:PORT/ hTTp://localhost:PORT/ http://127.0.0.1:PORT#@example.com/ http://127.0.0.1:PORT?@example.com/
http://127.0.0.1:00PORT/ http://127.0.0.1:PORT/%2e%2e/ ws://127.0.0.1:PORT/ file:///etc/passwd ftp://127.0.0.1:PORT/
gopher://127.0.0.1:PORT/_GET unix:///tmp/socket data:text/plain,hello javascript:alert(1) http:// https:// http://:PORT/
http://[::1 http://[v1.fe]/ http://127.0.0.1:99999/ http://127.0.0.1:-1/ http://127.0.0.1:0/ http://ip6-localhost:PORT/
"""
SPELLINGS = [
    *_URLS.split(),
    "http://127.0.0.1\t:PORT/",
    "http://127.0.\n0.1:PORT/",
    " http://127.0.0.1:PORT/",
    "http://127.0.0.1 :PORT/",
    "http://local\x00host:PORT/",
    "http://localhost\r\nHost: x:PORT/",
    "http://127.0.0.1:PORT/" + "a" * 2048,
    "",
]
_CLOSED = """
0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.127.255.255 127.0.0.1 127.255.255.255 169.254.1.1
169.254.169.254 172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.8 192.0.0.9 192.0.2.1 192.88.99.1 192.168.0.1 198.18.0.1
198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255
:: ::1 ::7f00:1 ::ffff:10.0.0.1 ::ffff:127.0.0.1 64:ff9b::a00:1 64:ff9b::808:808 64:ff9b:1::1 100::1 2001::1
2001:2::1 2001:db8::1 2001:10::1 2002:a00:1:: 2002:808:808:: 3fff::1 5f00::1 fc00::1 fd00:ec2::254 fe80::1 fec0::1
ff02::1 ff0e::1 ::ffff:0:808:808 ::ffff:0:7f00:1
"""
NOT_PUBLIC = _CLOSED.split()
PUBLIC = (
    "8.8.8.8",
    "1.1.1.1",
    "100.63.255.255",
    "172.32.0.1",
    "192.169.0.1",
    "223.255.255.254",
    "2606:4700::1111",
    "2a00:1450::1",
)
METADATA = (
    "169.254.169.254",
    "169.254.170.2",
    "100.100.100.200",
    "168.63.129.16",
    "::ffff:169.254.169.254",
    "fd00:ec2::254",
)


@dataclass
class Target:
    """A server that counts who comes."""

    port: int = 0
    asked: list[str] = field(default_factory=list)
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        return await self.answer(request) if self.answer else web.Response(text="inside")


@pytest.fixture
async def target() -> AsyncIterator[Target]:
    """A server on every address of this machine, IPv4 and IPv6."""
    target, app = Target(), web.Application()
    app.router.add_route("*", "/{path:.*}", target.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as sock:
        await web.SockSite(runner, sock).start()
        target.port = sock.getsockname()[1]
        yield target
        await runner.cleanup()


def outbound(*allow: str, own_ports: Collection[int] = (), resolver: AbstractResolver | None = None) -> Outbound:
    settings = OutboundSettings(allow_cidrs=allow)
    return Outbound(settings, lambda: own_ports, resolver) if resolver else Outbound(settings, lambda: own_ports)


async def ask(guard: Outbound, url: str, *, seconds: float = 5.0, limit: int = 1000, loopback: bool = False) -> Answer:
    return await guard.request(Ask(url, seconds, limit, loopback=loopback))


async def test_a_loopback_door_may_name_this_machine(target: Target) -> None:
    for host in ("127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]"):
        url = f"http://{host}:{target.port}/"
        assert str(await outbound().check(url, loopback=True)).endswith(f"{target.port}/")
        assert (await ask(outbound(), url, loopback=True)).body == b"inside"
    assert len(target.asked) == 4


async def test_s34_no_spelling_leads_inside(target: Target) -> None:
    assert len(SPELLINGS) > 90
    for spelling in SPELLINGS:
        with pytest.raises((Denied, Unreachable)):
            await ask(outbound(), spelling.replace("PORT", str(target.port)))
    assert target.asked == []


async def test_s34_what_is_plainly_inside_is_refused_before_it_is_tried(target: Target) -> None:
    for host in ("127.0.0.1", "127.1", "0x7f.1", "localhost", "[::1]", "[::ffff:7f00:1]", "0", "10.0.0.1"):
        with pytest.raises(Denied):
            await outbound().check(f"http://{host}:{target.port}/")
    assert str(await outbound().check("https://8.8.8.8/path?query")) == "https://8.8.8.8/path?query"
    assert str(await outbound().check("https://nobody.invalid/")) == "https://nobody.invalid/"


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_s34_addresses_that_are_not_public(address: str) -> None:
    assert not Rules().permits(ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_addresses_that_are_public(address: str) -> None:
    assert is_public(ip_address(address))
    assert Rules().permits(ip_address(address))


@pytest.mark.parametrize("address", METADATA)
def test_metadata_services_are_never_allowed(address: str) -> None:
    assert not Rules(("0.0.0.0/0", "::/0"), loopback=True).permits(ip_address(address))


def test_allowed_networks_are_allowed_and_no_more() -> None:
    rules = Rules(("192.168.1.0/24", "64:ff9b::/96"))
    told = {address: rules.permits(ip_address(address)) for address in ("192.168.1.9", "::ffff:192.168.1.9")}
    assert set(told.values()) == {True}
    for address in ("192.168.2.9", "127.0.0.1", "64:ff9b::a00:1", "64:ff9b::a9fe:a9fe"):
        assert not rules.permits(ip_address(address))
    assert rules.permits(ip_address("64:ff9b::808:808")), "the gateway of an IPv6 network leads to all of IPv4"


def test_private_networks_are_those_that_people_have_at_home() -> None:
    rules = Rules(private=True)
    private = ("10.1.2.3", "172.31.0.1", "192.168.1.9", "100.64.0.1", "169.254.1.1", "fd12::1", "fe80::1")
    assert all(rules.permits(ip_address(address)) for address in (*private, "::ffff:192.168.1.9", *PUBLIC))
    closed = ("127.0.0.1", "::1", "0.0.0.0", "::", "224.0.0.1", "240.0.0.1", "192.0.2.1", *METADATA)
    assert not any(rules.permits(ip_address(address)) for address in closed)
    assert not any(Rules().permits(ip_address(address)) for address in private)
    assert Rules(private=True, loopback=True).permits(ip_address("127.0.0.1"))


async def test_own_ports_are_never_dialled_by_any_address_of_this_machine(target: Target) -> None:
    guard = outbound("0.0.0.0/0", "::/0", own_ports={target.port})
    here = [one.address for many in psutil.net_if_addrs().values() for one in many if one.family == socket.AF_INET]
    assert "127.0.0.1" in here
    for host in (*here, "127.0.0.2", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "[::]"):
        url = f"http://{host}:{target.port}/"
        with pytest.raises(Denied):
            await ask(guard, url, loopback=True)
        with pytest.raises(Denied):
            await guard.check(url, loopback=True)
    assert target.asked == []
    assert (await ask(outbound("127.0.0.0/8"), target.url)).body == b"inside"


# ── DNS ────────────────────────────────────────────────────────────────────────────────────────────────────────────


class Zone(BaseResolver):
    """Answers every question for an address with the next of a list, and then with the last."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = list(addresses)
        self.asked = 0

    def resolve(self, request: DNSRecord, handler: DNSHandler) -> DNSRecord:
        answer = request.reply()
        address = self.addresses[min(self.asked, len(self.addresses) - 1)]
        self.asked += 1
        answer.add_answer(RR(request.q.qname, rdata=A(address), ttl=0))
        return answer


class NameServer(AbstractResolver):
    """Asks one name server over UDP, as the system's resolver does."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_UNSPEC) -> list[ResolveResult]:
        packet = await asyncio.to_thread(DNSRecord.question(host).send, "127.0.0.1", self.port, timeout=5)
        return [
            ResolveResult(hostname=host, host=str(one.rdata), port=port, family=socket.AF_INET, proto=0, flags=0)
            for one in DNSRecord.parse(packet).rr
        ]

    async def close(self) -> None:
        pass


@contextmanager
def name_server(zone: Zone) -> Iterator[NameServer]:
    server = DNSServer(zone, address="127.0.0.1", port=0, logger=DNSLogger("-request,-reply,-truncated"))
    server.start_thread()
    try:
        yield NameServer(server.server.server_address[1])
    finally:
        server.stop()
        server.server.server_close()


async def test_s35_a_name_that_was_public_and_leads_inside_now_is_refused(target: Target) -> None:
    zone = Zone("8.8.8.8", "127.0.0.1")
    with name_server(zone) as resolver:
        guard = outbound(resolver=resolver)
        url = f"http://rebind.example:{target.port}/"
        await guard.check(url)
        for _ in range(3):
            with pytest.raises(Denied):
                await ask(guard, url)
        assert zone.asked == 4, "a name is looked up anew for every request"
        assert target.asked == []
        assert (await ask(guard, url, loopback=True)).status == 200, "the name does lead there"


async def test_each_dial_of_a_line_is_judged(target: Target) -> None:
    own_ports: set[int] = set()
    with name_server(Zone("127.0.0.1", "127.0.0.1", "169.254.169.254")) as resolver:
        guard = Outbound(OutboundSettings(), lambda: own_ports, resolver)
        url = f"http://rebind.example:{target.port}/"
        async with guard.line(loopback=True) as line:
            async with await line.ask("POST", url, {"X-Of": "mine"}, b"body") as response:
                assert await response.read() == b"inside"
            own_ports.add(target.port)  # as of a model that was started meanwhile
            with pytest.raises(Denied):
                await line.ask("GET", url, {}, b"")
            own_ports.clear()
            with pytest.raises(Denied):
                await line.ask("GET", url, {}, b"")
    async with outbound().line(private=True) as line:
        with pytest.raises(Denied):
            await line.ask("GET", target.url, {}, b"")
        with pytest.raises(Denied):
            await line.ask("GET", "file:///etc/passwd", {}, b"")
    assert len(target.asked) == 1


async def test_an_answer_of_a_line_is_read_as_it_comes(target: Target) -> None:
    seen: list[tuple[str, str, bytes]] = []
    gone = asyncio.Event()

    async def drip(request: web.Request) -> web.StreamResponse:
        seen.append((request.method, request.headers["User-Agent"], await request.read()))
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"first")
        await gone.wait()
        await response.write(b"second")
        return response

    target.answer = drip
    async with outbound().line(loopback=True) as line:
        response = await line.ask("POST", target.url, {"Content-Type": "text/plain"}, b"body")
        assert await response.content.readany() == b"first"
        gone.set()
        assert await response.content.readany() == b"second"
        response.close()
    assert seen == [("POST", "LlamaRunner", b"body")]


# ── HTTP ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_s36_redirects_are_not_followed(target: Target, status: int) -> None:
    async def redirect(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, headers={"Location": f"http://127.0.0.1:{target.port}/inside"})

    target.answer = redirect
    assert (await ask(outbound(), target.url, loopback=True)).status == status
    assert target.asked == ["/"]


async def test_s37_proxies_of_the_environment_are_not_used(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, target.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises((Denied, Unreachable)):
        await ask(outbound(), "http://10.255.255.1:9/", loopback=True)
    assert target.asked == []


async def test_answers_are_read_to_their_limit_and_not_unpacked(target: Target) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Encoding": "gzip"})
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65_536)

    target.answer = endless
    answer = await ask(outbound(), target.url, limit=1000, loopback=True)
    assert (answer.status, answer.body, answer.whole) == (200, b"x" * 1000, False)


async def test_an_answer_that_drips_ends_in_time_and_one_that_never_begins_is_none(target: Target) -> None:
    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"x")
        await asyncio.sleep(30)
        return response

    async def hang(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(30)
        return web.Response()

    target.answer = drip
    answer = await ask(outbound(), target.url, seconds=0.3, loopback=True)
    assert (answer.status, answer.body, answer.whole) == (200, b"x", False)
    target.answer = hang
    with pytest.raises(Unreachable, match=r"within 0\.3 seconds"):
        await ask(outbound(), target.url, seconds=0.3, loopback=True)


async def test_what_is_no_http_or_no_server_or_no_tls_is_unreachable(target: Target) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
    for url in (f"http://127.0.0.1:{port}/", f"https://127.0.0.1:{target.port}/", "http://nobody.invalid/"):
        with pytest.raises(Unreachable) as caught:
            await ask(outbound(), url, loopback=True)
        assert "127.0.0.1" not in caught.value.message


@asynccontextmanager
async def saying(interim: bytes, times: int | None) -> AsyncIterator[str]:
    """A server that says something so many times, or without end, and then answers 200; gives its URL."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        with suppress(ConnectionError):
            while times is None:
                writer.write(interim * 1000)
                await writer.drain()
            writer.write(interim * times + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


INTERIM = [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: " + b"x" * 200 + b"\r\n\r\n"]


@pytest.mark.parametrize("interim", INTERIM, ids=["100", "103"])
async def test_interim_answers_without_end_are_no_answer(interim: bytes) -> None:
    async with saying(interim, None) as url:
        with pytest.raises(Unreachable, match="not valid HTTP"):
            await ask(outbound(), url, seconds=2, loopback=True)
    for times in (0, 1, 10):
        async with saying(interim, times) as url:
            assert (await ask(outbound(), url, loopback=True)).body == b"ok"
    async with saying(interim, 11) as url:
        with pytest.raises(Unreachable, match="not valid HTTP"):
            await ask(outbound(), url, loopback=True)


def test_urls_that_are_fine() -> None:
    for text in ("https://example.com/hook?a=b", "http://192.168.1.5:8080/", "https://bücher.example/x"):
        assert check_url(text).host


@pytest.mark.parametrize(
    "host", ["127.1", "127.0.0.1.", "2130706433", "0177.0.0.1", "0x7f.1", "0x7f000001", "0", "8.8", "1.2.3.4.5", "1.0x"]
)
def test_numbers_that_are_no_whole_address_are_refused_at_once(host: str) -> None:
    """Some programs read them as an address, and the one that would deliver does not (WHATWG URL, 3.5)."""
    with pytest.raises(Denied, match="four numbers"):
        check_url(f"http://{host}:8080/")
    for fine in ("http://1.2.3.4/", "http://1.2.3.4.example/", "http://0x7f.example/", "http://[::1]/", "http://a1/"):
        assert check_url(fine).host


def test_what_only_a_browser_would_use_is_left_out() -> None:
    assert str(check_url("https://example.com/hook?a=b#c")) == "https://example.com/hook?a=b"
