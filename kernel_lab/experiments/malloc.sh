# records: which system calls the C library's malloc() makes, step by step, with the faults and the mappings
#   after each step
# topologies: n1-1g
# programs: mallocs
# here: yes
record malloc mallocs
