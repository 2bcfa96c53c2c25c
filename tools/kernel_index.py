"""Make the index of the reference source that kernel citations are checked against and linked with.

    sudo apt-get install linux-source-6.12 universal-ctags
    tar xf /usr/src/linux-source-6.12.tar.xz -C /tmp
    python tools/kernel_index.py /tmp/linux-source-6.12

writes ``book/_ext/kernel-index.txt.xz``: for each file the names it defines, with their lines. The book's links
(``kernel:mm/page_alloc.c#expand``), the engine's ``Mirrors`` lines and the tests look names up there, so that
nobody who builds or tests the book needs the kernel's source. The index holds names and line numbers only.

A line of the index is a path, or, indented, ``name distance`` pairs in the order of lines. Where a file
defines a name more than once (a macro per configuration, a function and its stub), the line is that of the
first definition with a body. `book/_ext/kernelindex.py` reads it.
"""

from __future__ import annotations

import argparse
import lzma
import re
import subprocess
import sys
from pathlib import Path

INDEX = Path(__file__).resolve().parents[1] / "book" / "_ext" / "kernel-index.txt.xz"

#: What the book cites: folders with everything below them ("/**"), or their own files only.
C_FOLDERS = [
    "mm/**", "lib", "lib/math", "ipc", "init", "kernel", "kernel/sched/**", "kernel/dma/**", "kernel/cgroup",
    "kernel/rcu", "kernel/locking", "kernel/printk", "kernel/trace", "arch/x86/realmode", "arch/x86/include/asm/e820", "include/asm-generic/bitops",
    "drivers/acpi/numa",
    "fs", "fs/proc", "fs/hugetlbfs", "fs/ramfs", "arch/x86/mm/**", "arch/x86/entry/**", "arch/x86/kernel",
    "arch/x86/kernel/cpu/mtrr", "arch/x86/include/asm", "arch/x86/include/uapi/asm", "arch/x86/lib",
    "include/asm-generic", "include/linux/sched", "drivers/base", "drivers/block/zram", "drivers/dax",
    "tools/mm", "tools/testing/memblock/tests", "tools/testing/vma",
]  # fmt: skip
C_FILES = ["drivers/acpi/tables.c", "drivers/gpu/drm/drm_buddy.c", "include/drm/drm_buddy.h", "arch/x86/kernel/cpu/common.c", "arch/x86/kernel/cpu/bugs.c", "arch/x86/boot/compressed/kaslr.c",
           "arch/x86/boot/compressed/ident_map_64.c", "arch/x86/kernel/cpu/resctrl/core.c"]  # fmt: skip
#: The headers are those which these include.
HEADERS_OF = ["mm/**", "arch/x86/mm/**", "fs/proc", "kernel/sched", "ipc"]
HEADERS_OF_FILES = ["kernel/fork.c", "kernel/exit.c", "fs/exec.c", "fs/userfaultfd.c", "fs/fs-writeback.c", "fs/dax.c",
                    "kernel/dma/direct.c", "kernel/resource.c", "arch/x86/kernel/setup.c",
                    "arch/x86/kernel/e820.c"]  # fmt: skip
TRACE_EVENTS = ["include/trace/events"]
TRACED = re.compile(
    r"include/trace/events/(kmem|vmscan|filemap|writeback|compaction|migrate|oom|mmap|mmap_lock|pagemap|huge_memory|"
    r"thp|ksm|vmalloc|cma|damon|mmflags|page_ref|page_pool|percpu|sched|maple_tree|tlb|swiotlb|fs_dax|memcg)\.h$"
)
NOT_CITED = re.compile(
    r"lib/(test_|.*kunit)|.*/test_[^/]*$|include/linux/(net|nfs|nvme|acpi|skb|pci|phy|usb|kvm|bpf)"
)
#: Files cited as a whole: only their names are kept.
TEXT_FOLDERS = [
    "Documentation/mm/**", "Documentation/admin-guide/mm/**", "Documentation/core-api", "Documentation/dev-tools",
    "Documentation/arch/x86/**", "Documentation/admin-guide/cgroup-v1", "Documentation/admin-guide/sysctl",
    "Documentation/admin-guide/hw-vuln", "Documentation/accounting", "Documentation/driver-api",
    "Documentation/filesystems", "Documentation/admin-guide", "Documentation/trace", "Documentation/block",
    "Documentation/process",
]  # fmt: skip
TEXT_FILES = ["mm/Kconfig", "mm/Kconfig.debug", "arch/x86/Kconfig", "mm/Makefile", "Makefile", "MAINTAINERS",
              "lib/Kconfig.debug", "arch/x86/kernel/vmlinux.lds.S", "include/asm-generic/vmlinux.lds.h"]  # fmt: skip
