//! The contract: the OpenAPI document of the documented routes.

use std::collections::HashSet;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use utoipa::OpenApi as _;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Content, OpenApi, Ref, ResponseBuilder};

use super::routes::{Access, RouteTable, Routes};

#[derive(utoipa::OpenApi)]
#[openapi(info(
    title = "Likewise",
    description = "One server between an application and its models that never pays twice for the same work."
))]
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
    let keyed = table.routes().iter().filter(|route| route.access.needs_key());
    add_admission(&mut contract, &keyed.map(|route| &*route.pattern).collect());
    let mut json = contract.to_pretty_json().expect("the contract is made of plain values: this is a bug");
    json.push('\n');
    json
}

/// Adds the credential that these routes take, and the responses with which admission refuses their requests.
fn add_admission(contract: &mut OpenApi, keyed: &HashSet<&str>) {
    let scheme = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
    contract.components.get_or_insert_default().add_security_scheme(KEY_SCHEME, scheme);
    let refusals = [
        (
            "403",
            "Without keys: a page of another site asks, or the server is called by a name that is not this machine's",
        ),
        ("408", "The body stops coming"),
    ];
    for (pattern, item) in &mut contract.paths.paths {
        let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete];
        for operation in operations.into_iter().flatten() {
            if keyed.contains(pattern.as_str()) {
                // The empty requirement stands for a server without keys.
                let key = SecurityRequirement::new(KEY_SCHEME, Vec::<String>::new());
                operation.security = Some(vec![key, SecurityRequirement::default()]);
            }
            let takes_body = operation.request_body.is_some();
            for (status, description) in refusals {
                if keyed.contains(pattern.as_str()) && (status == "403" || takes_body) {
                    let body = Content::new(Some(Ref::from_schema_name("ErrorBody")));
                    let response =
                        ResponseBuilder::new().description(description).content("application/json", body);
                    operation.responses.responses.insert(status.to_owned(), response.build().into());
                }
            }
        }
    }
}
