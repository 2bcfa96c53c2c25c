# records: what seeded sequences of mmap, munmap, mprotect, mremap, madvise, mlock, brk and mseal do to an
#   address space: result, and every mapping that changed, call by call (JSON lines)
# topologies: n1-1g
# programs: vmaops
# here: yes
record thp cat /sys/kernel/mm/transparent_hugepage/enabled
record seed1 vmaops seed=1 ops=1500 window=1024
record seed2_dense vmaops seed=2 ops=1500 window=192
record seed3_wide vmaops seed=3 ops=1200 window=6144
record seed4_seal vmaops seed=4 ops=800 window=512 seal=1
record seed5_lockall vmaops seed=5 ops=800 window=512 lockall=1
