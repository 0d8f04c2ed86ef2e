import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.addresses import Address, AddressError, parse_address, parse_replica_url


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", Address("127.0.0.1", 8080)),
        ("localhost:0", Address("localhost", 0)),
        ("gpu_1.cluster-2.local:65535", Address("gpu_1.cluster-2.local", 65535)),
        ("[::1]:9090", Address("::1", 9090)),
        ("[fe80::1%eth0]:1", Address("fe80::1%eth0", 1)),
        ("unix:/run/pointsman.sock", Address(path="/run/pointsman.sock")),
    ],
)
def test_an_address_reads_and_writes_the_same(text, address):
    assert parse_address(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "expected host:port"),
        ("8080", "expected host:port"),
        (":8080", "0.0.0.0 stands for every interface"),
        ("host:", "the port ''"),
        ("host:65536", "from 0 to 65535"),
        ("host:-1", "the port '-1'"),
        ("host:+80", "the port '+80'"),
        ("host:8_0", "the port '8_0'"),
        ("::1:8080", "stands in brackets"),
        ("[::1]", "expected host:port"),
        ("[::zz]:80", "no IPv6 address"),
        ("256.0.0.1:80", "no IPv4 address"),
        ("a b:80", "no host name"),
        ("-a:80", "no host name"),
        ("unix:run/x", "absolute"),
        ("unix:/run/", "names a file"),
        ("unix:/" + "x" * 107, "at most 107 bytes"),
        ("unix:/a\0b", "NUL"),
        ("http://host:80", "stands in brackets"),
    ],
)
def test_a_wrong_address_says_what_is_allowed(text, says):
    with pytest.raises(AddressError, match=r".") as caught:
        parse_address(text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://10.0.0.1:8000", Address("10.0.0.1", 8000)),
        ("http://10.0.0.1:8000/", Address("10.0.0.1", 8000)),
        ("HTTP://gpu-1", Address("gpu-1", 80)),
        ("http://[::1]:8000", Address("::1", 8000)),
        ("http://[::1]", Address("::1", 80)),
        ("http+unix:///run/vllm.sock", Address(path="/run/vllm.sock")),
    ],
)
def test_the_url_of_a_replica_is_an_address(url, address):
    assert parse_replica_url(url) == address


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "expected http://host:port"),
        ("gpu-1:8000", "expected http://host:port"),
        ("http:gpu-1:8000", "expected http://host:port"),
        ("http:/gpu-1:8000", "expected http://host:port"),
        ("ftp://gpu-1", "expected http://host:port"),
        ("https://gpu-1", "TLS"),
        ("http://", "the host is missing"),
        ("http://:80", "the host is missing"),
        ("http://gpu-1:0", "from 1 to 65535"),
        ("http://gpu-1:", "the port ''"),
        ("http://gpu-1:8000/v1", "drop '/v1'"),
        ("http://gpu-1:8000?x=1", "no query"),
        ("http://gpu-1:8000?", "no query"),
        ("http://gpu-1:8000#", "no fragment"),
        ("http://user:key@gpu-1", "no user"),
        ("http://gpu 1", "white space"),
        ("http://gpu-1\r\nx", "white space"),
        ("http://[::1", "expected http://host:port"),
        ("http+unix://run/x", "http+unix:///path"),
        ("http+unix:///", "names a file"),
    ],
)
def test_a_wrong_url_says_what_is_allowed(url, says):
    with pytest.raises(AddressError, match=r".") as caught:
        parse_replica_url(url)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "loopback"),
    [
        ("127.0.0.1:1", True),
        ("127.9.9.9:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("unix:/x", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("10.0.0.1:1", False),
        ("localhost.example.org:1", False),
    ],
)
def test_loopback_is_what_only_this_machine_reaches(text, loopback):
    assert parse_address(text).loopback is loopback


@given(st.text(max_size=40))
def test_any_text_is_an_address_that_comes_back_or_an_address_error(text):
    for parse in (parse_address, parse_replica_url):
        try:
            address = parse(text)
        except AddressError as error:
            assert error.text == text  # noqa: PT017 - either outcome is right
        else:
            assert parse_address(str(address)) == address


@given(st.ip_addresses(), st.integers(0, 65535))
def test_every_ip_address_can_be_listened_on(ip, port):
    host = f"[{ip}]" if ip.version == 6 else str(ip)
    assert parse_address(f"{host}:{port}") == Address(str(ip), port)
