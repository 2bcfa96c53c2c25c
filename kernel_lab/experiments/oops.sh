# records: page faults of the kernel itself that end in an oops, provoked by a module of this lab
# topologies: n1-1g
# modules: ooops
dmesg -n 1
record_sh modules 'cat /proc/modules; cat /proc/sys/kernel/tainted'
for what in 0 1 2 3; do
    dmesg -c >/dev/null
    (echo $what >/proc/ooops)
    record_sh oops$what 'dmesg | sed "s/^\[[ 0-9.]*\] //" | sed "/^Modules linked in/q"'
done
