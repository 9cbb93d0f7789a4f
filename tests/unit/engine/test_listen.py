"""Addresses as people are told them."""

from __future__ import annotations

import socket

import pytest

from tagmask.engine import listen


@pytest.mark.parametrize(
    ("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]"), ("localhost", "localhost")]
)
def test_an_address_that_can_be_opened_is_shown_as_it_is(host, shown):
    assert listen.shown_host(host) == shown


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "0:0:0:0:0:0:0:0"])
def test_all_addresses_are_shown_as_the_one_that_others_can_open(host, monkeypatch):
    assert listen.shown_host(host).strip("[]") not in ("0.0.0.0", "::", host)
    monkeypatch.setattr(listen, "_outward", lambda _: "fd00::7")
    assert listen.shown_host(host) == "[fd00::7]"
    monkeypatch.setattr(listen, "_outward", lambda _: None)
    assert listen.shown_host(host) == socket.gethostname()


def test_a_page_on_all_addresses_answers_at_the_one_shown():
    with listen.listen("0.0.0.0", 0) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection((listen.shown_host("0.0.0.0").strip("[]"), port), timeout=10) as there:
            assert there.getpeername()[1] == port
