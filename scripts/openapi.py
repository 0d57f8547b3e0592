"""Print the OpenAPI document, from which the dashboard's types are generated."""

import sys

import msgspec

from perdure.server.app import API_VERSION, all_routes
from perdure.server.http import openapi

if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(openapi.document(all_routes(), version=API_VERSION)))
