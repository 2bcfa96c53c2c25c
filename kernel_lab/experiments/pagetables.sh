# records: page frames, page-table bits, page flags and map counts of known mappings, step by step:
#   the zero page, fork and copy on write, soft-dirty, madvise, files, huge pages, split, collapse
# topologies: n1-1g
# programs: pagemap
THP=/sys/kernel/mm/transparent_hugepage
record_sh thp 'values $THP/* $THP/khugepaged/*'
record_sh vmstat_before 'grep -E "thp|pgfault|pgalloc|pgfree" /proc/vmstat'
record pgmap pagemap
record_sh vmstat_after 'grep -E "thp|pgfault|pgalloc|pgfree" /proc/vmstat'
for size in 16 32 64 128 256 512 1024; do
    echo never >$THP/hugepages-${size}kB/enabled
done
echo always >$THP/hugepages-64kB/enabled
record_sh mthp_settings 'values $THP/hugepages-*kB/enabled'
record pgmap_mthp64 pagemap
record_sh mthp_stats 'values $THP/hugepages-64kB/stats/* $THP/hugepages-2048kB/stats/*'
