"""The way a message takes when Docker's default network carries it: bridge, NAT, connection tracking, filter chains.

Rules and addresses are those of dockerd (iptables-nft) for its default bridge with one container, whose published ports
are forwarded by DNAT. docker-proxy is left out: it carries only a host's own loopback traffic.
"""

from __future__ import annotations

from proxy.demo import netns

GATEWAY = "172.17.0.1"
CONTAINER = "172.17.0.2"

_RULES = """
table ip nat {
    chain DOCKER {
        iifname "docker0" counter return
    }
    chain PREROUTING {
        type nat hook prerouting priority dstnat; policy accept;
        fib daddr type local counter jump DOCKER
    }
    chain OUTPUT {
        type nat hook output priority -100; policy accept;
        ip daddr != 127.0.0.0/8 fib daddr type local counter jump DOCKER
    }
    chain POSTROUTING {
        type nat hook postrouting priority srcnat; policy accept;
        oifname != "docker0" ip saddr 172.17.0.0/16 counter masquerade
    }
}
table ip filter {
    chain DOCKER {
    }
    chain DOCKER-USER {
        counter return
    }
    chain DOCKER-ISOLATION-STAGE-2 {
        oifname "docker0" counter drop
        counter return
    }
    chain DOCKER-ISOLATION-STAGE-1 {
        iifname "docker0" oifname != "docker0" counter jump DOCKER-ISOLATION-STAGE-2
        counter return
    }
    chain FORWARD {
        type filter hook forward priority filter; policy drop;
        counter jump DOCKER-USER
        counter jump DOCKER-ISOLATION-STAGE-1
        oifname "docker0" ct state established,related counter accept
        oifname "docker0" counter jump DOCKER
        iifname "docker0" oifname != "docker0" counter accept
        iifname "docker0" oifname "docker0" counter accept
    }
}
"""


def build(machine: str, container: str) -> None:
    """Join a container's namespace to docker0 in the machine's, with dockerd's rules and one container's address."""
    commands = [
        f"ip -n {machine} link add docker0 type bridge",
        f"ip -n {machine} addr add {GATEWAY}/16 dev docker0",
        f"ip -n {machine} link set docker0 up",
        f"ip link add veth0 netns {machine} type veth peer name eth0 netns {container}",
        f"ip -n {machine} link set veth0 master docker0 up",
        f"ip -n {container} addr add {CONTAINER}/16 dev eth0",
        f"ip -n {container} link set eth0 up",
        f"ip -n {container} route add default via {GATEWAY}",
    ]
    for command in commands:
        netns.run(command.split())
    netns.run(netns.inside(machine, ["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]))
    _nft(machine, _RULES)


def publish(machine: str, port: int, container_port: int) -> None:
    """What ``docker run -p PORT:CONTAINER_PORT`` adds (TCP)."""
    target = f"{CONTAINER}:{container_port}"
    allowed = f'ip daddr {CONTAINER} iifname != "docker0" oifname "docker0" tcp dport {container_port} counter accept'
    hairpin = f"ip saddr {CONTAINER} ip daddr {CONTAINER} tcp dport {container_port} counter masquerade"
    _nft(
        machine,
        f'add rule ip nat DOCKER iifname != "docker0" tcp dport {port} counter dnat to {target}\n'
        f"add rule ip nat POSTROUTING {hairpin}\n"
        f"add rule ip filter DOCKER {allowed}\n",
    )


def _nft(machine: str, script: str) -> None:
    netns.run(netns.inside(machine, ["nft", "-f", "-"]), stdin=script)
