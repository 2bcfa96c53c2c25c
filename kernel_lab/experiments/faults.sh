# records: faults, signals and fault counts of scripted accesses, the lines of processes that die of one,
#   and a process's files in /proc
# topologies: n1-1g
# programs: faults
FAULTS="exceptions/page_fault_user exceptions/page_fault_kernel"
dmesg -n 8
echo 1 >/proc/sys/debug/exception-trace
trace_on 4096 $FAULTS
record faults faults
trace_off $FAULTS
# Markers, and faults at the addresses of the steps; those of the 1024 pages are counted instead.
STEPS='tracing_mark_write|address=0x(2[01]|ffff8|0x8)'
record_sh trace 'grep -E " faults-" $TRACING/trace | grep -E "$STEPS" | grep -v address=0x20008 | sed "s/^ *//"'
record_sh die 'for i in 0 1 2 3 4 5 6; do faults die $i; echo "faults die $i: rc $?"; done'
record_sh segfaults 'dmesg | grep -E "faults\[" | sed "s/^\[[ 0-9.]*\] //"'
record_sh dmesg_tail 'dmesg | tail -n 30 | sed "s/^\[[ 0-9.]*\] //"'
record maps cat /proc/self/maps
record smaps_rollup cat /proc/self/smaps_rollup
record_sh smaps 'cat /proc/self/smaps | head -n 52'
record_sh status 'grep -E "^Vm|^Rss" /proc/self/status'
record_sh meminfo 'grep -E "PageTables|DirectMap|^Mapped|AnonPages|^Commit|MemTotal|Shmem:" /proc/meminfo'
record_sh vmstat 'grep -E "pgfault|pgmajfault|direct_map|nr_page_table|nr_sec" /proc/vmstat'
record fault_around cat /sys/kernel/debug/fault_around_bytes
record tlb_ceiling cat /sys/kernel/debug/x86/tlb_single_page_flush_ceiling
record meltdown cat /sys/devices/system/cpu/vulnerabilities/meltdown
record_sh kallsyms 'grep -E " (page_offset_base|vmalloc_base|vmemmap_base|_text|_end|init_top_pgt|exc_page_fault|do_user_addr_fault|handle_mm_fault|pgdir_shift|ptrs_per_p4d)$" /proc/kallsyms'
