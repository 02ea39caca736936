"""Where the control plane keeps what it must not forget: keys and values with revisions, transactions, leases and a
watch, which is what etcd has (`etcd`), and what one file can have too (`sqlite`). `base` says what a store promises."""
