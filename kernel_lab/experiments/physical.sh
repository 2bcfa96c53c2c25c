# records: physical memory right after boot: zones, watermarks, free lists, memory map, log
# topologies: n1-128m n1-512m n1-1g n1-4g n1-1g-2cpu n1-2g-8cpu n1-1g-movablecore n1-1g-kernelcore
#   n2-768m n2-5g n4-1g n4-1g-4cpu n3-memless n2-5g-movablecore
record buddyinfo cat /proc/buddyinfo
record zoneinfo cat /proc/zoneinfo
record pagetypeinfo cat /proc/pagetypeinfo
record meminfo cat /proc/meminfo
record vmstat cat /proc/vmstat
record_sh sysctl_vm 'values /proc/sys/vm/*'
record iomem cat /proc/iomem

sections_of_memory() {
    values /sys/devices/system/memory/*
    for section in /sys/devices/system/memory/memory[0-9]*; do
        values $section/valid_zones $section/state $section/phys_index
    done
}
record memory_sections sections_of_memory

nodes() {
    values /sys/devices/system/node/*
    for node in /sys/devices/system/node/node[0-9]*; do
        values $node/distance $node/cpulist $node/meminfo $node/numastat $node/vmstat
    done
}
record nodes nodes
record_sh memory_tiers 'values /sys/devices/virtual/memory_tiering/*/nodelist'
record dmesg dmesg
