import pytest

from policies.transfer import Transfer, token_s

BYTES_PER_TOKEN = 327_680
GBPS_100 = 12.5e9


def test_a_token_takes_its_bytes_over_the_links() -> None:
    assert token_s(BYTES_PER_TOKEN, GBPS_100) == pytest.approx(26.2e-6, rel=0.01)


def test_time_is_linear_in_tokens() -> None:
    transfer = Transfer(token_s=1e-5, latency_s=0.5)
    assert transfer.time_s(0) == 0.5
    assert transfer.time_s(100_000) == pytest.approx(1.5)


def test_another_zone_is_slower_but_no_less_soon() -> None:
    transfer = Transfer(token_s=1e-5, latency_s=0.5, cross_zone=3.0)
    assert transfer.time_s(100_000, same_zone=False) == pytest.approx(3.5)


def test_what_is_under_way_goes_first() -> None:
    transfer = Transfer(token_s=1e-5, latency_s=0.5, pending_tokens=200_000)
    assert transfer.time_s(100_000) == pytest.approx(3.5)
