#!/bin/sh
# Writes requirements/*.txt anew from pyproject.toml: pinned and hashed for every supported Python and platform, bound
# to no index. Versions already pinned stay unless they no longer fit; `make lock UPGRADE=1` takes the newest.
set -eu
cd "$(dirname "$0")/.."

export UV_PYTHON_DOWNLOADS=never UV_NO_CONFIG=1 UV_SYSTEM_CERTS=1
if [ -z "${SSL_CERT_FILE:-}" ] && [ -n "${PIP_CERT:-}" ]; then export SSL_CERT_FILE="$PIP_CERT"; fi

compile() {
    # Nothing of the machine that wrote them may end up in the files.
    .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes ${UPGRADE:+--upgrade} \
        --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" "$@"
}

compile pyproject.toml --output-file requirements/base.txt
compile pyproject.toml --extra mcp --extra postgres --constraints requirements/base.txt --output-file requirements/server.txt
compile pyproject.toml --extra agents --extra mcp --extra postgres --group dev --constraints requirements/base.txt --output-file requirements/dev.txt
echo uv | compile - --output-file requirements/uv.txt
# What tests/client is played with: the existing client, as it is.
echo polos-sdk==0.1.15 | compile - --output-file requirements/existing-client.txt
