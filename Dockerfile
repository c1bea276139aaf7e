# The operator's image. Without arguments it runs the worker, as the legacy image did; the Deployment passes `operator`.
# Any Debian or Ubuntu with Python 3.11 or newer can be the base image, for example where no registry can be reached:
#   docker build --build-arg BASE_IMAGE=my-debian .
ARG BASE_IMAGE=python:3.12-slim-bookworm

FROM ${BASE_IMAGE} AS build
# Debian's python3 has no pip; Python's own images do.
RUN python3 -m pip --version >/dev/null 2>&1 \
    || { apt-get update -qq && apt-get install -qq --yes --no-install-recommends python3-pip >/dev/null; }
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
# Two environments without pip: one builds the wheel, the other one is copied into the image.
RUN python3 -m venv --without-pip /opt/build && python3 -m venv --without-pip /opt/queueworker
WORKDIR /src
COPY requirements.txt requirements-build.txt ./
# The optional secret `ca` is a bundle of certificate authorities, for a package index with a private one:
#   --secret id=ca,src=/etc/ssl/certs/ca-certificates.crt
RUN --mount=type=secret,id=ca \
    if [ -s /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca SSL_CERT_FILE=/run/secrets/ca; fi; \
    install() { python3 -m pip --python "$1/bin/python" install --quiet --no-compile --only-binary :all: --require-hashes \
      -r "$2"; }; \
    install /opt/build requirements-build.txt && install /opt/queueworker requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY operator ./operator
RUN /opt/build/bin/hatchling build --target wheel --directory /dist \
    && python3 -m pip --python /opt/queueworker/bin/python install --quiet --no-compile --no-index --no-deps /dist/*.whl
# No tests of other projects, byte code that holds no times, and one time for all files, so that the same input makes the
# same layer. Byte code is made here, because nothing can be written at run time, and with -f: pip imports some of the
# packages, and compileall would keep the byte code that this leaves, which holds the time of the installation.
ARG SOURCE_DATE_EPOCH=0
RUN find /opt/queueworker -type d -name tests -path '*/site-packages/*' -prune -exec rm -r {} + \
    && PYTHONHASHSEED=0 /opt/queueworker/bin/python -m compileall -f -q --invalidation-mode unchecked-hash /opt/queueworker/lib \
    && mkdir -p /layer/opt && mv /opt/queueworker /layer/opt/ \
    && find /layer -exec touch --no-dereference --date="@${SOURCE_DATE_EPOCH}" {} +

FROM ${BASE_IMAGE}
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="queueworker-operator" \
      org.opencontainers.image.description="Routes tasks from a legacy HTTP queue to a pool of executors, and loses none." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /layer/ /
# Nothing is written at run time, so the root file system may be read-only.
ENV PATH=/opt/queueworker/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# The user is a number, because Kubernetes checks runAsNonRoot without reading /etc/passwd. It has no entry there, so
# Python's getpass, which kopf calls, needs LOGNAME.
ENV LOGNAME=queueworker
USER 65532:65532
EXPOSE 8084
# Docker asks; Kubernetes has probes of its own.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["queueworker", "healthcheck"]
ENTRYPOINT ["queueworker"]
CMD ["worker"]
