"""How a host gets its certificate from the control plane, and keeps it in force: `join` by a token, once; `keeper` from
then on, which renews it and carries out what the control plane says about trust. The files are `statedir`'s.
"""
