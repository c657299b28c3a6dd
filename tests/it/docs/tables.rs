//! Tables of the reference have what the code has.

use std::collections::HashSet;

use super::read;

/// The headers of the first column of a table.
fn documented_headers(page: &str) -> HashSet<&str> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once(" | "));
    let cells = rows.map(|(cell, _)| cell);
    cells.flat_map(|cell| cell.split(", ").map(|name| name.trim_matches('`'))).collect()
}

#[test]
fn one_table_has_all_headers_of_the_contract() {
    let contract: serde_json::Value = serde_json::from_str(&likewise::http::openapi()).unwrap();
    let page = read("docs/reference/headers.md");
    let documented = documented_headers(&page);
    let mut names = HashSet::new();
    let operations =
        contract["paths"].as_object().unwrap().values().flat_map(|path| path.as_object().unwrap().values());
    for operation in operations {
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let sent = parameters.filter(|parameter| parameter["in"] == "header");
        names.extend(sent.map(|parameter| parameter["name"].as_str().unwrap().to_owned()));
        let responses = operation["responses"].as_object().unwrap().values();
        names.extend(
            responses
                .filter_map(|response| response["headers"].as_object())
                .flat_map(|all| all.keys().cloned()),
        );
    }
    let missing: Vec<_> = names.iter().filter(|name| !documented.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "not in the table: {missing:?}");
    assert!(names.len() > 25, "only {} headers were read", names.len());
    let reasons = contract["components"]["schemas"]["Reason"]["enum"].as_array().unwrap();
    assert!(reasons.len() > 10);
    let missing: Vec<_> =
        reasons.iter().filter(|word| !page.contains(&format!("`{}`", word.as_str().unwrap()))).collect();
    assert!(missing.is_empty(), "not in the list: {missing:?}");
}
