"""Where facts come from: /proc, /sys, netlink, sockets. A reader never judges, and says why where it could not read."""
