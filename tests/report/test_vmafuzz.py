"""Random calls on the kernel that runs here, and on the model."""

from __future__ import annotations

import platform

import pytest

from mmcore.errors import UsageError
from mmcore.mm import vma as vma_
from mmcore.mm.mmap import MAP_SYNC, calc_vm_flag_bits
from mmcore.report import vmafuzz

WHY = vmafuzz.unsupported()
if not WHY and vmafuzz._release(platform.release()) > (6, 18):
    WHY = f"nobody has named the differences of Linux {platform.release()} yet"
here = pytest.mark.skipif(bool(WHY), reason=WHY)
FACTS = {"memlock": 8 << 20, "caps": 0}
RELEASE = (6, 12)


@here
@pytest.mark.parametrize("seed", [1, 4])
def test_this_kernel_and_the_model_agree(seed: int) -> None:
    result = vmafuzz.fuzz(seed, 250, 48)
    assert result.difference == "", vmafuzz.to_text(result, seed)
    assert result.calls == 250


@here
def test_a_wrong_model_is_found_out_and_the_calls_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vma_, "can_vma_merge_before", lambda vmg: False)
    result = vmafuzz.fuzz(3, 250, 24, shorten=15)
    assert result.difference
    assert (
        2 <= len(result.shortest) <= 60
    ), "as far as 15 seconds allow; about 5 calls on an idle machine"
    text = vmafuzz.to_text(result, 3)
    assert "DIFFERENT" in text and result.shortest[-1][0] in text


def test_the_same_seed_gives_the_same_calls() -> None:
    calls, avoided = vmafuzz.generate(7, 120, 64, RELEASE, FACTS)
    assert (calls, avoided) == vmafuzz.generate(7, 120, 64, RELEASE, FACTS)
    assert calls != vmafuzz.generate(8, 120, 64, RELEASE, FACTS)[0]
    assert not avoided, "nothing differs between 6.12 and 6.12"
    assert len({op for op, _ in calls}) >= 6


def test_newer_kernels_meet_no_call_that_differs() -> None:
    calls, avoided = vmafuzz.generate(7, 300, 64, (6, 18), FACTS)
    assert set(avoided) <= set(vmafuzz.RELEASE_DIFFERENCES) and avoided
    assert vmafuzz._may_run(calls, (6, 18), FACTS)


def test_a_newer_rule_is_used_and_counted() -> None:
    met: dict[str, int] = {}
    anon = object()
    vma = vma_.VmAreaStruct(0, 4096, None)  # type: ignore[arg-type]
    old = vma_.is_mergeable_anon_vma
    assert not old(anon, None, vma)  # type: ignore[arg-type]
    with vmafuzz._rules_of((6, 15), met):
        assert vma_.is_mergeable_anon_vma is old
    with vmafuzz._rules_of((6, 16), met):
        assert vma_.is_mergeable_anon_vma(anon, None, vma)  # type: ignore[arg-type]
        assert not vma_.is_mergeable_anon_vma(anon, object(), vma)  # type: ignore[arg-type]
    assert vma_.is_mergeable_anon_vma is old and met == {"untouched neighbours": 1}


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [("machine", "aarch64", "not x86-64"), ("release", "6.1.0-31-amd64", "older than 6.12")],
)
def test_machines_that_cannot_be_asked(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, why: str
) -> None:
    monkeypatch.setattr(platform, name, lambda: value)
    assert why in vmafuzz.unsupported()
    with pytest.raises(UsageError, match=why):
        vmafuzz.fuzz()


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ([{}, [-1, []], [-38, []]], "answer -1 and -38 here"),
        ([{}, [vmafuzz.WINDOW, []], [0, [["a", ""], ["b", ""]]]], "no VmFlags"),
        ([{}, [vmafuzz.WINDOW, []], [0, [["a", "rd"]]]], "not one entry for each"),
    ],
)
def test_kernels_that_answer_otherwise(
    monkeypatch: pytest.MonkeyPatch, answers: list[object], why: str
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(platform, "release", lambda: "6.12.1")
    monkeypatch.setattr(vmafuzz, "run_here", lambda *_: answers)
    assert why in vmafuzz.unsupported()


def test_a_child_that_may_not_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(platform, "release", lambda: "6.12.1")
    monkeypatch.setattr(vmafuzz, "_CHILD", "raise SystemExit('refused')")
    assert "seccomp" in vmafuzz.unsupported() and "refused" in vmafuzz.unsupported()


def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(vmafuzz, "unsupported", lambda: "no kernel")
    assert vmafuzz.main([]) == 2 and "no kernel" in capsys.readouterr().err
    monkeypatch.setattr(vmafuzz, "unsupported", lambda: "")
    equal = vmafuzz.FuzzResult("6.18.0", 5, {"mremap over several mappings": 2})
    monkeypatch.setattr(vmafuzz, "fuzz", lambda *_: equal)
    assert vmafuzz.main(["--seeds", "2", "--steps", "5"]) == 0
    out = capsys.readouterr().out
    assert out.count("kernel 6.18.0") == 2 and "not made 2 times" in out
    with pytest.raises(SystemExit):
        vmafuzz.main(["--steps", "0"])


def test_map_sync_without_a_file_is_a_flag_of_the_mapping() -> None:
    assert calc_vm_flag_bits(MAP_SYNC) == 1 << 23, "sf in smaps, as this fuzz found out"
