"""Callable addresses: addresses of all kinds, names of the configuration, lying URLs."""

from ipaddress import ip_address

import pytest

from perdure.engine.base.addresses import Policy, Reach, reach, target
from perdure.wire.base.errors import BadRequest, BadValue


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("93.184.216.34", Reach.PUBLIC),
        ("2606:2800:220:1::1", Reach.PUBLIC),
        ("64:ff9b::5db8:d822", Reach.PUBLIC),
        *((text, Reach.PRIVATE) for text in ("127.0.0.1", "127.9.9.9", "::1", "10.0.0.1", "172.16.0.1", "192.168.1.1")),
        *((text, Reach.PRIVATE) for text in ("100.64.0.1", "198.18.0.1", "240.0.0.1", "fc00::1", "fd12::1")),
        *((text, Reach.PRIVATE) for text in ("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "::7f00:1")),
        ("2002:7f00:1::", Reach.PRIVATE),
        # NAT64 of a network's own, SIIT, and what was site-local: whatever the interpreter's tables say.
        *((text, Reach.PRIVATE) for text in ("64:ff9b:1::7f00:1", "64:ff9b:1:ffff:ffff:ffff:10.0.0.1")),
        *((text, Reach.PRIVATE) for text in ("64:ff9b:1::5db8:d822", "::ffff:0:127.0.0.1", "::ffff:0:93.184.216.34")),
        *((text, Reach.PRIVATE) for text in ("fec0::1", "feff:ffff::1")),
        *((text, Reach.NEVER) for text in ("64:ff9b:1::a9fe:a9fe", "::ffff:0:169.254.169.254", "::ffff:0:0:0")),
        *((text, Reach.NEVER) for text in ("169.254.169.254", "169.254.0.1", "fe80::1", "0.0.0.0", "::", "0.1.2.3")),
        *((text, Reach.NEVER) for text in ("224.0.0.1", "ff02::1", "100.100.100.200", "168.63.129.16")),
        *((text, Reach.NEVER) for text in ("192.0.0.192", "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254")),
        *((text, Reach.NEVER) for text in ("::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::")),
        ("::a9fe:a9fe", Reach.NEVER),
        ("::ffff:0.0.0.0", Reach.NEVER),
    ],
)
def test_an_address_is_public_private_or_never_called(text: str, found: Reach) -> None:
    assert reach(ip_address(text)) is found


@pytest.mark.parametrize(
    ("hosts", "host", "address", "allowed"),
    [
        ((), "example.com", "93.184.216.34", True),
        ((), "example.com", "10.0.0.1", False),
        ((), "localhost", "127.0.0.1", False),
        (("hooks.internal",), "hooks.internal", "10.0.0.1", True),
        (("Hooks.Internal.",), "hooks.internal.", "10.0.0.1", True),
        (("hooks.internal",), "other.internal", "10.0.0.1", False),
        (("hooks.internal",), "evil-hooks.internal", "10.0.0.1", False),
        (("*.svc.local",), "a.b.svc.local", "10.0.0.1", True),
        (("*.svc.local",), "svc.local", "10.0.0.1", False),
        (("*.svc.local",), "evilsvc.local", "10.0.0.1", False),
        (("10.0.0.0/8",), "anything.example", "10.1.2.3", True),
        (("10.0.0.0/8",), "10.1.2.3", "10.1.2.3", True),
        (("10.0.0.0/8",), "anything.example", "192.168.1.1", False),
        (("10.0.0.0/8",), "x.example", "::ffff:10.1.2.3", True),
        (("127.0.0.1",), "127.0.0.1", "127.0.0.1", True),
        (("[::1]",), "::1", "::1", True),
        (("169.254.0.0/16", "metadata.internal"), "metadata.internal", "169.254.169.254", False),
        (("fd00::/8",), "x", "fd00:ec2::254", False),
        (("0.0.0.0/0",), "0.0.0.0", "0.0.0.0", False),
    ],
)
def test_the_configuration_names_what_else_may_be_called(
    hosts: tuple[str, ...], host: str, address: str, allowed: bool
) -> None:
    assert Policy(hosts).allows(host, ip_address(address)) is allowed


def test_without_keys_this_machine_may_be_called_by_its_own_names_only() -> None:
    policy = Policy(loopback=True)
    assert all(policy.allows(host, ip_address("127.0.0.1")) for host in ("localhost", "a.localhost", "127.0.0.1"))
    assert policy.plain("localhost") and policy.plain("::1") and not policy.plain("example.com")
    assert not policy.allows("rebound.example", ip_address("127.0.0.1"))
    assert not policy.allows("localhost", ip_address("10.0.0.1"))


@pytest.mark.parametrize("host", ["", "http://x", "x:80", "a b", "*", "*.", "10.0.0.0/33", "x/y", "ex*mple"])
def test_a_setting_that_names_no_host_is_refused(host: str) -> None:
    with pytest.raises(BadRequest, match="outbound_hosts"):
        Policy((host,))


def test_a_url_is_taken_apart() -> None:
    assert target("https://Example.com") == ("https", "example.com", 443, "/")
    assert target("http://example.com:8080/a/b?c=d%20e") == ("http", "example.com", 8080, "/a/b?c=d%20e")
    assert target("https://[2606:2800::1]:8443/").authority == "[2606:2800::1]:8443"
    assert target("https://example.com:443/x").authority == "example.com"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "//example.com/",
        "ftp://example.com/",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "https://",
        "https:///x",
        "https://user@example.com/",
        "https://user:password@example.com/",
        "https://@example.com/",
        "https://example.com#x",
        "https://example.com/#",
        "https://example.com:0/",
        "https://example.com:/",
        "https://example.com:99999/",
        "https://example.com:x/",
        "https://exa mple.com/",
        "https://example.com/a b",
        "https://example.com/\r\nx: y",
        "https://example.com\\@evil.com/",
        "https://exämple.com/",
        "https://example.com/ü",
        "https://[::1/",
        "https://[fe80::1%25eth0]/",
        "https://[zz]/",
        "https://.example.com/",
        "https://a..b/",
        " https://example.com/",
        "https://example.com/" + "x" * 2_048,
    ],
)
def test_a_url_that_readers_could_disagree_about_is_refused(url: str) -> None:
    with pytest.raises(BadValue, match="webhook_url: ") as refused:
        target(url, "webhook_url")
    assert refused.value.details == {"path": "webhook_url"}
