# Each target makes .venv when it is missing or older than pyproject.toml or the version, and, as root on Debian, installs
# the packages it needs when they are missing. PYTHON=/path/to/python picks another interpreter.
.PHONY: venv core demo test test-all test-docker bench-containers installs wheels deb lock lint bench fuzz sanitizers vm clean
.DEFAULT_GOAL := help

BIN := .venv/bin
NETNS := ip:iproute2 tc:iproute2 ss:iproute2 nft:nftables
REDIS := redis-server:redis-server redis-benchmark:redis-tools
COMPILER := gcc:gcc gcc:libc6-dev
BROWSER := chromium:chromium chromedriver:chromium-driver

PLAIN := HOSTLANE_PURE=1

# More test processes than cores: tests also wait for others. A module's tests stay in one process; the
# longest modules come first (tests/conftest.py). WORKERS=0: all in one.
WORKERS = $(shell n=$$(($$(nproc) * 3 / 2)); echo $$((n > 12 ? 12 : n)))
SPREAD = --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

help:
	@echo "make demo    a control server, two hosts that join, one Redis: a table of what the mesh costs and saves"
	@echo "make test    all tests, on all cores (those that need root skip without; ARGS=\"tests/mux -k credit\" goes to pytest)"
	@echo "make test-all  the same, and the whole of what make test does a part of: a thousand last words for each pair of sockets"
	@echo "make test-docker  doors, containers, the image and the Compose files on real Docker engines, two of its own (root, Debian; it takes long, 700 MB in build/; QUICK=1: the part that .ci/run does, a minute)"
	@echo "make bench-containers  on such engines: how long each restart is felt, and what ways into a container cost (QUICK=1: whether it works)"
	@echo "make lint    ruff and mypy --strict"
	@echo "make bench   side by side with HAProxy and Envoy (QUICK=1: the core of it, under 3 minutes)"
	@echo "make fuzz    what peers may say, fuzzed for a minute each (SECONDS=600: longer; needs atheris, which it installs)"
	@echo "make sanitizers  the compiled core with AddressSanitizer and UBSan: what peers may say, both ends of links, random schedules"
	@echo "make vm      hostlane net and check on VLANs, SR-IOV, modules, the units under systemd, in emulated machines (root, Debian; 20 minutes, 700 MB in build/; ARGS=\"systemd\": that one only)"
	@echo "make venv    only the virtual environment, in .venv, with the compiled core"
	@echo "make core    compile the core again where its sources have changed (docs/building.md)"
	@echo "make installs  the source distribution in empty environments, with and without a compiler"
	@echo "make wheels  dist/: source distribution, plain wheel, compiled wheels for each CPython >= 3.11 of this machine"
	@echo "make deb     dist/: a Debian package, tried in a clean root (root, Debian; QUICK=1: only tried, as .ci/run does)"
	@echo "make lock    .ci/locks/: what the image is built with, pinned with hashes (ARGS=--upgrade: the newest of all)"
	@echo "make clean   remove .venv and everything generated"

venv: core

core: .venv/.stamp
	@.ci/core

.venv/.stamp: pyproject.toml control/base/version.py .ci/venv
	@.ci/venv test,lint,build
	@touch $@

.venv/.stamp-bench: .venv/.stamp
	@.ci/venv bench
	@touch $@

.venv/.stamp-wheels: .venv/.stamp
	@.ci/venv wheels
	@touch $@

.venv/.stamp-deb: .venv/.stamp
	@.ci/venv deb
	@touch $@

.venv/.stamp-lock: .venv/.stamp
	@.ci/venv lock
	@touch $@

.venv/.stamp-fuzz: .venv/.stamp
	@.ci/venv fuzz
	@touch $@

demo: core
	@.ci/packages $(NETNS) $(REDIS)
	@$(BIN)/hostlane demo

# Plain, where the modules are tested themselves (HOSTLANE_WHOLE: everything); then everything, compiled, as it is installed by
# default. The last line is the summary of that.
test: core
	@.ci/packages $(NETNS) conntrack:conntrack mount:mount sysctl:procps openssl:openssl curl:curl jq:jq sqlite3:sqlite3 systemd-analyze:systemd \
		etcd:etcd-server prometheus:prometheus promtool:prometheus $(REDIS) $(COMPILER) $(BROWSER)
	@failed=0; $(if $(ARGS),,HOSTLANE_REQUIRE_CORE=python $(PLAIN) $(BIN)/pytest $(SPREAD) \
			$(if $(HOSTLANE_WHOLE),,tests/core tests/mux tests/pump) || failed=1;) \
		HOSTLANE_REQUIRE_CORE=compiled $(BIN)/pytest $(if $(filter tests/%,$(ARGS)),,$(SPREAD) --ignore=tests/docker) $(ARGS) || failed=1; exit $$failed

test-all: export HOSTLANE_WHOLE = 1
test-all: test

DOCKER := $(NETNS) $(REDIS) dockerd:docker.io mount:mount bridge:iproute2 nsenter:util-linux

# By itself, as it takes longer than all its neighbours, and engines of its own. A whole run tries services that the quick one
# does without.
test-docker: .venv/.stamp
	@.ci/packages $(DOCKER) $(COMPILER) $(if $(QUICK),,nginx:nginx-light pgbench:postgresql curl:curl mmdebstrap:mmdebstrap \
		dpkg-deb:dpkg etcdctl:etcd-client etcd:etcd-server)
	@$(PLAIN) $(if $(QUICK),HOSTLANE_QUICK=1) $(BIN)/pytest -n0 $(if $(QUICK),-m essential) $(or $(ARGS),tests/docker)

bench-containers: core
	@.ci/packages $(DOCKER) $(COMPILER)
	@$(BIN)/python -m tests.docker.bench $(if $(QUICK),--quick)

installs: core
	@.ci/installs

wheels: core .venv/.stamp-wheels
	@.ci/wheels

deb: core .venv/.stamp-deb
	@.ci/packages mmdebstrap:mmdebstrap dpkg-deb:dpkg systemd-analyze:systemd $(COMPILER)
	@$(if $(QUICK),QUICK=1) .ci/deb

lock: .venv/.stamp-lock
	@.ci/lock $(ARGS)

lint: .venv/.stamp
	@$(BIN)/ruff check .
	@$(BIN)/mypy

bench: core .venv/.stamp-bench
	@.ci/packages $(NETNS) $(COMPILER) haproxy:haproxy
	@$(BIN)/python -m benchmarks $(if $(QUICK),--quick) $(ARGS)

sanitizers: core
	@.ci/packages $(COMPILER)
	@.ci/sanitizers $(ARGS)

fuzz: .venv/.stamp-fuzz
	@for target in hello mark session; do \
		$(PLAIN) $(BIN)/python -m tests.fuzz $$target -max_total_time=$(or $(SECONDS),60) $(ARGS) || exit 1; done

vm: .venv/.stamp
	@.ci/packages mmdebstrap:mmdebstrap cpio:cpio
	@$(BIN)/python -m tests.vm $(ARGS)

clean:
	rm -rf .venv build dist .fuzz benchmarks/build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	find proxy -name '*.core-*.so' -exec rm -f {} +
