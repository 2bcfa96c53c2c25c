# What experiments are written with.

# record NAME COMMAND [ARGUMENT ...]: what the command prints becomes a section of the capture.
record() {
    _name=$1
    shift
    echo "@@BEGIN $_name $*" >&3
    "$@" >&3 2>&1
    _status=$?
    echo >&3
    echo "@@END $_name $_status" >&3
}

# record_sh NAME 'TEXT': the same for one line of shell.
record_sh() {
    _name=$1
    shift
    echo "@@BEGIN $_name $*" >&3
    eval "$*" >&3 2>&1
    _status=$?
    echo >&3
    echo "@@END $_name $_status" >&3
}

# values FILE ...: small files as "path = value", their lines joined by |.
values() {
    for _file in "$@"; do
        [ -f "$_file" ] || continue
        printf '%s = %s\n' "$_file" "$(tr '\n' '|' <"$_file" 2>/dev/null | sed 's/|$//')"
    done
    true
}

TRACING=/sys/kernel/tracing

# trace_on KIB EVENT ...: trace these events from here on, in a buffer of KIB per CPU.
trace_on() {
    echo 0 >$TRACING/tracing_on
    echo "$1" >$TRACING/buffer_size_kb
    shift
    echo >$TRACING/trace
    for _event in "$@"; do echo 1 >"$TRACING/events/$_event/enable"; done
    echo 1 >$TRACING/tracing_on
}

# trace_off EVENT ...
trace_off() {
    echo 0 >$TRACING/tracing_on
    for _event in "$@"; do echo 0 >"$TRACING/events/$_event/enable"; done
}
