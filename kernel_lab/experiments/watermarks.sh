# records: what follows from each of many settings of the memory sysctls, one line per zone
# topologies: n1-128m n1-256m n1-1g n1-4g n1-1g-movablecore n2-768m n2-5g n4-1g
VM=/proc/sys/vm

# What a zone's part of /proc/zoneinfo says, on one line after the setting's name.
zones() {
    awk -v setting="$1" '
        $1 == "Node" { node = $2 + 0; zone = $4; batch = ""; in_pages = 0 }
        $1 == "pages" && $2 == "free" { in_pages = 1 }
        in_pages && $1 ~ /^(boost|min|low|high|promo|spanned|present|managed)$/ { value[$1] = $2 }
        $1 == "protection:" {
            sub(/.*protection: /, "")
            gsub(/[(),]/, "")
            protection = $0
            in_pages = 0
        }
        $1 == "batch:" && batch == "" { batch = $2 }
        $1 == "start_pfn:" {
            printf "%s node=%s zone=%s min=%d low=%d high=%d promo=%d boost=%d", setting, node, zone,
                value["min"], value["low"], value["high"], value["promo"], value["boost"]
            printf " spanned=%d present=%d managed=%d start_pfn=%d protection=[%s]", value["spanned"],
                value["present"], value["managed"], $2, protection
            printf " pcp_batch=%d\n", batch
            for (name in value) value[name] = 0
        }' /proc/zoneinfo
    awk -v setting="$1" '$1 ~ /^(MemFree|MemAvailable|CommitLimit):/ {
        print setting, "meminfo", $1, $2 }' /proc/meminfo
    awk -v setting="$1" '$1 ~ /^nr_dirty_(background_)?threshold$/ {
        print setting, "vmstat", $1, $2 }' /proc/vmstat
}

# each NAME VALUE ...: the zones after each value of one sysctl, which is then put back.
each() {
    sysctl=$1
    shift
    before=$(cat $VM/$sysctl)
    for value in "$@"; do
        echo "$value" >$VM/$sysctl && zones "$sysctl=$(echo "$value" | tr ' ' _)"
    done
    echo "$before" >$VM/$sysctl
}

sweep() {
    printf defaults
    for name in min_free_kbytes watermark_scale_factor lowmem_reserve_ratio \
        percpu_pagelist_high_fraction overcommit_ratio; do
        printf ' %s=%s' $name "$(cat $VM/$name | tr '\t' _)"
    done
    echo
    zones default
    least=$(cat $VM/min_free_kbytes)
    each min_free_kbytes 64 127 256 512 1000 1024 2048 3333 4096 8192 16384 32768 65536
    each watermark_scale_factor 1 2 5 10 11 50 100 333 500 1000 3000
    for kilobytes in 1024 5000 20000; do
        echo $kilobytes >$VM/min_free_kbytes
        each watermark_scale_factor 10 100 1000 | sed "s/^/min_free_kbytes=$kilobytes,/"
    done
    echo $least >$VM/min_free_kbytes
    each lowmem_reserve_ratio "256 256 32 0 0" "1 1 1 1 1" "0 0 0 0 0" "128 64 16 8 4" \
        "2 3 5 7 11" "9999 9999 9999 9999 9999"
    each percpu_pagelist_high_fraction 8 16 100 1000 0
    each overcommit_ratio 0 1 50 100 | grep CommitLimit
    for pair in "5 10" "1 2" "20 40"; do
        set -- $pair
        echo $1 >$VM/dirty_background_ratio
        echo $2 >$VM/dirty_ratio
        zones "dirty_background_ratio=$1,dirty_ratio=$2" | grep -E "dirty_.*thres|MemFree|MemAvail"
    done
}
record sweep sweep
record zoneinfo cat /proc/zoneinfo
record_sh sysctl_vm 'values /proc/sys/vm/*'
