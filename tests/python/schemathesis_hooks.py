"""Directs random requests to a model, a collection and documents that exist, so that they get past the lookup of names."""

import schemathesis

MODEL = "all-MiniLM-L6-v2"
COLLECTION = "contract"
# These would remove the collection, or create others.
OTHER_NAMES = {"createCollection", "deleteCollection"}


def operation_id(context):
    return context.operation.definition.raw.get("operationId")


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    if path_parameters and "name" in path_parameters and operation_id(context) not in OTHER_NAMES:
        path_parameters["name"] = COLLECTION
    return path_parameters


@schemathesis.hook
def map_body(context, body):
    """Names the model that is loaded, unless the name is one that no model can have."""
    if isinstance(body, dict) and operation_id(context) in {"createEmbeddings", "createCollection"}:
        if isinstance(body.get("model"), str) and body["model"]:
            body["model"] = MODEL
    return body


@schemathesis.hook
def filter_case(context, case):
    """No request is invalid for a header that the contract does not name: clients and proxies send their own."""
    return "x-schemathesis-unknown-property" not in (case.headers or {})


@schemathesis.deserializer("application/x-ndjson", "text/event-stream")
def read_text(context, response):
    return response.content.decode()
