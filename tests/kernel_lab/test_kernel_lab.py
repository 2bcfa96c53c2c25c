"""The kernel lab without a kernel: what it builds, what it asks for, what it leaves behind."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
from pathlib import Path

import pytest

from kernel_lab import __main__ as command_line
from kernel_lab import (
    btf,
    capture,
    experiment,
    here,
    initramfs,
    kernel,
    needs,
    programs,
    qemu,
    run,
)
from kernel_lab.experiment import Experiment
from kernel_lab.initramfs import Entry, newc
from kernel_lab.kernel import Kernel
from kernel_lab.needs import LabError
from kernel_lab.topology import TOPOLOGIES, megabytes
from mmcore.proc import capture as mm_capture

RELEASE = "6.12.117+deb12-cloud-amd64"


def read_newc(data: bytes) -> list[tuple[str, int, bytes, int]]:
    """(name, mode, contents, inode) of each entry, read by the format's description."""
    out, at = [], 0
    while True:
        assert data[at : at + 6] == b"070701" and at % 4 == 0
        fields = [int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        name = data[at + 110 : at + 110 + fields[11] - 1].decode()
        start = (at + 110 + fields[11] + 3) // 4 * 4
        if name == "TRAILER!!!":
            return out
        out.append((name, fields[1], data[start : start + fields[6]], fields[0]))
        assert fields[2:4] == [0, 0] and fields[5] == 0  # owner and time
        at = (start + fields[6] + 3) // 4 * 4


def test_an_archive_holds_its_entries() -> None:
    entries = [
        Entry("bin", initramfs.DIRECTORY),
        Entry("bin/x", initramfs.EXECUTABLE, b"12345"),
        Entry("bin/sh", initramfs.LINK, b"x"),
        Entry("dev/console", initramfs.CONSOLE, device=(5, 1)),
    ]
    data = newc(entries)
    assert len(data) % 512 == 0
    found = read_newc(data)
    assert [(n, m, d) for n, m, d, _ in found] == [(e.name, e.mode, e.data) for e in entries]
    assert [inode for *_, inode in found] == [1, 2, 3, 4]
    assert newc(entries) == data


def test_an_archive_is_one_that_cpio_reads(tmp_path: Path) -> None:
    tool = needs.where("cpio") or needs.where("busybox")
    if tool is None:
        pytest.skip("neither cpio nor busybox is here")
    words = [tool] if tool.endswith("cpio") else [tool, "cpio"]
    data = newc([Entry("a", initramfs.DIRECTORY), Entry("a/b", initramfs.FILE, b"hello")])
    subprocess.run([*words, "-i"], input=data, cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "a" / "b").read_bytes() == b"hello"


def test_the_head_of_an_experiment() -> None:
    script = (
        "# records: this\n#   and that\n# topologies: n1-1g n2-5g\n# programs: a b\n"
        "# append: x=1 y\n# timeout: 99\n\n# timeout: 1\nrecord a b\n"
    )
    one = experiment.parse("e", script)
    assert one.records == "this and that" and one.topologies == ("n1-1g", "n2-5g")
    assert one.programs == ("a", "b") and one.append == "x=1 y" and one.timeout == 99
    assert one.modules == () and one.script == script


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("# records: a\n", "no line '# topologies"),
        ("# records: a\n# topologies: b\n# colour: red\n", "line 3: no key 'colour'"),
        ("# records: a\n# topologies: b\n# timeout: long\n", "not a number of seconds"),
        ("# records: a\n# topologies: b\n# kernel: mine\n", "no kernel 'mine'; there are cloud"),
        ("#!/bin/sh\n", "line 1"),
    ],
)
def test_a_head_that_is_wrong_says_where(script: str, says: str) -> None:
    with pytest.raises(LabError, match=says):
        experiment.parse("e", script)


@pytest.mark.parametrize("name", experiment.available())
def test_each_experiment_names_what_exists(name: str) -> None:
    one = experiment.load(name)
    for topology in one.topologies:
        assert topology in TOPOLOGIES
    for program in (*one.programs, *run.own_modules(one)):
        assert (experiment.GUEST / f"{program}.c").is_file()
    assert one.script.count("record") > 1
    shell = needs.where("busybox")
    if shell:
        subprocess.run([shell, "sh", "-n"], input=one.script.encode(), check=True)


