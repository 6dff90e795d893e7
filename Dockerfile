# One image runs a service host (the default) or a room server:
#   docker run … meshhost room serve --host 0.0.0.0 --config config/production.toml
FROM python:3.11-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY meshhost ./meshhost
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.11-slim
COPY --from=build /wheels /wheels
WORKDIR /app
COPY constraints/versions.txt ./
# The versions that the tests ran with. Upgrade pip first: older versions find no compatible set of OpenTelemetry packages.
RUN pip install --no-cache-dir --constraint versions.txt --upgrade pip \
    && pip install --no-cache-dir --constraint versions.txt "$(echo /wheels/meshhost-*.whl)[mcp,otlp,postgres]" \
    && rm -rf /wheels
RUN useradd --create-home --uid 10001 meshhost && mkdir /data && chown meshhost /data
COPY agents ./agents
COPY config ./config
USER meshhost
ENV MESHHOST_HOST=0.0.0.0 \
    MESHHOST_PORT=8081 \
    MESHHOST_DATA_DIR=/data \
    MESHHOST_CONFIG_DIR=/data/config \
    PYTHONUNBUFFERED=1
VOLUME /data
EXPOSE 8081
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ[\"MESHHOST_PORT\"]}/readyz', timeout=2)"]
CMD ["python", "agents/storage_worker/main.py"]
