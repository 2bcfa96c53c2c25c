# records: zswap in front of a swap device: what it stores, refuses and writes back, with each pool and
#   with a small one, and the settings that decide it
# topologies: n1-256m-pmem
# programs: fill
# modules: nd_btt nd_pmem nd_e820 zsmalloc zbud lzo lzo_rle lz4 lz4_compress zstd
# kernel: full
until [ -b /dev/pmem1 ]; do sleep 1; done
mkswap /dev/pmem1 >/dev/null
Z=/sys/module/zswap/parameters
record_sh settings 'values $Z/* /proc/sys/vm/swappiness /proc/sys/vm/page-cluster'
COUNTED="zswpin zswpout zswpwb pswpin pswpout swpin_zero swpout_zero pgscan_direct pgscan_kswapd"
counts() {
    values /sys/kernel/debug/zswap/*
    for name in $COUNTED; do grep "^$name " /proc/vmstat; done
    grep -E '^(Zswap|Zswapped|SwapFree|SwapCached|MemFree):' /proc/meminfo
}
load() { # what fill prints, and what is counted before, meanwhile and afterwards
    echo "-- before"
    counts
    fill "$@" >/tmp/fill &
    until grep -q written /tmp/fill; do sleep 1; done
    echo "-- written"
    counts
    until grep -q read /tmp/fill; do sleep 1; done
    echo "-- read again"
    counts
    kill $!
    wait $!
    cat /tmp/fill
    echo "-- gone"
    counts
}
record_sh swapon 'swapon /dev/pmem1; cat /proc/swaps'
record off load megabytes=230 kind=text
echo 1 >$Z/enabled
record on load megabytes=230 kind=text
record noise load megabytes=230 kind=noise
record zeros load megabytes=230 kind=zero
echo 1 >$Z/max_pool_percent
record small_pool load megabytes=230 kind=text
echo 20 >$Z/max_pool_percent
echo N >$Z/shrinker_enabled
echo zbud >$Z/zpool
record zbud load megabytes=230 kind=text
record_sh settings_after 'values $Z/*'
