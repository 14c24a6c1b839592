"""Fixed white lists: how they are written, and what they hold."""

from __future__ import annotations

from argparse import ArgumentTypeError
from ipaddress import ip_address, ip_network

import pytest

from greenfilter.filters._greylist.lists import (
    Addresses,
    Clients,
    parse_address_or_domain,
    parse_network_or_domain,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("192.0.2.1", ip_network("192.0.2.1")),
        ("192.0.2.0/24", ip_network("192.0.2.0/24")),
        ("2001:db8::/32", ip_network("2001:db8::/32")),
        ("mail.example", "mail.example"),
        (".Mail.Example.", "mail.example"),
        ("10.example.com", "10.example.com"),
        ("1e.de", "1e.de"),
    ],
)
def test_clients_are_networks_or_domains(text: str, value: object):
    assert parse_network_or_domain(text) == value


@pytest.mark.parametrize("text", ["", "192.0.2.300", "192.0.2", "2001:db8::/129", "a b", "x..y"])
def test_what_is_no_client_is_refused(text: str):
    with pytest.raises(ArgumentTypeError, match="is no"):
        parse_network_or_domain(text)


@pytest.mark.parametrize("text", ["", "@", "a@b c.example", "a@-", "exa mple.org"])
def test_what_is_no_address_is_refused(text: str):
    with pytest.raises(ArgumentTypeError, match="is no"):
        parse_address_or_domain(text)


def test_addresses_names_and_domains():
    some = Addresses.of(
        map(
            parse_address_or_domain,
            ["News@List.example", "abuse@", "bank.example", "@shop.example"],
        )
    )
    for address in (
        *("news@list.EXAMPLE", "abuse@any.example", "x@bank.example", "x@mail.bank.example"),
        "x@shop.example",
    ):
        assert address in some
    for address in ("x@list.example", "", "news@", "x@notbank.example", "x@example", "abuse"):
        assert address not in some


def test_clients():
    some = Clients.of([ip_network("192.0.2.0/24"), ip_network("2001:db8::/32"), "mail.example"])
    assert some.contain(ip_address("192.0.2.7"), None)
    assert some.contain(ip_address("2001:db8::1"), None)
    assert some.contain(ip_address("198.51.100.1"), "mx.mail.example")
    assert not some.contain(ip_address("198.51.100.1"), "mail.example.net")
    assert not some.contain(ip_address("198.51.100.1"), None)
