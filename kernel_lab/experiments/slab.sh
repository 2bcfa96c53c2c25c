# records: the geometry of every slab cache, and which caches were merged
# topologies: n1-1g n1-1g-2cpu
record slabinfo cat /proc/slabinfo

geometry() {
    for cache in /sys/kernel/slab/*; do
        [ -L "$cache" ] && continue
        printf '%s' "${cache##*/}"
        for field in object_size slab_size align order objs_per_slab min_partial cpu_partial aliases \
            ctor reclaim_account hwcache_align cache_dma usersize destroy_by_rcu partial slabs \
            objects total_objects; do
            [ -f "$cache/$field" ] && read -r value <"$cache/$field" && printf ' %s=%s' $field "$value"
        done
        echo
    done
}
record geometry geometry

aliases() {
    for cache in /sys/kernel/slab/*; do
        [ -L "$cache" ] && echo "${cache##*/} -> $(readlink "$cache")"
    done
    true
}
record aliases aliases
record_sh some_caches 'values /sys/kernel/slab/kmalloc-64/* /sys/kernel/slab/task_struct/*'
