//! `docs/reference/http-api.md`, from the contract.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::{cell, compare};

const HEAD: &str = "# HTTP API

Generated from the [contract](../openapi.json), which a server serves as `/openapi.json`. [Headers](headers.md) and [errors](errors.md) have pages
of their own. Paths of the contract are below the address of the server, `http://127.0.0.1:8420` by default.
";

/// A response of that many operations is described once.
const COMMON_MIN: usize = 9;

/// What operations say of a status.
type Response<'a> = (&'a str, &'a str);

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

/// The operations by tag: method, path, and the operation.
fn operations(contract: &Value) -> BTreeMap<&str, Vec<(String, &str, &Value)>> {
    let mut by_tag: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (path, methods) in members(&contract["paths"]) {
        for (method, operation) in members(methods) {
            let tag = operation["tags"][0].as_str().unwrap();
            by_tag.entry(tag).or_default().push((method.to_uppercase(), path.as_str(), operation));
        }
    }
    by_tag
}

/// The responses that many operations share.
fn common(contract: &Value) -> Vec<Response<'_>> {
    let mut counts = BTreeMap::new();
    for (_, _, operation) in operations(contract).into_values().flatten() {
        for (status, response) in members(&operation["responses"]) {
            *counts.entry((status.as_str(), text(response, "description"))).or_insert(0) += 1;
        }
    }
    counts.retain(|_, count| *count >= COMMON_MIN);
    counts.into_keys().filter(|(status, _)| *status != "404").collect()
}

/// What a value of a schema is, in words.
fn kind(schema: &Value) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap();
        return format!("[{name}](#{})", name.to_lowercase());
    }
    let alternatives = ["oneOf", "anyOf", "allOf"].iter().find_map(|key| schema[*key].as_array());
    if let Some(alternatives) = alternatives {
        return alternatives.iter().map(kind).collect::<Vec<_>>().join(" or ");
    }
    if let Some(words) = schema["enum"].as_array() {
        return words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
    }
    if let Some(types) = schema["type"].as_array() {
        return types.iter().map(|name| one_type(name, schema)).collect::<Vec<_>>().join(" or ");
    }
    if schema["type"].is_null() { "any JSON".to_owned() } else { one_type(&schema["type"], schema) }
}

fn one_type(name: &Value, schema: &Value) -> String {
    match name.as_str().unwrap() {
        "array" => format!("list of {}", kind(&schema["items"])),
        "string" if schema["format"] == "binary" => "bytes".to_owned(),
        name => name.to_owned(),
    }
}

/// A field's description with its default and its limits.
fn meaning(schema: &Value) -> String {
    let own = text(schema, "description");
    let nested = schema["oneOf"].as_array().into_iter().flatten().map(|one| text(one, "description"));
    let mut meaning =
        std::iter::once(own).chain(nested).find(|text| !text.is_empty()).unwrap_or_default().to_owned();
    let default = &schema["default"];
    if !default.is_null() {
        write!(meaning, " Default: `{default}`.").unwrap();
    }
    for (key, name) in [("maxItems", "at most"), ("maxLength", "characters at most"), ("maximum", "at most")]
    {
        if let Some(limit) = schema[key].as_u64() {
            write!(meaning, " ({name} {limit})").unwrap();
        }
    }
    cell(&meaning)
}

fn parameters(operation: &Value) -> String {
    let Some(parameters) = operation["parameters"].as_array() else { return String::new() };
    let mut table = "\n| parameter | in | type | meaning |\n|---|---|---|---|\n".to_owned();
    for parameter in parameters {
        let name = format!("`{}`", text(parameter, "name"));
        let name = if parameter["required"] == true { name + ", required" } else { name };
        let place = text(parameter, "in");
        let (kind, meaning) = (kind(&parameter["schema"]), meaning(parameter));
        writeln!(table, "| {name} | {place} | {} | {meaning} |", cell(&kind)).unwrap();
    }
    table
}