def test_a_module_of_this_lab_is_told_from_one_of_the_kernel() -> None:
    script = "# records: a\n# topologies: n1-1g\n# modules: nd_pmem ooops\nrecord a b\n"
    one = experiment.parse("e", script)
    assert run.own_modules(one) == ["ooops"] and not programs.is_module("faults")
    assert list(run.sources(one)) == ["init.sh", "record.sh", "ooops.c", "e.sh"]
    assert run.programs_needed([one])[-2:] == ["gcc", "zstd"]


def test_a_module_of_this_lab_is_one_object_file(tmp_path: Path, monkeypatch) -> None:
    """It holds what the kernel's loader looks for, in a structure of the size that it was told."""
    if needs.where("gcc") is None:
        pytest.skip("no gcc here")
    sizes = {"SIZE_module": 1024, "OFF_module_name": 24, "OFF_module_init": 312}
    sizes |= {"SIZE_proc_ops": 96, "OFF_proc_ops_proc_write": 40}
    text = "".join(f"#define {name} {value}\n" for name, value in sizes.items())
    monkeypatch.setattr(programs, "layout", lambda kernel, cache: text)
    built = [
        programs.build_module("ooops", Kernel(tmp_path, RELEASE), tmp_path / folder)
        for folder in ("one", "two")
    ]
    assert built[0] == built[1] and built[0][:4] == b"\x7fELF"
    assert built[0][16:18] == b"\x01\0"  # relocatable
    module = btf._section(built[0], ".gnu.linkonce.this_module")
    assert len(module) == 1024 and module[24:30] == b"ooops\0"
    assert b"license=GPL\0" in btf._section(built[0], ".modinfo")


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_the_command_line_of_a_topology(name: str) -> None:
    machine = TOPOLOGIES[name]
    words = qemu.command(machine, "vmlinuz", qemu.kernel_command_line(machine), "dir/")
    assert words[0] == qemu.PROGRAM and words[words.index("-icount") + 1] == "shift=0,sleep=off"
    assert words[words.index("-m") + 1] == f"{megabytes(machine.memory)}M"
    assert words[words.index("-smp") + 1] == str(machine.cpus)
    nodes = [w for w in words if w.startswith("node,")]
    backends = [w for w in words if w.startswith("memory-backend-ram,")]
    assert len(nodes) == len(machine.nodes)
    if nodes:
        assert sum(megabytes(n.memory) for n in machine.nodes) == megabytes(machine.memory)
        assert sorted(c for n in machine.nodes for c in n.cpus) == list(range(machine.cpus))
        assert len(backends) == sum(n.memory != "0M" for n in machine.nodes)
        assert sum(w.startswith("dist,") for w in words) == len(machine.distance)
        assert len(machine.distance) == len(nodes) * (len(nodes) - 1) // 2
    assert words[-1].endswith(machine.append) and "nokaslr" in words[-1]


def test_what_an_experiment_appends_comes_last() -> None:
    machine = TOPOLOGIES["n1-1g-movablecore"]
    assert qemu.kernel_command_line(machine, "a=1").endswith(" movablecore=300M a=1")


def test_a_missing_program_is_named_with_its_package() -> None:
    with pytest.raises(LabError) as error:
        needs.require(["qemu-system-x86_64", "busybox", "gcc"], lambda p: p if p == "gcc" else None)
    assert str(error.value).splitlines() == [
        "not found: qemu-system-x86_64 (Debian package qemu-system-x86)",
        "not found: busybox (Debian package busybox-static)",
        "sudo apt-get install busybox-static qemu-system-x86",
    ]
    needs.require(["gcc"], lambda p: p)


def test_what_is_needed_follows_from_the_experiments() -> None:
    plain = Experiment("e", "", "", ("n1-1g",))
    assert run.programs_needed([plain]) == ["qemu-system-x86_64", "busybox"]
    every = [experiment.load(name) for name in experiment.available()]
    for program in run.programs_needed(every):
        assert program in needs.PACKAGES


