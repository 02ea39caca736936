"""``hostlane check``: what a message pays on this host, what is broken, and the command that mends it.

    context      whom it is about: the configuration, its peers' addresses, this namespace's interfaces
    readers/   facts: from /proc, /sys, netlink, and a few packets of its own; never a judgement
    rules/     facts in, lines of the report out (sans-IO)
    diagnose   the subjects in their order, each a reader and its rules
    show       the report as text

A reader that may not look says so (`report.Unchecked`); nothing is guessed. docs/check.md explains every finding.
"""
