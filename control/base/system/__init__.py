"""What the control plane and the proxy both need of the machine: logs on stderr (`logs`), what it says when it
cannot accept (`accepting`), and the life of a listening Unix socket (`unixsock`, with `socketpath` and `ownfiles`)."""
