# docker build -t hostlane .
# docker build --build-arg HOSTLANE_COMPILE=never -t hostlane .     with the plain core, without a compiler: docs/building.md
FROM python:3.11-slim AS build
ARG HOSTLANE_COMPILE=always
# Python's own headers are in the image; a compiler is not.
RUN [ "$HOSTLANE_COMPILE" = never ] || { apt-get update -qq && apt-get install -y -qq --no-install-recommends gcc libc6-dev; }
WORKDIR /src
COPY pyproject.toml setup.py MANIFEST.in README.md hostlane.py ./
COPY proxy proxy
COPY control control
RUN python -m venv /opt/hostlane && /opt/hostlane/bin/pip install --no-cache-dir --quiet .

FROM python:3.11-slim
# A fixed id, so that files shared with other containers and with the host can be given to it.
RUN groupadd --gid 7600 hostlane \
 && useradd --uid 7600 --gid 7600 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin hostlane \
 && install -d -o hostlane -g hostlane -m 0700 /run/hostlane /run/hostlane-control \
 && install -d -o hostlane -g hostlane -m 0755 /run/hostlane-services /run/hostlane-telemetry \
 && install -d -o hostlane -g hostlane -m 0700 /var/lib/hostlane /var/lib/hostlane-control \
 && install -d -m 0755 /etc/hostlane
# The public image has the standard library as text alone, and this user can keep nothing: each start would compile it
# anew, and take twice the time. 12 MB.
RUN python -m compileall -q -x '/(site-packages|ensurepip|idlelib|lib2to3|pydoc_data|tests?|tkinter|turtledemo)/' \
 "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
COPY --from=build /opt/hostlane /opt/hostlane
# What `hostlane version` says the image was built from: --build-arg HOSTLANE_COMMIT=$(git rev-parse HEAD)
ARG HOSTLANE_COMMIT=
ENV PATH=/opt/hostlane/bin:$PATH PYTHONDONTWRITEBYTECODE=1 HOSTLANE_COMMIT=$HOSTLANE_COMMIT
USER hostlane
# The sockets that other containers call services through; and, with a control plane, this host's certificate and its last
# map (state_dir), which must outlive the container. A fresh named volume takes this folder's owner. The sockets that command
# (/run/hostlane) are nobody else's: no volume.
VOLUME ["/run/hostlane-services", "/var/lib/hostlane"]
# Whether this host can accept and deliver, whatever other hosts do. -I -S: a start of Python without its site packages.
COPY proxy/telemetry/probe.py /opt/hostlane/probe
HEALTHCHECK --interval=5s --timeout=5s --start-period=10s --retries=3 \
 CMD ["/usr/local/bin/python3", "-I", "-S", "/opt/hostlane/probe", "ready"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["hostlane"]
CMD ["proxy", "--config", "/etc/hostlane/hostlane.yaml"]
