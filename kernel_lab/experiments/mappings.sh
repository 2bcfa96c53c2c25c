# records: where mappings are placed, which merge, how heap and stack grow, and which calls are refused:
#   one line for each question of the chapter on mappings
# topologies: n1-1g
# programs: mappings
record limits cat /proc/self/limits
record meminfo cat /proc/meminfo
record overcommit cat /proc/sys/vm/overcommit_memory
record mappings mappings
