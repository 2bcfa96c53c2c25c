# records: huge pages: the counters of the pool after each step of reserving, touching, forking and
#   truncating; what transparent huge pages do step by step, and what each setting changes
# topologies: n1-1g
# programs: hugepages
THP=/sys/kernel/mm/transparent_hugepage
record settings values $THP/* $THP/khugepaged/* $THP/hugepages-*kB/* /sys/kernel/mm/hugepages/*/* \
    /proc/sys/vm/nr_hugepages /proc/sys/vm/min_free_kbytes
# khugepaged would come at its own time.
echo 3600000 >$THP/khugepaged/scan_sleep_millisecs
record pool hugepages pool
record_sh pool_files 'values /sys/kernel/mm/hugepages/*/* /sys/devices/system/node/node0/hugepages/*/*'
for setting in always madvise never; do
    echo $setting >$THP/enabled
    record transparent_$setting hugepages transparent
done
echo always >$THP/enabled
echo 0 >$THP/use_zero_page
record transparent_no_zero_page hugepages transparent
echo 1 >$THP/use_zero_page
for size in 16 32 64 128 256 512 1024; do echo never >$THP/hugepages-${size}kB/enabled; done
echo always >$THP/hugepages-64kB/enabled
record transparent_64k hugepages transparent
record_sh stats 'values $THP/hugepages-64kB/stats/* $THP/hugepages-2048kB/stats/*'
echo never >$THP/hugepages-64kB/enabled
echo advise >$THP/shmem_enabled
record transparent_shmem_advise hugepages transparent
echo always >$THP/shmem_enabled
record transparent_shmem_always hugepages transparent
record_sh vmstat 'grep -E "thp|htlb" /proc/vmstat'
record_sh log_of_huge 'dmesg | grep -i huge'
