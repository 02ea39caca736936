"""What the control plane and the proxy both need of the machine: logs on stderr (`logs`), accepting clients whatever
it says (`accepting`), how many descriptors it has (`descriptors`), and the life of a listening Unix socket (`unixsock`,
with `socketpath` and `ownfiles`)."""