def test_the_newest_kernel_is_chosen_by_number() -> None:
    names = [f"linux-image-6.12.{n}+deb12-cloud-amd64-unsigned" for n in (9, 117, 20)]
    other = ["linux-image-6.12.200+deb12-amd64-unsigned", "linux-image-6.12.300+deb12-cloud-amd64"]
    assert kernel.newest("\n".join([*names, *other])) == names[1]
    assert kernel.newest("\n".join([*names, *other]), "full") == other[0]
    assert kernel.newest("\n".join(names), "cloud", "6.12.20+deb12-cloud-amd64") == names[2]
    assert kernel.newest("\n".join(names), "cloud", "6.12.21+deb12-cloud-amd64") == names[1]
    with pytest.raises(LabError, match="apt offers no"):
        kernel.newest("\n".join(other))
    with pytest.raises(LabError, match=r"apt offers no linux-image-6\.12\.\*-amd64-uns"):
        kernel.newest("\n".join(names), "full")


def test_sections_of_a_stream() -> None:
    stream = b"noise\n@@BEGIN a cat /proc/a\nx\r\n\n\n@@END a 0\n@@BEGIN b b\ny\n@@END b 1\n@@BEGIN c c\nz"
    found = capture.sections(stream)
    assert [(s.name, s.command, s.rc, s.text) for s in found] == [
        ("a", "cat /proc/a", "0", "x"),
        ("b", "b", "1", "y"),
    ]


def test_the_engine_reads_what_is_written(tmp_path: Path) -> None:
    found = [capture.Section("zoneinfo", "cat /proc/zoneinfo", "0", "Node 0\n  x")]
    text = capture.render({"topology": "n1-1g"}, {"seconds": 1.5}, found, {"e.sh": "record\n"})
    path = tmp_path / "n1-1g" / "e.txt"
    capture.write(path, text)
    read = mm_capture.load(path)
    assert read.header["topology"] == "n1-1g" and read["zoneinfo"] == "Node 0\n  x\n"
    assert read.file("/proc/zoneinfo") == "Node 0\n  x\n" and read["SOURCE e.sh"] == "record\n"
    assert list(path.parent.iterdir()) == [path]
    assert capture.header(text) == {"topology": "n1-1g", capture.TIMING: {"seconds": 1.5}}
    other = capture.render({"topology": "n1-1g"}, {"seconds": 9}, found, {"e.sh": "record\n"})
    assert text != other and capture.without_timing(text) == capture.without_timing(other)


def test_what_differs_is_named_packages_first() -> None:
    def text(version: str, body: str) -> str:
        head = {"packages": {"qemu-system-x86": version}, "kernel_release": "6.12.1"}
        return capture.render(head, {}, [capture.Section("a", "a", "0", body)], {})

    assert run.differences(text("1", "x"), text("1", "x")) == []
    assert run.differences(text("1", "x"), text("2", "y")) == [
        "package qemu-system-x86: 1 when recorded, 2 now",
        "section a: 1 of 2 lines differ; the first, line 1:\n    recorded  x\n    now       y",
    ]
    longer = text("1", "x\ny") + "\n=== b | b | rc=0\nz\n"
    assert run.differences(text("1", "x"), longer) == [
        "section a: 1 of 3 lines differ; the first, line 2:\n    recorded  (no line)\n    now       y",
        "section b: only now",
    ]


def fake_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> list[str]:
    """A kernel tree without a kernel, and a QEMU that is a shell script. Returns run's arguments."""
    program = tmp_path / "qemu"
    # Its files are named in the words after -chardev, as QEMU's are.
    program.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo "QEMU 1" && exit\n'
        'for w in "$@"; do case $w in file,id=results,*) out=${w#*path=};; esac; done\n' + body
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "kernel" / "boot").mkdir(parents=True)
    (tmp_path / "kernel" / "boot" / f"vmlinuz-{RELEASE}").write_bytes(b"")
    (tmp_path / "busybox").write_bytes(b"b")
    monkeypatch.setattr(qemu, "PROGRAM", str(program))
    monkeypatch.setitem(needs.PACKAGES, str(program), "qemu-system-x86")
    monkeypatch.setattr(initramfs, "where", lambda name: str(tmp_path / "busybox"))
    monkeypatch.setattr(run, "installed", lambda packages: {})
    monkeypatch.setattr(run, "programs_needed", lambda experiments: [])
    monkeypatch.setattr(command_line, "CACHE", tmp_path / "cache")
    (tmp_path / "e.sh").write_text(
        "# records: a\n# topologies: n1-128m\n# timeout: 1\nrecord a b\n"
    )
    out, root = tmp_path / "out", tmp_path / "kernel"
    return ["run", str(tmp_path / "e.sh"), "--out", str(out), "--kernel", str(root)]


