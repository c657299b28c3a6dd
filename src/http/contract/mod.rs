//! The contract: the OpenAPI document of the documented routes.
//!
//! Contains: what all operations share. Must not contain: the schema of one feature. The one idea: a handler's attribute lists the
//! responses and headers of that handler, and this module adds those of admission and the descriptions of headers.

mod headers;
pub(super) mod schemas;

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use utoipa::OpenApi as _;
use utoipa::ToSchema as _;
use utoipa::openapi::path::{Operation, Parameter};
use utoipa::openapi::schema::{Schema, SchemaType, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Content, OpenApi, Ref, RefOr, ResponseBuilder};

use super::error_response::{ErrorBody, MessagesErrorBody};
use super::label_value::ReasonLabel;
use super::routes::{Access, RouteTable, Routes};

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Likewise",
        description = "One server between an application and its models that never pays twice for the same work."
    ),
    components(schemas(MessagesErrorBody, ReasonLabel))
)]
struct Contract;

/// What the document calls the API key.
const KEY_SCHEME: &str = "api_key";

/// The document without routes.
pub(super) fn frame() -> OpenApi {
    Contract::openapi()
}

/// The route of the document itself. Its state is the document as JSON.
pub(super) fn routes() -> Routes<Arc<str>> {
    Routes::new().add_undocumented(Access::Public, "/openapi.json", get(serve))
}

async fn serve(State(document): State<Arc<str>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], document.to_string())
}

/// The document of a table as JSON.
pub(super) fn json(table: &RouteTable) -> String {
    let mut contract = table.contract();
    let access = table.routes().iter().map(|route| (&*route.pattern, route.access)).collect();
    add_admission(&mut contract, &access);
    let mut json = contract.to_pretty_json().expect("the contract is made of plain values: this is a bug");
    json.push('\n');
    json
}

/// What a route needs for admission to refuse a request with a response.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    Key,
    Permit,
    Body,
    OtherNode,
}

/// The responses of admission. The attribute of a handler has the status code too where the handler adds causes of its own.
const REFUSALS: [(Need, &str, &str); 10] = [
    (Need::Key, "401", "The server has keys, and the request has none of them"),
    (
        Need::Key,
        "403",
        "The server has no keys, and the request comes from a page of another site or names the server by a foreign host name",
    ),
    (Need::Key, "500", "The server failed; its log has the cause"),
    (Need::Body, "408", "The client sends the body too slowly"),
    (Need::Body, "413", "The body exceeds a limit of the server"),
    (Need::Body, "415", "The server does not decode the content coding of the body"),
    (
        Need::OtherNode,
        "421",
        "Another node has the collection, and no address to which the request could be passed on",
    ),
    (
        Need::OtherNode,
        "503",
        "Another node has the collection and cannot be reached, or which one has it cannot be found out",
    ),
    (Need::Permit, "429", "The server is at a limit of requests or bytes in flight"),
    (Need::Permit, "504", "The response took longer than `http.request_timeout_seconds`"),
];

/// What the paths begin with whose requests may be for another node.
const OF_ONE_NODE: &str = "/v1/collections/{name}";

/// Adds the credential that routes take, the responses with which admission refuses requests, and the headers of all responses.
fn add_admission(contract: &mut OpenApi, access: &HashMap<&str, Access>) {
    let scheme = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
    contract.components.get_or_insert_default().add_security_scheme(KEY_SCHEME, scheme);
    for (pattern, item) in &mut contract.paths.paths {
        let (access, is_elsewhere) = (access[pattern.as_str()], pattern.starts_with(OF_ONE_NODE));
        let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.patch, &mut item.delete];
        for operation in operations.into_iter().flatten() {
            if access.takes_key() {
                // The empty requirement stands for a server without keys.
                let key = SecurityRequirement::new(KEY_SCHEME, Vec::<String>::new());
                operation.security = Some(vec![key, SecurityRequirement::default()]);
            }
            add_refusals(operation, access, is_elsewhere);
            if is_elsewhere {
                headers::add_node(&mut operation.responses);
            }
            operation.parameters.iter_mut().flatten().for_each(remove_null);
            headers::describe(&mut operation.responses);
        }
    }
}

/// A header or a query has no `null`: a parameter that may be left out is not one that may be `null`.
fn remove_null(parameter: &mut RefOr<Parameter>) {
    if let RefOr::T(Parameter { schema: Some(RefOr::T(Schema::Object(object))), .. }) = parameter
        && let SchemaType::Array(types) = &mut object.schema_type
    {
        types.retain(|kind| *kind != Type::Null);
        if let [only] = &types[..] {
            object.schema_type = SchemaType::Type(only.clone());
        }
    }
}

/// The schema of the errors of an operation: that of its malformed requests, if it has any.
fn error_schema(operation: &Operation) -> RefOr<Schema> {
    let malformed = match operation.responses.responses.get("400") {
        Some(RefOr::T(response)) => response.content.get("application/json"),
        Some(RefOr::Ref(_)) | None => None,
    };
    let own = malformed.and_then(|content| match content {
        RefOr::T(content) => content.schema.clone(),
        RefOr::Ref(_) => None,
    });
    own.unwrap_or_else(|| Ref::from_schema_name(ErrorBody::name()).into())
}

