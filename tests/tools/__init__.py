"""What tests of the running proxy share: processes, servers, clients."""
