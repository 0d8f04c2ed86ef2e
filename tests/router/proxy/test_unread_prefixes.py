"""Prompts get keys unless the policy says that it looks at none."""

from random import Random

import pytest
from harness import First, House

from router.config.structs import Config
from router.proxy.plane import DataPlane


class Blind(First):
    reads_prefix = False


@pytest.mark.parametrize(("policy", "has_keys"), [(First(), True), (Blind(), False)])
def test_a_policy_that_looks_at_no_cache_gets_no_keys(policy, has_keys):
    house = House()
    house.dispatcher.chooser.policy = policy
    seen = []
    choose = policy.choose
    policy.choose = lambda request, *others: seen.append(request) or choose(request, *others)
    house.plane = DataPlane(Config(), house.dispatcher, Random(1), house.loop)
    house.upstream()
    body = b'{"model":"m","prompt":"%b"}' % (b"x" * 5000)
    head = b"POST /v1/completions HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(body)
    house.client()[0].data_received(head + body)
    assert [bool(request.prefix) for request in seen] == [has_keys]