fn add_refusals(operation: &mut Operation, access: Access, is_elsewhere: bool) {
    let schema = error_schema(operation);
    for (need, status, description) in REFUSALS {
        let is_needed = match need {
            Need::Key => access.needs_key() || (access.takes_key() && status == "401"),
            Need::Permit => access.needs_permit(),
            Need::OtherNode => is_elsewhere,
            Need::Body => access.needs_key() && operation.request_body.is_some(),
        };
        if is_needed {
            let body = Content::new(Some(schema.clone()));
            let response = ResponseBuilder::new().description(description).content("application/json", body);
            let responses = &mut operation.responses.responses;
            responses.entry(status.to_owned()).or_insert_with(|| response.build().into());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use serde_json::Value;

    use crate::http::openapi;
    use crate::search::{self, ID_BYTES_MAX};
    use crate::service::collections::{self, LIMIT_MAX};
    use crate::service::invalidation::NAMES_MAX;
    use crate::service::objects::{BATCH_MAX, TAGS_MAX};

    /// The operations of the document, with their paths.
    fn operations(contract: &Value) -> Vec<(&str, &Value)> {
        let paths = contract["paths"].as_object().unwrap().iter();
        let of_path = |(path, item)| {
            let (path, item): (&String, &Value) = (path, item);
            item.as_object().unwrap().values().map(move |operation| (&**path, operation))
        };
        paths.flat_map(of_path).collect()
    }

    #[test]
    fn each_operation_has_a_camel_case_id_of_its_own() {
        let contract: Value = serde_json::from_str(&openapi()).unwrap();
        let operations = operations(&contract);
        let ids: Vec<&str> =
            operations.iter().map(|(_, operation)| operation["operationId"].as_str().unwrap()).collect();
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len(), "{ids:?}");
        assert!(ids.len() > 20, "{ids:?}");
        for id in ids {
            let is_camel_case = id.starts_with(|first: char| first.is_ascii_lowercase())
                && id.chars().all(|letter| letter.is_ascii_alphanumeric());
            assert!(is_camel_case, "{id}");
        }
    }

    #[test]
    fn each_response_parameter_and_header_has_a_description() {
        let contract: Value = serde_json::from_str(&openapi()).unwrap();
        let check = |value: &Value, place: &str| {
            let description = value["description"].as_str().unwrap_or_default();
            assert!(!description.trim().is_empty(), "no description: {place}: {value}");
        };
        for (path, operation) in operations(&contract) {
            assert!(operation["summary"].as_str().is_some_and(|summary| !summary.is_empty()), "{path}");
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                check(parameter, path);
            }
            for (status, response) in operation["responses"].as_object().unwrap() {
                check(response, &format!("{path} {status}"));
                let headers = response["headers"].as_object().unwrap();
                headers.iter().for_each(|(name, header)| check(header, name));
            }
        }
    }

    #[test]
    fn limits_of_lists_are_those_of_the_types() {
        let contract: Value = serde_json::from_str(&openapi()).unwrap();
        let list = |name: &str, field: &str| {
            contract["components"]["schemas"][name]["properties"][field]["maxItems"].as_u64().unwrap()
                as usize
        };
        for name in ["GiveRequest", "LookupRequest", "PutObject"] {
            assert_eq!(list(name, "tags"), TAGS_MAX, "{name}");
        }
        for field in ["get", "put", "delete"] {
            assert_eq!(list("BatchRequest", field), BATCH_MAX, "{field}");
        }
        for field in ["tags", "keys"] {
            assert_eq!(list("InvalidateRequest", field), NAMES_MAX, "{field}");
        }
    }

    #[test]
    fn limits_of_collections_are_the_default_options() {
        let contract: Value = serde_json::from_str(&openapi()).unwrap();
        let limit = |name: &str, field: &str, keyword: &str| {
            let schema = &contract["components"]["schemas"][name]["properties"][field];
            let limit = schema[keyword].as_u64().unwrap_or_else(|| panic!("{name}.{field}: {schema}"));
            usize::try_from(limit).unwrap()
        };
        let options = collections::Options::default();
        for (name, field, keyword, expected) in [
            ("UpsertRequest", "documents", "maxItems", options.documents_max),
            ("DeleteRequest", "ids", "maxItems", options.documents_max),
            ("SearchRequest", "k", "maximum", options.k_max),
            ("SearchRequest", "ef", "maximum", options.ef_max),
            ("SearchRequest", "queries", "maxItems", options.queries_max),
            ("SearchRequest", "vectors", "maxItems", options.queries_max),
            ("CollectionSpec", "dimensions", "maximum", options.dimensions_max),
            ("DocumentInput", "id", "maxLength", ID_BYTES_MAX),
            ("DocumentInput", "tags", "maxItems", search::TAGS_MAX),
            ("DocumentPatchInput", "tags", "maxItems", search::TAGS_MAX),
        ] {
            assert_eq!(limit(name, field, keyword), expected, "{name}.{field}");
        }
        let list = &contract["paths"]["/v1/collections/{name}/documents"]["get"]["parameters"];
        let parameter =
            |name: &str| list.as_array().unwrap().iter().find(|known| known["name"] == name).unwrap();
        assert_eq!(parameter("limit")["schema"]["maximum"], LIMIT_MAX);
        assert_eq!(parameter("ids")["schema"]["maxItems"], LIMIT_MAX);
    }

    #[test]
    fn no_parameter_may_be_null() {
        let contract: Value = serde_json::from_str(&openapi()).unwrap();
        for (path, operation) in operations(&contract) {
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                assert!(!parameter["schema"].to_string().contains("null"), "{path}: {parameter}");
            }
        }
    }

    #[test]
    fn each_status_code_of_an_error_has_the_body_of_errors() {
        let contract: Value = serde_json::from_str(&openapi()).unwrap();
        for (path, operation) in operations(&contract) {
            let name = if path == "/v1/messages" { "MessagesErrorBody" } else { "ErrorBody" };
            let body = serde_json::json!({ "schema": { "$ref": format!("#/components/schemas/{name}") } });
            for (status, response) in operation["responses"].as_object().unwrap() {
                let is_error = status.starts_with(['4', '5']);
                assert_eq!(response["content"]["application/json"] == body, is_error, "{path} {status}");
            }
        }
    }
}
