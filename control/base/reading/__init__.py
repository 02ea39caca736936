"""How configuration files are read, by the control plane and by the proxy: YAML with line numbers (`yamlmap`), types
that say what is allowed (`decode`, `units`, `addresses`, and `keys` made of them), and every problem of a file reported
at once (`files`)."""
