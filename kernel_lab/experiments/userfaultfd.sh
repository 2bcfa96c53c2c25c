# records: userfaultfd: features, messages, every way to answer a fault, write-protection, events, and
#   what is refused
# topologies: n1-1g
# programs: uffd
record sysctl cat /proc/sys/vm/unprivileged_userfaultfd
for part in api missing protect minor errors events; do
    record $part uffd $part
done
