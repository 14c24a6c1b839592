"""The filters that keep a state, under the real smtpd: several workers, servers that share it."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.client import Client
from tests.support.filters import command
from tests.support.sink import Sink
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.redis import RedisServer
    from tests.support.smtpd import Smtpd

MESSAGE = b"Subject: hello\r\n\r\nhello\r\n"
WORKERS = ("--workers", "2")


def run(name: str, *options: str) -> dict[str, str]:
    """A stock filter with two workers."""
    return {name: command(Path(name), *options, options=WORKERS)}


def offer(server: Smtpd, *recipients: str, client: str = "192.0.2.10", n: int = 0) -> list[str]:
    """Give what a client is told for MAIL, each recipient, and its message if one was accepted."""
    with Client(server.proxy_port, proxy=client) as smtp:
        smtp.greet()
        # Numbers in a sender do not count for greylist.
        name = "".join(chr(ord("a") + int(digit)) for digit in str(n))
        replies = [smtp.command(f"MAIL FROM:<{name}@example.net>")]
        replies += [smtp.command(f"RCPT TO:<{each}>") for each in recipients]
        if any(reply.startswith("250") for reply in replies[1:]):
            replies.append(smtp.data(MESSAGE))
        smtp.quit()
        return replies


def test_greylist_two_servers_know_each_others_clients_and_an_outage_lets_mail_pass(
    smtpd: Callable[..., Smtpd], sink: Sink, redis_server: RedisServer
):
    options = ["--store", redis_server.url, "--store-timeout=1", "--no-spf", "--delay=1s"]
    servers = [smtpd(run("greylist", *options), sink=sink) for _ in range(2)]
    assert offer(servers[0], "bob@example.org")[1].startswith("451 4.7.1 Greylisted, please try")
    servers[0].wait_for_log("greylist: defer reason=first-try wait=1 client=192.0.2.10 ")
    # The other one knows since when the client waits.
    retry = [""]
    wait_until(
        lambda: retry.append(offer(servers[1], "bob@example.org")[1]) or "250" in retry[-1],
        15.0,
        "the retry to be let in",
    )
    servers[1].wait_for_log("greylist: pass reason=waited client=192.0.2.10 ")
    assert offer(servers[0], "bob@example.org", client="192.0.2.99")[-1].startswith("250 ")
    redis_server.stop()
    for n, server in enumerate(servers):
        assert offer(server, "new@example.org", n=n + 1)[-1].startswith("250 ")
        server.wait_for_log("warning: store redis://127.0.0.1:[0-9]+/0 is away: ")
        server.wait_for_log("greylist: pass reason=store-away client=192.0.2.10 ")
    redis_server.start()
    for server in servers:
        wait_until(Refusals(server), 15.0, "the store to be used again")
        server.wait_for_log("store redis://127.0.0.1:[0-9]+/0 is back after")
    assert offer(servers[0], "bob@example.org")[-1].startswith("250 ")
    assert all(server.alive() for server in servers)


class Refusals:
    """Whether new senders are refused again, and the log says why."""

    def __init__(self, server: Smtpd) -> None:
        self._server = server
        self._number = 100

    def __call__(self) -> bool:
        self._number += 1
        reply = offer(self._server, "x@example.org", client="198.51.100.1", n=self._number)[1]
        return reply.startswith("451 ") and any("is back" in line for line in self._server.log)


def test_greylist_learns_whom_users_write_to_from_relayed_mail(
    smtpd: Callable[..., Smtpd], sink: Sink, tmp_path: Path, dns_server: Any
):
    dns_server.zones = {"example.net": {"TXT": "v=spf1 ip4:192.0.2.0/24 -all"}}
    options = ["--store", f"sqlite:{tmp_path}/greylist.sqlite"]
    options += ["--resolver", f"127.0.0.1@{dns_server.port}"]
    server = smtpd(run("greylist", *options), relay_filter="greylist", sink=sink)
    assert offer(server, "bob@example.org")[1].startswith("451 ")
    with Client(server.plain_port) as us:  # a listener without the filter
        us.greet()
        us.envelope("us@example.org", "friend@example.net")
        assert us.data(MESSAGE).startswith("250 ")
    sink.wait_for(1)
    wait_until(
        lambda: offer(server, "bob@example.org", client="192.0.2.77")[1].startswith("250 "),
        15.0,
        "the domain to be learned",
    )
    server.wait_for_log("greylist: pass reason=correspondent client=192.0.2.77 ")
    assert offer(server, "bob@example.org", client="198.51.100.1")[1].startswith("451 ")


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_ratelimit_sessions_of_several_workers_and_servers_cannot_pass_a_limit_together(
    smtpd: Callable[..., Smtpd], sink: Sink, tmp_path: Path, kind: str, request: Any
):
    shared = kind == "redis"
    url = f"sqlite:{tmp_path}/ratelimit.sqlite"
    if shared:
        url = request.getfixturevalue("redis_server").url
    told, script = tmp_path / "told", tmp_path / "tell.sh"
    script.write_text(f'#!/bin/sh\necho "$RATELIMIT_WHO $RATELIMIT_LIMIT" >>{told}\n')
    script.chmod(0o755)
    options = ["--store", url, "--store-timeout=10", "--limit=network:recipients=10/day"]
    options += ["--notify", str(script)]
    servers = [smtpd(run("ratelimit", *options), sink=sink) for _ in range(2 if shared else 1)]
    replies: list[list[str]] = []

    def work(number: int) -> None:
        server = servers[number % len(servers)]
        for n in range(3):
            replies.append(offer(server, "bob@example.org", n=n))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    granted = [each for each in replies if each[1].startswith("250 ")]
    assert all(each[-1].startswith("250 ") for each in granted)
    assert all("4.7.1 Too many recipients" in each[1] for each in replies if each not in granted)
    # Whoever was refused while another had reserved may be let in later, when that was given back.
    assert len(granted) == 10
    assert len(sink.wait_for(10)) == 10
    wait_until(told.exists, 15.0, "the administrator to be told")
    assert told.read_text() == "192.0.2.10/32 recipients 10 per day\n"
    assert offer(servers[0], "bob@example.org", client="192.0.2.11")[-1].startswith("250 ")


def test_ratelimit_what_a_killed_worker_had_reserved_is_counted_when_it_is_delivered(
    smtpd: Callable[..., Smtpd], sink: Sink, tmp_path: Path
):
    store = f"sqlite:{tmp_path}/ratelimit.sqlite"
    server = smtpd(run("ratelimit", "--store", store, "--limit=network:messages=2/day"), sink=sink)
    with Client(server.proxy_port, proxy="192.0.2.10") as smtp:
        smtp.greet()
        smtp.envelope("a@example.net", "bob@example.org")
        before = set(server.filter_pids())
        kill_workers(server)
        wait_until(lambda: len(set(server.filter_pids()) - before) >= 2, 20.0, "new workers")
        assert smtp.data(MESSAGE).startswith("250 ")
    assert offer(server, "bob@example.org")[-1].startswith("250 ")
    assert "450 4.7.1 Too many messages" in offer(server, "bob@example.org")[1]


def kill_workers(server: Smtpd) -> None:
    """Kill the processes that the supervisor has started."""
    supervisor = server.filter_pid(next(iter(server.filters)))
    for pid in server.filter_pids():
        status = Path(f"/proc/{pid}/status").read_text()
        if f"PPid:\t{supervisor}\n" in status:
            os.kill(pid, signal.SIGKILL)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_delivery_log_joins_what_comes_in_with_what_goes_out(
    smtpd: Callable[..., Smtpd], tmp_path: Path
):
    path = tmp_path / "mail.json"
    options = ["--store", f"sqlite:{tmp_path}/delivery_log.sqlite", "--output", str(path)]
    refuse = {"nobody@example.org": "550 5.1.1 no such user", "later@example.org": "450 4.2.0 full"}
    with Sink(refuse, addresses=["127.0.0.1"]) as sink:
        server = smtpd(run("delivery_log", *options), relay_filter="delivery_log", sink=sink)
        recipients = ["bob@example.org", "nobody@example.org", "later@example.org"]
        assert offer(server, *recipients)[-1].startswith("250 ")
        sink.by_subject("hello")

        def events() -> dict[tuple[str, str], dict[str, Any]]:
            found = [each for each in read(path) if each.get("mail_from_before") == "a@example.net"]
            return {(each["event"], each["rcpt_to"].split("@")[0]): each for each in found}

        wait_until(lambda: len(events()) == 6, 20.0, "six records")
        told = events()
        assert set(told) == {
            *(("accepted", name) for name in ("bob", "nobody", "later")),
            *(("delivered", "bob"), ("bounced", "nobody"), ("deferred", "later")),
        }
        assert told["delivered", "bob"]["relay"] == f"127.0.0.1:{sink.port}"
        assert told["bounced", "nobody"]["reply"] == "550 5.1.1 no such user"
        assert told["deferred", "later"]["reply"] == "450 4.2.0 full"
        for (event, name), record in told.items():
            assert record["client"] == "192.0.2.10"
            assert record["message_id"] == told["accepted", "bob"]["message_id"]
            assert record["envelope_id"] == told["accepted", name]["envelope_id"]
            assert event == "accepted" or record["joined"] is True
        # The bounce itself comes in by the socket, from the null sender.
        wait_until(
            lambda: any(
                each["event"] == "accepted" and each["mail_from"] == "" for each in read(path)
            ),
            20.0,
            "the bounce",
        )
        assert server.alive()


def test_delivery_log_tells_why_a_recipient_is_refused(
    smtpd: Callable[..., Smtpd], sink: Sink, tmp_path: Path
):
    path = tmp_path / "mail.json"
    options = ["--store", f"sqlite:{tmp_path}/delivery_log.sqlite", "--output", str(path)]
    filters = run("delivery_log", *options)
    limit = ["--store", f"sqlite:{tmp_path}/r.sqlite", "--limit=network:recipients=1/day"]
    filters |= run("ratelimit", *limit)
    server = smtpd(filters, sink=sink)
    offer(server, "bob@example.org", "carol@example.org")
    wait_until(lambda: len(read(path)) == 2, 15.0, "two records")
    carol, bob = read(path)
    assert (bob["event"], bob["rcpt_to"]) == ("accepted", "bob@example.org")
    assert (carol["event"], carol["phase"], carol["by"]) == ("refused", "rcpt-to", "filter")
    assert carol["reply"].startswith("450 4.7.1 Too many recipients from this network (1 per day)")
    assert carol["message_id"] == bob["message_id"]


def test_delivery_log_a_message_whose_worker_was_killed_has_its_records(
    smtpd: Callable[..., Smtpd], sink: Sink, tmp_path: Path
):
    path = tmp_path / "mail.json"
    options = ["--store", f"sqlite:{tmp_path}/delivery_log.sqlite", "--output", str(path)]
    server = smtpd(run("delivery_log", *options), relay_filter="delivery_log", sink=sink)
    with Client(server.proxy_port, proxy="192.0.2.10") as smtp:
        smtp.greet()
        smtp.envelope("a@example.net", "bob@example.org")
        before = set(server.filter_pids())
        kill_workers(server)
        wait_until(lambda: len(set(server.filter_pids()) - before) >= 2, 20.0, "new workers")
        assert smtp.command("RCPT TO:<carol@example.org>").startswith("250 ")
        assert smtp.data(MESSAGE).startswith("250 ")
    wait_until(lambda: len(read(path)) == 4, 20.0, "four records")
    for record in read(path):
        assert record["client"] == "192.0.2.10"
        assert record["rcpt_to_before"] in ("bob@example.org", "carol@example.org")
        assert record["mail_from_before"] == "a@example.net"
