# The operator's image. With no arguments it runs the worker, as the legacy image did; the Deployment says `operator`.
# Any Debian or Ubuntu with Python 3.11 or newer will do as base, for example one without a registry in reach:
#   docker build --build-arg BASE_IMAGE=my-debian .
ARG BASE_IMAGE=python:3.12-slim-bookworm

FROM ${BASE_IMAGE} AS build
WORKDIR /src
COPY requirements.txt pyproject.toml README.md ./
COPY operator ./operator
# `ca`, if given, is a bundle of certificate authorities for a package index with one of its own:
#   --secret id=ca,src=/etc/ssl/certs/ca-certificates.crt
# pip is bootstrapped where the base has none (Debian's python3 comes without it).
RUN --mount=type=secret,id=ca,required=false \
    set -e; \
    if [ -s /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca SSL_CERT_FILE=/run/secrets/ca; fi; \
    python3 -m pip --version >/dev/null 2>&1 || { \
      apt-get update -qq && apt-get install -qq --no-install-recommends -y python3-pip >/dev/null; }; \
    export PIP_BREAK_SYSTEM_PACKAGES=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore; \
    python3 -m pip install --quiet --require-hashes --target /app -r requirements.txt; \
    cp -r operator/queueworker /app/queueworker; \
    python3 -m compileall -q /app

FROM ${BASE_IMAGE}
LABEL org.opencontainers.image.title="queueworker-operator" \
      org.opencontainers.image.description="Routes tasks from a legacy HTTP queue to a pool of executors" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /app /app
# nothing is written at run time: the root file system may be read-only
ENV PYTHONPATH=/app PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 65532:65532
EXPOSE 8084
ENTRYPOINT ["python3", "-m", "queueworker.cli"]
CMD ["worker"]
