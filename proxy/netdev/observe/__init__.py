"""What there is: links and addresses by netlink, devices by sysfs, containers by Docker, as `records`."""
