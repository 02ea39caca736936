"""What the control plane and the proxy both need of the machine: logs on stderr (`logs`), accepting clients whatever
it says (`accepting`), and the life of a listening Unix socket (`unixsock`, with `socketpath` and `ownfiles`)."""
