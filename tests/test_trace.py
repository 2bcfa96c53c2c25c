"""Events: names, fields, patterns, and no cost when nobody listens."""

from __future__ import annotations

import pytest

from mmcore import Machine
from mmcore.errors import UsageError
from mmcore.trace import TRACEPOINTS, Trace


def test_off_until_somebody_listens() -> None:
    trace = Trace()
    assert not trace.on
    with trace.record("kmem:*") as log:
        assert trace.on
        trace.emit("kmem:mm_page_free", 7, 3)
        trace.emit("model:warn", "not asked for")
    assert not trace.on
    assert [event.fields for event in log] == [{"pfn": 7, "order": 3}]
    assert str(log[0]) == "mm_page_free: pfn=7 order=3"


def test_the_machine_adds_time_and_cpu() -> None:
    machine = Machine(cpus=2)
    machine.clock, machine.this_cpu = 1_500_000, 1
    with machine.trace.record() as log:
        machine.trace.emit("model:warn", "x")
    assert log[0][:3] == (1_500_000, 1, "swapper")


def test_two_listeners_are_independent() -> None:
    trace = Trace()
    with trace.record("kmem:mm_page_free") as outer:
        with trace.record("kmem:*") as inner:
            trace.emit("kmem:mm_page_free_batched", 1)
        trace.emit("kmem:mm_page_free", 2, 0)
    assert [e.name for e in inner] == ["kmem:mm_page_free_batched"]
    assert [e.values for e in outer] == [(2, 0)]


def test_a_listener_leaves_although_its_block_raised() -> None:
    trace = Trace()
    with pytest.raises(RuntimeError), trace.record():
        raise RuntimeError
    assert not trace.on


def test_unknown_pattern_is_refused_and_names_what_exists() -> None:
    with pytest.raises(UsageError, match="kmem:mm_page_alloc"), Trace().record("kmem:no_such"):
        pass


def test_fields_have_unique_names() -> None:
    for name, fields in TRACEPOINTS.items():
        assert ":" in name and len(set(fields)) == len(fields)
