# records: the OOM killer, for the whole machine and for one cgroup: the score of each process just
#   before, the kernel's report, and who is left
# topologies: n1-256m
# programs: eater
scores() {
    awk '$1 ~ /^(MemTotal|SwapTotal):/ { print "total", $1, $2 }' /proc/meminfo
    for process in /proc/[0-9]*; do
        readlink $process/exe >/dev/null || continue # a kernel thread
        printf 'pid=%s comm=%s oom_score=%s oom_score_adj=%s statm="%s" %s\n' "${process#/proc/}" \
            "$(cat $process/comm)" "$(cat $process/oom_score)" "$(cat $process/oom_score_adj)" \
            "$(cat $process/statm)" "$(awk '$1 ~ /^(VmRSS|RssAnon|RssFile|RssShmem|VmSwap|VmPTE):/ {
                printf "%s%s ", $1, $2 }' $process/status)"
    done
}
alive() {
    for process in /proc/[0-9]*; do
        readlink $process/exe >/dev/null && printf '%s:%s ' "${process#/proc/}" "$(cat $process/comm)"
    done
    echo
}
crowd() {
    eater name=small anon=8 stay=9999 &
    eater name=mid anon=20 stay=9999 &
    eater name=big anon=40 stay=9999 &
    eater name=spared anon=30 score=-500 stay=9999 &
    eater name=offered anon=6 score=300 stay=9999 &
    eater name=shared shared=12 stay=9999 &
    eater name=tables scattered=1500 stay=9999 &
    eater name=immune anon=10 score=-1000 stay=9999 &
    sleep 20
}
clear_away() {
    for process in /proc/[0-9]*; do
        case $(cat $process/comm 2>/dev/null) in
        small | mid | big | spared | offered | shared | tables | immune | glutton) kill -9 "${process#/proc/}" ;;
        esac
    done
    sleep 2
    dmesg -c >/dev/null
}

echo 1 >/proc/sys/vm/oom_dump_tasks
record zoneinfo cat /proc/zoneinfo
record crowd crowd
record scores scores
dmesg -c >/dev/null
glutton() {
    eater name=glutton score=-900 anon=all &
    sleep 30
    alive
    grep -E 'oom_kill|allocstall' /proc/vmstat
}
record glutton glutton
record glutton_dmesg dmesg -c
clear_away

# The task whose allocation failed is killed, whoever has the most.
allocating_task() {
    echo 1 >/proc/sys/vm/oom_kill_allocating_task
    crowd
    eater name=glutton anon=all &
    sleep 20
    alive
    echo 0 >/proc/sys/vm/oom_kill_allocating_task
}
record allocating_task allocating_task
record allocating_task_dmesg dmesg -c
clear_away

mount -t cgroup2 cgroup2 /cg
echo +memory >/cg/cgroup.subtree_control
mkdir /cg/top
echo +memory >/cg/top/cgroup.subtree_control
mkdir /cg/top/one /cg/top/all
echo 24M >/cg/top/one/memory.max
echo 24M >/cg/top/all/memory.max
echo 1 >/cg/top/all/memory.oom.group
in_a_group() {
    eater group=$1 name=first anon=10 stay=999 &
    sleep 2
    eater group=$1 name=second anon=4 score=600 stay=999 &
    sleep 2
    scores
    eater group=$1 name=third anon=20 stay=9 &
    sleep 8
    alive
    values $1/memory.events $1/memory.events.local /cg/top/memory.events $1/memory.current $1/memory.peak
}
record memcg in_a_group /cg/top/one
record memcg_dmesg dmesg -c
record memcg_group in_a_group /cg/top/all
record memcg_group_dmesg dmesg -c
