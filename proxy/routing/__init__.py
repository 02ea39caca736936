"""Where a call may go: an immutable table (sans-IO), and the order in which its hosts are tried."""
