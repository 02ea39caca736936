"""What the control plane and the proxy both need of the machine: logs on stderr (`logs`), accepting clients whatever
it says (`accepting`), how many descriptors it has (`descriptors`), the life of a listening Unix socket (`unixsock`,
with `socketpath` and `ownfiles`), who is at its other end (`peercred`), who of them may command (`commanders`), and
where such sockets live (`rundir`); systemd, which is made to run a daemon (`systemd`), and is told how it stands
(`notify`, `watchdog`)."""