#: Definitions that ctags does not see: (pattern, names that the match defines).
GENERATED = [
    (re.compile(r"^(?:TRACE_EVENT|TRACE_EVENT_FN|TRACE_EVENT_CONDITION|DECLARE_EVENT_CLASS)\((\w+)"), "{0}"),
    (re.compile(r"^DEFINE_EVENT(?:_PRINT|_CONDITION)?\(\s*\w+\s*,\s*(\w+)"), "{0}"),
    (re.compile(r"^SYSCALL_DEFINE\d\((\w+)"), "{0} sys_{0}"),
    (re.compile(r"^COMPAT_SYSCALL_DEFINE\d\((\w+)"), "compat_sys_{0}"),
    (re.compile(r"^(?:SYM_CODE_START|SYM_FUNC_START|SYM_INNER_LABEL)\w*\((\w+)"), "{0}"),
    (re.compile(r"^DEFINE_IDTENTRY\w*\((\w+)\)"), "{0}"),
    (re.compile(r"^(?:static\s+|extern\s+)?(?:DEFINE|DECLARE)_(?:PER_CPU|STATIC_KEY|MUTEX|SPINLOCK|RWSEM|IDA|XARRAY|"
                r"HASHTABLE|RAW_SPINLOCK|SHRINKER|SRCU|WAIT_QUEUE_HEAD)\w*\((?:[^,()]+,\s*)?(\w+)"), "{0}"),
    (re.compile(r"^\s*(?:PAGEFLAG|SETPAGEFLAG|TESTPAGEFLAG|CLEARPAGEFLAG|__PAGEFLAG|TESTSCFLAG|PAGEFLAG_FALSE)\((\w+)"),
     "Page{0} SetPage{0} ClearPage{0} __SetPage{0} __ClearPage{0}"),
    (re.compile(r"^\s*FOLIO_(?:FLAG|TEST_FLAG)\((\w+)"), "folio_test_{0} folio_set_{0} folio_clear_{0}"),
    (re.compile(r"^\s*(?:PAGE_TYPE_OPS|FOLIO_TYPE_OPS)\((\w+),\s*(\w+)"), "Page{0} folio_test_{1} __SetPage{0} __ClearPage{0}"),
    (re.compile(r"^\s*(?:PAGEFLAG|SETPAGEFLAG|TESTPAGEFLAG|CLEARPAGEFLAG|TESTSCFLAG)\(\w+,\s*(\w+)"),
     "folio_test_{0} folio_set_{0} folio_clear_{0}"),
    (re.compile(r"^config (\w+)"), "CONFIG_{0}"),
    (re.compile(r"^#define (\w+)"), "{0}"),
    # A function that ctags lost track of: kernel style begins a definition at the left edge.
    (re.compile(r"^(?!\s|#|/|\*|return\b|else\b|if\b|extern\b|EXPORT)(?:[\w*]+[\s*]+)+\*?(\w+)\([^;]*$"), "{0}"),
    (re.compile(r"^early_param\(\"([\w.]+)\""), "early_param_{0}"),
]  # fmt: skip


def files(source: Path, folders: list[str], endings: tuple[str, ...]) -> list[str]:
    """Return the files in @folders of the source whose names end in @endings, sorted."""
    found = set()
    for folder in folders:
        deep = folder.endswith("/**")
        base = source / folder.removesuffix("/**")
        for path in base.rglob("*") if deep else base.glob("*"):
            if path.is_file() and path.name.endswith(endings):
                found.add(path.relative_to(source).as_posix())
    return sorted(f for f in found if not NOT_CITED.match(f))


