# docker build -t hostlane .
#   --build-arg BASE=…                                        another image with Python >= 3.11 and Debian's tools
#   --build-arg HOSTLANE_COMPILE=never                        with the plain core, without a compiler: docs/building.md
#   --build-arg HOSTLANE_COMMIT=$(git rev-parse HEAD)         what `hostlane version` says that it was built from
# One image for proxy, door, control server and every command; any builder of Docker >= 20.10 will do: docs/image.md.
ARG BASE=python:3.11-slim

FROM ${BASE} AS build
ARG HOSTLANE_COMPILE=always
# Python's own headers are in the public image; a compiler is not.
RUN [ "$HOSTLANE_COMPILE" = never ] \
 || { headers=$(python3 -c 'import os, sysconfig; print(os.path.exists(sysconfig.get_path("include") + "/Python.h"))') \
 &&   apt-get update -qq \
 &&   if [ "$headers" = True ]; then set -- gcc libc6-dev; else set -- gcc libc6-dev python3-dev; fi \
 &&   apt-get install -y -qq --no-install-recommends "$@"; }
# What builds is in /opt/tools, and stays in this stage; what runs is in /opt/hostlane, and has no pip.
COPY .ci/locks /src/.ci/locks
WORKDIR /src
RUN python3 -m venv /opt/tools && python3 -m venv --without-pip /opt/hostlane \
 && /opt/tools/bin/pip install --no-cache-dir --quiet --only-binary :all: --require-hashes -r .ci/locks/build.txt \
 && /opt/tools/bin/pip --python /opt/hostlane/bin/python3 install \
    --no-cache-dir --no-compile --quiet --only-binary :all: --require-hashes -r .ci/locks/runtime.txt
COPY pyproject.toml setup.py MANIFEST.in README.md hostlane.py ./
COPY proxy proxy
COPY control control
RUN /opt/tools/bin/pip wheel --no-cache-dir --quiet --no-deps --no-build-isolation --no-index --wheel-dir /wheel . \
 && /opt/tools/bin/pip --python /opt/hostlane/bin/python3 install \
    --no-cache-dir --no-compile --quiet --no-deps --no-index /wheel/*.whl \
 && /opt/tools/bin/pip --python /opt/hostlane/bin/python3 check \
# Without commands of what Hostlane is made of, its tests, and the languages that rich could colour (3 MB); what nothing
# here imports is not compiled (5 MB).
 && find /opt/hostlane/bin -type f ! -name hostlane -delete \
 && find /opt/hostlane/lib -type d '(' -name tests -o -name _tests ')' -prune -exec rm -rf {} + \
 && find /opt/hostlane/lib -path '*/pygments/lexers/[a-z]*.py' -delete \
 && /opt/hostlane/bin/python3 -m compileall -q -x '/(pygments|markdown_it|mdurl|cffi|pycparser)/' /opt/hostlane/lib \
 && cp proxy/telemetry/probe.py /opt/hostlane/probe

FROM ${BASE}
# Nothing is installed here any more. In the public image pip and setuptools are Python's own, in Debian's its wheels.
RUN site=$(python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"))') \
 && standard=$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))') \
 && rm -rf "$site"/pip "$site"/pip-* "$site"/setuptools "$site"/setuptools-* "$site"/wheel "$site"/wheel-* \
    "$site"/pkg_resources "$site"/_distutils_hack "$site"/distutils-precedence.pth "$standard"/ensurepip \
    /usr/local/bin/pip* /usr/local/bin/wheel /usr/share/python-wheels \
# The public image has the standard library as text alone, and this user can keep nothing: each start would compile it
# anew, and take twice the time. 10 MB.
 && unused='site-packages|dist-packages|curses|distutils|idlelib|lib2to3|pydoc_data|tests?|tkinter|turtledemo|unittest|venv' \
 && python3 -m compileall -q -x "/($unused|wsgiref|xmlrpc)/" "$standard" \
# A fixed id, so that files shared with other containers and with the host can be given to it.
 && groupadd --gid 7600 hostlane \
 && useradd --uid 7600 --gid 7600 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin hostlane \
# Fresh named volumes take owner and mode of these.
 && install -d -o hostlane -g hostlane -m 0700 /run/hostlane /run/hostlane-control \
 && install -d -o hostlane -g hostlane -m 0755 /run/hostlane-services /run/hostlane-telemetry \
 && install -d -o hostlane -g hostlane -m 0700 /var/lib/hostlane /var/lib/hostlane-control \
 && install -d -o root -g hostlane -m 0750 /run/hostlane-door \
 && install -d -m 0755 /etc/hostlane
COPY --from=build /opt/hostlane /opt/hostlane
ENV PATH=/opt/hostlane/bin:$PATH PYTHONDONTWRITEBYTECODE=1
# By number: an engine that is told to run nothing as root knows that this is another user.
USER 7600:7600
# The sockets that other containers call services through; and, with a control plane, this host's certificate and its last
# map (state_dir), which must outlive the container. The sockets that command (/run/hostlane) are nobody else's: no volume.
VOLUME ["/run/hostlane-services", "/var/lib/hostlane"]
# Whether this host can accept and deliver, whatever other hosts do. -I -S: a start of Python without its site packages.
# Without --start-interval, which builders before Docker 25 refuse: Compose files say it (docs/image.md).
HEALTHCHECK --interval=5s --timeout=5s --start-period=10s --retries=3 \
 CMD ["/opt/hostlane/bin/python3", "-I", "-S", "/opt/hostlane/probe", "ready"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["hostlane"]
CMD ["proxy", "--config", "/etc/hostlane/hostlane.yaml"]
ARG BASE
ARG HOSTLANE_COMMIT=
ENV HOSTLANE_COMMIT=$HOSTLANE_COMMIT
LABEL org.opencontainers.image.title="Hostlane" \
      org.opencontainers.image.description="One proxy per host: containers talk over Unix sockets, hosts over a few long-lived links." \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="$HOSTLANE_COMMIT" \
      org.opencontainers.image.base.name="$BASE"
