# syntax=docker/dockerfile:1
# Two stages: pip and its caches stay in the first, the second has the interpreter, the packages and the gateway.

FROM python:3.11.14-slim-bookworm AS packages
# Every package comes as a wheel, with its hash: no compiler is needed, and this layer lasts until the pins change.
COPY requirements.txt /
RUN python -m venv /opt/gateway \
    && /opt/gateway/bin/pip install --disable-pip-version-check --no-cache-dir --no-compile --only-binary=:all: \
        --require-hashes -r /requirements.txt \
    && /opt/gateway/bin/python -m compileall -q /opt/gateway/lib \
    && /opt/gateway/bin/pip uninstall --disable-pip-version-check -y setuptools pip

FROM python:3.11.14-slim-bookworm
RUN groupadd --gid 10001 gateway && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin gateway
COPY --from=packages /opt/gateway /opt/gateway
WORKDIR /srv/gateway
COPY LICENSE run.py config.toml ./
COPY server/ server/
# Compiled here, since the root is read-only later.
RUN /opt/gateway/bin/python -m compileall -q run.py server
USER 10001:10001
ENV PATH=/opt/gateway/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    APP_ENV=production \
    PORT=8000
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, ssl, urllib.request as u; s = 's' * bool(os.environ.get('GATEWAY__SERVER__TLS_CERTIFICATE')); u.build_opener(u.ProxyHandler({}), u.HTTPSHandler(context=ssl._create_unverified_context())).open(f\"http{s}://127.0.0.1:{os.environ['PORT']}/livez\", timeout=2)"]
# Without a shell between, so that SIGTERM reaches the supervisor; it reaps its workers. For orphans: `docker run --init`.
ENTRYPOINT ["python", "run.py"]
