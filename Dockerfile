# Two images from one file. `docker build -t perdure .` makes the server's: `perdure` as an unprivileged user, on an SQLite
# file in /data or on PostgreSQL (PERDURE_STORE). `--target worker` adds an application and runs it.

FROM python:3.13-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore UV_PYTHON_DOWNLOADS=never
WORKDIR /build
COPY requirements/uv.txt requirements/server.txt requirements/
RUN python -m venv /opt/perdure \
    && python -m pip install --require-hashes -r requirements/uv.txt \
    && /opt/perdure/bin/python -m pip install --require-hashes -r requirements/server.txt
COPY pyproject.toml README.md LICENSE ./
COPY src src
COPY docs src/perdure/docs
# The wheel brings the programs; its dependencies are there, each with the hash that we tested.
RUN uv build --wheel --out-dir dist \
    && /opt/perdure/bin/python -m pip install --no-deps --no-index dist/*.whl \
    && /opt/perdure/bin/python -m pip uninstall --yes pip

FROM python:3.13-slim-bookworm AS base
LABEL org.opencontainers.image.title="Perdure" \
      org.opencontainers.image.description="Durable execution for Python: workflows and agents that never lose their place." \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --uid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin perdure \
    && install --directory --owner=10001 --group=10001 /data
COPY --from=build /opt/perdure /opt/perdure
ENV PATH=/opt/perdure/bin:$PATH PYTHONDONTWRITEBYTECODE=1
WORKDIR /data
USER 10001:10001
ENTRYPOINT ["perdure"]

# Your application instead of deploy/app.py; name the servers and a key by PERDURE_URL and PERDURE_API_KEY.
FROM base AS worker
COPY deploy/app.py /app/app.py
CMD ["work", "/app/app.py"]

FROM base AS server
ENV PERDURE_HOST=0.0.0.0 PERDURE_PORT=8080
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/ready', timeout=4)"]
CMD ["serve"]
