//! LiteLLM's proxy with its cache, in front of the same upstream.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::rival::Rival;

/// Starts it with these `cache_params`, in YAML on one line; nothing if it is not there.
///
/// # Panics
/// If its configuration cannot be written.
pub async fn start(dir: &Path, upstream: SocketAddr, cache: &str) -> Option<Rival> {
    let program = std::env::var_os("LIKEWISE_LITELLM")?;
    let config = dir.join("litellm.yaml");
    let text = format!(
        "model_list:\n  - model_name: bench\n    litellm_params:\n      model: openai/bench\n      \
         api_base: http://{upstream}/v1\n      api_key: unused\n\
         litellm_settings:\n  cache: true\n  cache_params: {{{cache}}}\n"
    );
    fs_err::write(&config, text).expect("a temporary directory");
    let command = |port: u16| {
        let mut command = Command::new(program);
        command
            .args(["--host", "127.0.0.1", "--port", &port.to_string(), "--num_workers", "1", "--config"])
            .arg(&config)
            // It imports what lies in the current directory, and two above it.
            .current_dir(dir)
            .env("LITELLM_LOCAL_MODEL_COST_MAP", "True")
            .env("LITELLM_LOG", "ERROR");
        command
    };
    Rival::start(command, "/health/liveliness").await
}