GOOD = 'printf "@@BEGIN a cat a\\nhello\\n\\n@@END a 0\\n@@DONE\\n" >"$out"\n'


def test_a_run_that_ends_well_is_a_capture(tmp_path, monkeypatch, capsys) -> None:
    words = fake_lab(tmp_path, monkeypatch, GOOD)
    assert command_line.main([*words, "--show"]) == 0
    read = mm_capture.load(tmp_path / "out" / "n1-128m" / "e.txt")
    assert read["a"] == "hello\n" and read.header["status"] == "ok"
    assert read.header["kernel_release"] == RELEASE
    assert "SOURCE e.sh" in read and "SOURCE record.sh" in read
    assert str(tmp_path) not in read.header["kernel_cmdline"]
    assert "=== a | cat a | rc=0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ('echo "@@BEGIN a cat a" >"$out"\n', "ended before its script did"),
        ('echo "@@BEGIN a cat a" >"$out"\nexec sleep 60\n', "took too long"),
        ("exit 1\n", "ended before its script did"),
    ],
)
def test_a_guest_that_fails_leaves_no_half_capture(
    tmp_path, monkeypatch, capsys, body, says
) -> None:
    words = fake_lab(tmp_path, monkeypatch, body)
    kept = tmp_path / "out" / "n1-128m" / "e.txt"
    capture.write(kept, "an earlier capture\n")
    assert command_line.main(words) == 1
    assert kept.read_text() == "an earlier capture\n"
    assert list(kept.parent.iterdir()) == [kept]
    assert says in capsys.readouterr().err


def test_an_interrupted_run_leaves_nothing(tmp_path, monkeypatch, capsys) -> None:
    """Ctrl-C while the guest is at work: no capture, no half of one, and no guest left running."""
    # The signal reaches the lab while it waits for its child.
    body = (
        f'echo "@@BEGIN a cat a" >"$out"\necho $$ >{tmp_path}/pid\nkill -INT $PPID\nexec sleep 60\n'
    )
    # What a script starts in the background ignores SIGINT, and Python then keeps it so.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        status = command_line.main(fake_lab(tmp_path, monkeypatch, body))
    finally:
        signal.signal(signal.SIGINT, before)
    assert status == 130
    assert "no capture was left unfinished" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_check_names_the_package_that_differs_and_what_changed(
    tmp_path, monkeypatch, capsys
) -> None:
    words = fake_lab(tmp_path, monkeypatch, GOOD)
    monkeypatch.setattr(experiment, "FOLDER", tmp_path)
    monkeypatch.setattr(run, "installed", lambda packages: {"busybox-static": "1:1.35"})
    assert command_line.main(words) == 0
    kept = str(tmp_path / "out" / "n1-128m" / "e.txt")
    check = ["check", kept, *words[-2:]]
    capsys.readouterr()
    assert command_line.main(check) == 0
    assert capsys.readouterr().out == f"{kept}: the same, byte for byte\n"
    # Another busybox, which prints something else and makes another archive.
    monkeypatch.setattr(run, "installed", lambda packages: {"busybox-static": "1:1.37"})
    (tmp_path / "busybox").write_bytes(b"c")
    program = tmp_path / "qemu"
    program.write_text(program.read_text().replace("hello", "HELLO"))
    assert command_line.main(check) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"{kept}: differs"
    assert out[1] == "  package busybox-static: 1:1.35 when recorded, 1:1.37 now"
    assert out[2].startswith("  header initrd_sha256: ")
    assert out[3] == "  section a: 1 of 2 lines differ; the first, line 1:"
    assert [line.split() for line in out[4:]] == [["recorded", "hello"], ["now", "HELLO"]]


