# records: DAMON: which attributes it refuses, the regions it finds in a process with a known hot part, as
#   aggregations and as a scheme's statistics
# topologies: n1-256m
# programs: pattern
ADMIN=/sys/kernel/mm/damon/admin/kdamonds
echo 1 >$ADMIN/nr_kdamonds
K=$ADMIN/0
echo 1 >$K/contexts/nr_contexts
C=$K/contexts/0
record_sh defaults 'cat $C/avail_operations; values $C/monitoring_attrs/intervals/* $C/monitoring_attrs/nr_regions/*'
attributes() { # SAMPLE AGGREGATION UPDATE (microseconds) LEAST MOST (regions)
    echo $1 >$C/monitoring_attrs/intervals/sample_us
    echo $2 >$C/monitoring_attrs/intervals/aggr_us
    echo $3 >$C/monitoring_attrs/intervals/update_us
    echo $4 >$C/monitoring_attrs/nr_regions/min
    echo $5 >$C/monitoring_attrs/nr_regions/max
}
scheme() { # N MOST_ACCESSES: a scheme that only counts what matches
    S=$C/schemes/$1
    echo stat >$S/action
    for field in sz nr_accesses age; do
        echo 0 >$S/access_pattern/$field/min
        echo 4294967295 >$S/access_pattern/$field/max
    done
    echo $2 >$S/access_pattern/nr_accesses/min
}
start() {
    pattern megabytes=40 hot=8 seconds=$1 >/tmp/pattern &
    process=$!
    until [ -s /tmp/pattern ]; do sleep 1; done
    cat /tmp/pattern
    echo vaddr >$C/operations
    echo 1 >$C/targets/nr_targets
    echo $process >$C/targets/0/pid_target
}
refused() {
    start 60
    for wish in "5000 100000 1000000 2 100" "5000 100000 1000000 3 100" "5000 100000 1000000 10 9" \
        "5000 4000 1000000 10 100" "0 100000 1000000 10 100" "5000 100000 50000 10 100"; do
        attributes $wish
        if echo on >$K/state; then
            echo "$wish: $(cat $K/state)"
            echo off >$K/state
        else
            echo "$wish: refused"
        fi
    done
    kill $process
}
record refused refused
regions() {
    echo update_schemes_tried_regions >$K/state
    for number in $(ls $C/schemes/0/tried_regions | sort -n); do
        R=$C/schemes/0/tried_regions/$number
        [ -d $R ] && printf '  %x-%x nr_accesses=%s age=%s\n' $(cat $R/start) $(cat $R/end) \
            $(cat $R/nr_accesses) $(cat $R/age)
    done
}
observed() {
    start 16
    attributes 5000 100000 1000000 10 60
    echo 3 >$C/schemes/nr_schemes
    scheme 0 0
    scheme 1 10
    scheme 2 21
    trace_on 4096 damon/damon_aggregated damon/damos_before_apply
    echo on >$K/state
    for second in 1 3 5 7 10 13; do
        while [ $(($(date +%s) - began)) -lt $second ]; do sleep 1; done
        echo "after $second s"
        regions
    done
    trace_off damon/damon_aggregated damon/damos_before_apply
    echo update_schemes_stats >$K/state
    values $C/schemes/[0-2]/stats/*
    echo off >$K/state
    kill $process
}
began=$(date +%s)
record observed observed
record_sh trace 'grep -v "^#" $TRACING/trace | grep damon_aggregated | head -1500'
record_sh applied 'grep -v "^#" $TRACING/trace | grep damos_before_apply | head -300'
