# records: every early reservation and allocation (memblock=debug), and what came of them
# topologies: n1-128m n1-1g n1-4g n1-1g-movablecore n2-768m n2-5g n4-1g n3-memless
# append: memblock=debug log_buf_len=1M ignore_loglevel
record dmesg dmesg
record_sh memblock_debugfs 'values /sys/kernel/debug/memblock/*'
record buddyinfo cat /proc/buddyinfo
record zoneinfo cat /proc/zoneinfo
record iomem cat /proc/iomem