def headers(source: Path) -> list[str]:
    """Return the headers that the memory manager's files include, and those which these headers include."""
    found: set[str] = set()
    wave = [f for f in files(source, HEADERS_OF, (".c", ".h"))] + HEADERS_OF_FILES
    for _ in range(2):
        new = set()
        for path in wave:
            text = (source / path).read_text(encoding="utf-8", errors="replace")
            for name in re.findall(
                r"^\s*#\s*include\s+<((?:linux|uapi|asm-generic)/[\w./-]+)>", text, re.M
            ):
                new |= {f"include/{name}", f"include/uapi/{name}"}
        wave = sorted(f for f in new - found if (source / f).is_file() and not NOT_CITED.match(f))
        found |= set(wave)
    return sorted(found)


def scan(source: Path, paths: list[str]) -> dict[str, dict[str, int]]:
    """Return for each path the names it defines with their lines."""
    names: dict[str, dict[str, int]] = {p: {} for p in paths}
    done = subprocess.run(
        ["ctags", "-L", "-", "-f", "-", "--languages=C,C++", "--langmap=C:.c.h", "--kinds-C=dfgesuvtxp",
         "--fields=kn", "--excmd=number", "--sort=no", "-I", "__init,__meminit,__ref,__always_inline,noinline+",
         "-I", "__page_aligned_bss,__ro_after_init,__read_mostly,__initdata,__latent_entropy"],
        input="\n".join(paths), cwd=source, capture_output=True, text=True, check=True,
    )  # fmt: skip
    rank: dict[tuple[str, str], int] = {}
    order = "fstugedvxp"  # the definition with a body first, a prototype last
    for row in done.stdout.splitlines():
        name, path, line, kind = row.split("\t")[:4]
        number = int(line.removesuffix(';"'))
        if not re.fullmatch(r"\w+", name) or name.startswith("__anon"):
            continue
        place = order.find(kind[:1])
        if place < rank.get((path, name), 99):
            rank[path, name] = place
            names[path][name] = number
    for path in paths:
        text = (source / path).read_text(encoding="utf-8", errors="replace")
        for number, line in enumerate(text.splitlines(), 1):
            for pattern, makes in GENERATED:
                found = pattern.match(line)
                if found:
                    for name in makes.format(*found.groups()).split():
                        names[path].setdefault(name, number)
    return names


def version(source: Path) -> str:
    """Return the release of the source, e.g. ``6.12.117``."""
    head = (source / "Makefile").read_text().splitlines()[:5]
    parts = dict(line.split(" = ") for line in head if " = " in line and not line.endswith("= "))
    return ".".join(parts[k] for k in ("VERSION", "PATCHLEVEL", "SUBLEVEL"))


def main() -> None:
    parser = argparse.ArgumentParser(description="Index the reference source.")
    parser.add_argument("source", type=Path, help="the unpacked linux-source-6.12")
    parser.add_argument("--output", type=Path, default=INDEX)
    args = parser.parse_args()
    if not (args.source / "mm" / "page_alloc.c").is_file():
        sys.exit(f"{args.source} does not look like a kernel source: there is no mm/page_alloc.c")
    code = files(args.source, C_FOLDERS, (".c", ".h", ".S"))
    code += [f for f in C_FILES if (args.source / f).is_file()]
    code += [f for f in files(args.source, TRACE_EVENTS, (".h",)) if TRACED.match(f)]
    code = sorted({*code, *headers(args.source)})
    texts = files(args.source, TEXT_FOLDERS, (".rst", ".txt"))
    texts += [f for f in TEXT_FILES if (args.source / f).is_file() and f not in code]
    defined = scan(args.source, sorted(code + [f for f in texts if "Kconfig" in f]))
    defined.update({f: defined.get(f, {}) for f in texts})
    out = [f"# Names and lines of Linux {version(args.source)}, made by tools/kernel_index.py"]
    for path in sorted(defined):
        out.append(path)
        last = 0
        row = []
        for name, line in sorted(defined[path].items(), key=lambda e: (e[1], e[0])):
            row.append(
                f"{name} {line - last}"
            )  # the distance from the line before compresses better
            last = line
        if row:
            out.append(" " + " ".join(row))
    data = lzma.compress("\n".join(out).encode() + b"\n", preset=9 | lzma.PRESET_EXTREME)
    args.output.write_bytes(data)
    total = sum(len(v) for v in defined.values())
    print(f"{args.output}: {len(defined)} files, {total} names, {len(data) // 1000} kB")


if __name__ == "__main__":
    main()
