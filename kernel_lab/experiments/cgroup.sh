# records: the memory controller: what known loads are charged, and what high, max and swap limits do
# topologies: n1-256m-pmem
# programs: eater
# modules: nd_btt nd_pmem nd_e820
until [ -b /dev/pmem1 ]; do sleep 1; done
mount -t cgroup2 cgroup2 /cg
echo +memory >/cg/cgroup.subtree_control

state() {
    for name in current peak swap.current min low high max events stat; do
        [ -f /cg/g/memory.$name ] && echo "memory.$name $(tr '\n' ' ' </cg/g/memory.$name)"
    done
}
# loaded "SETTING ..." LOAD: a group with these limits, one process in it, its state, its exit status.
loaded() {
    mkdir /cg/g
    for setting in $1; do echo "${setting#*=}" >/cg/g/memory.${setting%%=*}; done
    eater group=/cg/g $2 stay=20 >/dev/null &
    sleep 6
    echo "-- ${1:-no limits}, $2"
    state
    kill $! 2>/dev/null
    wait $!
    echo "exit $?"
    sleep 1
    echo "-- afterwards"
    state | grep -E '^memory.(current|events)'
    echo 64M >/cg/g/memory.reclaim 2>/dev/null
    rmdir /cg/g
}
charges() {
    for load in anon=1 anon=4 shared=4 scattered=100 file=8:/dev/pmem0; do loaded "" $load; done
}
record charges charges
mkswap /dev/pmem1 >/dev/null
swapon /dev/pmem1
limits() {
    for limit in high=16M max=16M "high=8M max=12M" "max=16M swap.max=0" "max=16M swap.max=4M"; do
        loaded "$limit" anon=24
    done
}
record limits limits
record vmstat cat /proc/vmstat