def test_check_refuses_what_another_harness_made(tmp_path, capsys) -> None:
    path = tmp_path / "physical.txt"
    path.write_text('# experiment: "physical"\n# topology: "n1-1g"\n\n=== a | a | rc=0\nb\n')
    assert command_line.main(["check", str(path)]) == 2
    said = capsys.readouterr().err
    assert "recorded by another harness" in said
    assert "kernel_lab run physical --topology n1-1g" in said


def test_an_experiment_on_this_kernel(tmp_path: Path) -> None:
    if any(needs.where(program) is None for program in here.NEEDED):
        pytest.skip("no gcc, static libc or setarch here")
    script = "# records: a\n# topologies: n1-1g\n# here: yes\nrecord a echo hello\nrecord b false\n"
    one = experiment.parse("e", script)
    read = mm_capture.parse(here.run(one, tmp_path, run.sources(one)))
    assert read["a"] == "hello\n" and read.header["topology"] == here.TOPOLOGY
    assert [(s.name, s.rc) for s in read.sections if s.name in ("a", "b")] == [
        ("a", "0"),
        ("b", "1"),
    ]
    with pytest.raises(LabError, match="only for a guest"):
        here.run(experiment.load("physical"), tmp_path, {})
    with pytest.raises(LabError, match="did not reach its end"):
        here.run(experiment.parse("e", script + "exit 3\n"), tmp_path, {})


def test_an_unknown_name_says_what_there_is(capsys) -> None:
    assert command_line.main(["run", "nothing"]) == 2
    assert "there are" in capsys.readouterr().err
    assert command_line.main(["run", "physical", "--topology", "n9"]) == 2
    assert "n1-128m" in capsys.readouterr().err
    assert command_line.main(["list"]) == 0
    assert "physical" in capsys.readouterr().out


def test_a_kernel_tree_without_a_kernel_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="kernel_lab fetch"):
        kernel.find(tmp_path)
    for release in (RELEASE, "6.12.9+deb12-cloud-amd64"):
        (tmp_path / "boot").mkdir(exist_ok=True)
        (tmp_path / "boot" / f"vmlinuz-{release}").write_bytes(b"")
    assert kernel.find(tmp_path) == Kernel(tmp_path, RELEASE)
    older = kernel.find(tmp_path, "cloud", "6.12.9+deb12-cloud-amd64")
    assert older.release == "6.12.9+deb12-cloud-amd64"
    with pytest.raises(LabError, match="kernel_lab fetch full"):
        kernel.find(tmp_path, "full")
    (tmp_path / "boot" / "vmlinuz-6.12.200+deb12-amd64").write_bytes(b"")
    assert kernel.find(tmp_path) == Kernel(tmp_path, RELEASE)
    assert kernel.find(tmp_path, "full") == Kernel(tmp_path, "6.12.200+deb12-amd64")


def boot_kernel() -> Kernel | None:
    """The kernel that the lab fetched before, if QEMU and busybox are here too. Downloads nothing."""
    try:
        needs.require([qemu.PROGRAM, "busybox"])
        return kernel.find(command_line.CACHE / "kernel")
    except LabError:
        return None


@pytest.mark.slow
def test_a_layout_read_from_the_image() -> None:
    image = boot_kernel()
    if image is None or needs.where("zstd") is None:
        pytest.skip("no QEMU, busybox, zstd or fetched kernel here")
    types = btf.Btf(btf.vmlinux(image.image))
    assert types.size("page") == 64 and types.length("zone.free_area") == 11
    assert types.offset("free_area.nr_free") == 16 * types.length("free_area.free_list")
    with pytest.raises(LabError, match=r"no zone\.colour"):
        types.offset("zone.colour")


@pytest.mark.slow
def test_a_small_machine_boots(tmp_path: Path) -> None:
    image = boot_kernel()
    if image is None:
        pytest.skip("no QEMU, busybox or fetched kernel here (python -m kernel_lab fetch)")
    one = experiment.parse(
        "boot", "# records: a\n# topologies: n1-128m\nrecord buddyinfo cat /proc/buddyinfo\n"
    )
    result = run.run(one, "n1-128m", image, tmp_path)
    read = mm_capture.parse(result.text)
    assert read["buddyinfo"].startswith("Node 0, zone      DMA ") and result.failing == []
