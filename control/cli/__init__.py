"""The command `hostlane`: ``main`` finds a command by its name and imports no more than that. Here are the commands
that ask a proxy or a control server, and the control server's own; those that run or examine a host stand in ``proxy``
beside what they command.
"""
