#!/bin/busybox sh
# The guest's first process: mounts, loads modules, runs the experiment, switches the machine off.
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tracefs tracefs /sys/kernel/tracing
mount -t debugfs debugfs /sys/kernel/debug
# Descriptor 3 is the result port: the second serial line, without any translation.
stty -F /dev/ttyS1 115200 raw -opost
exec 3>/dev/ttyS1
while read -r module; do insmod "/modules/$module.ko"; done </modules/order
. /lab/record.sh
record uname uname -a
record cmdline cat /proc/cmdline
. /lab/experiment.sh
echo "@@DONE" >&3
sync
poweroff -f
