# records: which pages of a block device each access of thirty patterns brings into the page cache, for
#   several limits of readahead
# topologies: n1-256m-pmem
# programs: readahead
# modules: nd_btt nd_pmem nd_e820
# timeout: 600
until [ -b /dev/pmem0 ]; do sleep 1; done
QUEUE=/sys/block/pmem0/queue
record settings values $QUEUE/read_ahead_kb $QUEUE/optimal_io_size $QUEUE/max_sectors_kb $QUEUE/rotational \
    /sys/block/pmem0/size /sys/kernel/mm/lru_gen/enabled /sys/kernel/debug/fault_around_bytes
exec 4</dev/pmem0 # a block device's cached pages go with its last closer
for kilobytes in 128 16 512 0; do
    echo $kilobytes >$QUEUE/read_ahead_kb
    record readahead_${kilobytes}k readahead /dev/pmem0
done
