# The worker image. Plain instructions only, so that the classic builder and BuildKit both build it.
ARG BASE_IMAGE=python:3.11-slim-bookworm
FROM ${BASE_IMAGE}

# Layer 1: the dependencies, rebuilt only when requirements/worker.txt, the base or these lines change.
# CA_BUNDLE: name of a file in the build context with the certificates that the package index is checked
# against. Unset, the second COPY source is the first one again, since COPY has no optional sources.
# PIP_INDEX_URL: another package index; no credentials in it, build arguments are kept in the image's history.
ARG CA_BUNDLE
ARG PIP_INDEX_URL
COPY requirements/worker.txt ${CA_BUNDLE:-requirements/worker.txt} /tmp/build/
RUN set -eu; \
    if [ -n "${CA_BUNDLE:-}" ]; then export PIP_CERT="/tmp/build/${CA_BUNDLE##*/}"; fi; \
    python3 -m venv /opt/venv; \
    /opt/venv/bin/python -m pip install --no-cache-dir --disable-pip-version-check --timeout 60 \
        --require-hashes --only-binary :all: --requirement /tmp/build/worker.txt; \
    /opt/venv/bin/python -m pip uninstall --yes pip setuptools; \
    find /opt/venv/lib -type d -name tests -path '*/site-packages/*' -prune -exec rm -rf {} +; \
    rm -rf /tmp/build

# Layer 2: an unprivileged user whose only writable place is /tmp (the root file system is read-only at run time).
RUN useradd --no-log-init --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin worker
ENV HOME=/tmp \
    MPLCONFIGDIR=/tmp/matplotlib \
    PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1

# Layer 3: the code, compiled here because it cannot be at run time.
COPY workflow /app/workflow
RUN python -m compileall -q --invalidation-mode unchecked-hash /app/workflow

WORKDIR /app
USER 10001:10001
ENTRYPOINT ["python", "-m", "workflow"]
CMD ["--help"]

# Last, because they differ for every commit.
ARG BASE_IMAGE
ARG COMMIT=unknown
ARG VERSION=0.0.0
LABEL org.opencontainers.image.title="datajoint-round worker" \
      org.opencontainers.image.base.name="${BASE_IMAGE}" \
      org.opencontainers.image.revision="${COMMIT}" \
      org.opencontainers.image.version="${VERSION}"
