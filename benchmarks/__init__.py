"""Side by side: Hostlane, HAProxy, Envoy and no proxy at all, in one run on one machine. ``python -m benchmarks``.

options    what was asked for                       facts      the machine, in the header of every result
build      the C programs                           testbed    two hosts, their cores, the server on B
loadrun    one run of the load client               paths/     each way from a client on A to the server on B
measures/  what is measured on every path           runner     rounds: every round visits every path
results    samples, and what they are kept in       stats      medians and paired ratios
report     RESULTS.md                               contract   the promises, each with what was measured
tlscost    what TLS costs a link by itself
"""
