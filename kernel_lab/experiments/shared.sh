# records: shared memory: what each seal refuses, System V identifiers and attachments, what three
#   processes on one object count, and the limits of tmpfs and memfd
# topologies: n1-1g
# programs: shared
record_sh sysctl 'values /proc/sys/kernel/shm* /proc/sys/vm/memfd_noexec /proc/sys/vm/overcommit_memory'
record seals shared seals
record sysv shared sysv
record counters shared counters
record limits shared limits
record meminfo cat /proc/meminfo
