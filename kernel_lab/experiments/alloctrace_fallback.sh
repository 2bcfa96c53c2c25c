# records: as alloctrace, with little memory left and much of the workload unmovable, so that
#   requests fall back between migratetypes
# topologies: n1-256m n2-768m
# programs: freelists eater
EVENTS="kmem/mm_page_alloc kmem/mm_page_free kmem/mm_page_free_batched kmem/mm_page_alloc_extfrag
    kmem/mm_page_pcpu_drain kmem/mm_page_alloc_zone_locked"
# Nothing that has no event may touch the lists meanwhile: no compaction ahead of need, no worker that
# once a second lets each CPU's lists shrink, and the workload may have the CPU all the time; since 6.12
# a server of the deadline class lets other tasks, kswapd and kcompactd among them, have a part of it.
echo -1 >/proc/sys/kernel/sched_rt_runtime_us
for server in /sys/kernel/debug/sched/fair_server/*/runtime; do echo 0 >$server; done
echo 0 >/proc/sys/vm/compaction_proactiveness
echo 3600 >/proc/sys/vm/stat_interval
sleep 3
record buddyinfo_before cat /proc/buddyinfo
record pagetypeinfo_before cat /proc/pagetypeinfo
trace_on 8192 $EVENTS
trace_off $EVENTS
# All that is free but 42 MiB more than the high watermarks, so that nothing is reclaimed or killed.
free=$(awk '$1 == "MemFree:" { print int($2 / 1024) }' /proc/meminfo)
marks=$(awk '$1 == "high" { pages += $2 } END { print int(pages / 256) }' /proc/zoneinfo)
eater anon=$((free - marks - 42)) stay=99999 >/tmp/eater &
until grep -q ready /tmp/eater; do sleep 1; done
record buddyinfo_taken cat /proc/buddyinfo
trace_on 8192 $EVENTS
record alloc freelists workload 2 450 400
trace_off $EVENTS
record trace cat $TRACING/trace
record stats cat $TRACING/per_cpu/cpu0/stats
record_sh vmstat 'grep -E "compact|allocstall|pgscan|pgsteal|kswapd|oom" /proc/vmstat'
record buddyinfo_after cat /proc/buddyinfo
record pagetypeinfo_after cat /proc/pagetypeinfo
