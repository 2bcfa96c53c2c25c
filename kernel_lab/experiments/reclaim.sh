# records: kswapd and direct reclaim at work: vmscan events and counters for loads of file and
#   anonymous pages, with the multi-generational LRU and without, with swap and without
# topologies: n1-256m-pmem
# programs: eater
# modules: nd_btt nd_pmem nd_e820
# timeout: 600
until [ -b /dev/pmem1 ]; do sleep 1; done
mkswap /dev/pmem1 >/dev/null
exec 4</dev/pmem0 # a block device's cached pages go with its last closer
EVENTS="vmscan/mm_vmscan_kswapd_wake vmscan/mm_vmscan_kswapd_sleep vmscan/mm_vmscan_wakeup_kswapd
    vmscan/mm_vmscan_direct_reclaim_begin vmscan/mm_vmscan_direct_reclaim_end
    vmscan/mm_vmscan_lru_isolate vmscan/mm_vmscan_lru_shrink_inactive
    vmscan/mm_vmscan_lru_shrink_active vmscan/mm_vmscan_throttled"
changes() {
    awk 'NR == FNR { before[$1] = $2; next }
        $2 != before[$1] { printf "%s %s -> %s (%+d)\n", $1, before[$1], $2, $2 - before[$1] }' \
        /tmp/vmstat /proc/vmstat
}
events() {
    grep -v '^#' $TRACING/trace | head -1000
    for event in $EVENTS; do echo "count ${event#*/} $(grep -c "${event#*/}:" $TRACING/trace)"; done
}
# load NAME ARGUMENT ...: what eater with these arguments makes the kernel do.
load() {
    name=$1
    shift
    echo 3 >/proc/sys/vm/drop_caches
    sleep 1
    cat /proc/vmstat >/tmp/vmstat
    trace_on 4096 $EVENTS
    record ${name}_run eater "$@"
    trace_off $EVENTS
    record ${name}_changes changes
    record ${name}_trace events
}
record zoneinfo cat /proc/zoneinfo
for mglru in y n; do
    echo $mglru >/sys/kernel/mm/lru_gen/enabled
    load mglru_${mglru}_file file=190:/dev/pmem0 rounds=2
    load mglru_${mglru}_both file=110:/dev/pmem0 anon=110 rounds=2
    swapon /dev/pmem1
    load mglru_${mglru}_anon_swap anon=240 rounds=2
    load mglru_${mglru}_both_swap file=110:/dev/pmem0 anon=130 rounds=2
    record mglru_${mglru}_lru_gen cat /sys/kernel/debug/lru_gen
    swapoff /dev/pmem1
done