/// The bodies of a request or a response, by media type.
fn bodies(part: &Value) -> String {
    let bodies = members(&part["content"]).map(|(media, body)| match body.get("schema") {
        Some(schema) if schema["$ref"] == "#/components/schemas/ErrorBody" => kind(schema),
        Some(schema) => format!("{} as `{media}`", kind(schema)),
        None => format!("`{media}`"),
    });
    bodies.collect::<Vec<_>>().join(" or ")
}

fn responses(operation: &Value, common: &[Response<'_>]) -> String {
    let mut table = "\n| status | when | body | headers |\n|---|---|---|---|\n".to_owned();
    let mut others = Vec::new();
    for (status, response) in members(&operation["responses"]) {
        let when = text(response, "description");
        if common.contains(&(status.as_str(), when)) {
            others.push(status.as_str());
            continue;
        }
        let headers = members(&response["headers"]).filter(|(name, _)| *name != "x-request-id");
        let headers = headers.map(|(name, _)| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        writeln!(table, "| {status} | {} | {} | {headers} |", cell(when), cell(&bodies(response))).unwrap();
    }
    if !others.is_empty() {
        writeln!(table, "\n[Also](#responses-of-many-operations): {}.", others.join(", ")).unwrap();
    }
    table
}

fn operation(method: &str, path: &str, operation: &Value, common: &[Response<'_>]) -> String {
    let mut page = format!("\n### {method} {path}\n\n`{}`. ", text(operation, "operationId"));
    let prose = [text(operation, "summary"), text(operation, "description")];
    let prose = prose
        .iter()
        .filter(|text| !text.is_empty())
        .map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "));
    page += &prose.collect::<Vec<_>>().join("\n\n");
    page += "\n";
    page += &parameters(operation);
    let body = bodies(&operation["requestBody"]);
    if !body.is_empty() {
        writeln!(page, "\nBody: {body}.").unwrap();
    }
    page + &responses(operation, common)
}

fn schema(name: &str, schema: &Value) -> String {
    let mut page = format!("\n### {name}\n");
    if !text(schema, "description").is_empty() {
        writeln!(page, "\n{}", cell(text(schema, "description"))).unwrap();
    }
    let Some(fields) = schema["properties"].as_object() else {
        writeln!(page, "\n{}.", kind(schema)).unwrap();
        return page;
    };
    let required = schema["required"].as_array().into_iter().flatten();
    let required: Vec<_> = required.filter_map(Value::as_str).collect();
    page += "\n| field | type | meaning |\n|---|---|---|\n";
    for (field, schema) in fields {
        let mark = if required.contains(&field.as_str()) { ", required" } else { "" };
        writeln!(page, "| `{field}`{mark} | {} | {} |", cell(&kind(schema)), meaning(schema)).unwrap();
    }
    page
}

fn page(contract: &Value) -> String {
    let mut page = HEAD.to_owned();
    let common = common(contract);
    page += "\n## Responses of many operations\n\n| status | when |\n|---|---|\n";
    for (status, when) in &common {
        writeln!(page, "| {status} | {} |", cell(when)).unwrap();
    }
    page += "\nThe body of each is an [ErrorBody](#errorbody). Every response has an `x-request-id`.\n";
    for (tag, operations) in operations(contract) {
        let (first, rest) = tag.split_at(1);
        writeln!(page, "\n## {}{rest}", first.to_uppercase()).unwrap();
        for (method, path, one) in operations {
            page += &operation(&method, path, one, &common);
        }
    }
    page += "\n## Schemas\n";
    for (name, one) in members(&contract["components"]["schemas"]) {
        page += &schema(name, one);
    }
    page
}

#[test]
fn the_http_api_is_that_of_the_contract() {
    let contract: Value = serde_json::from_str(&likewise::http::openapi()).unwrap();
    compare("http-api.md", &page(&contract));
}
