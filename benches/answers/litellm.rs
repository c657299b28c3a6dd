//! LiteLLM's proxy with its cache in memory, in front of the same upstream.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use likewise_benches::load::Connection;

/// How long it may take to start.
const PATIENCE: Duration = Duration::from_secs(120);

/// The proxy, ended with the benchmark.
pub(crate) struct LiteLlm {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl LiteLlm {
    /// Starts it, and waits until it is ready; nothing if it is not there.
    pub(crate) async fn start(dir: &Path, upstream: SocketAddr) -> Option<LiteLlm> {
        let program = std::env::var_os("LIKEWISE_LITELLM")?;
        let config = dir.join("litellm.yaml");
        let text = format!(
            "model_list:\n  - model_name: bench\n    litellm_params:\n      model: openai/bench\n      \
             api_base: http://{upstream}/v1\n      api_key: unused\n\
             litellm_settings:\n  cache: true\n  cache_params:\n    type: local\n"
        );
        fs_err::write(&config, text).expect("a temporary directory");
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = free.local_addr().expect("it is bound");
        drop(free);
        let child = Command::new(program)
            .args(["--host", "127.0.0.1", "--port", &address.port().to_string(), "--num_workers", "1"])
            .arg("--config")
            .arg(&config)
            .env("LITELLM_LOCAL_MODEL_COST_MAP", "True")
            .env("LITELLM_LOG", "ERROR")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let proxy = LiteLlm { child, address };
        let started = Instant::now();
        while !proxy.is_ready().await {
            if started.elapsed() > PATIENCE {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Some(proxy)
    }

    async fn is_ready(&self) -> bool {
        let request = format!("GET /health/liveliness HTTP/1.1\r\nhost: {}\r\n\r\n", self.address);
        match tokio::net::TcpStream::connect(self.address).await {
            Ok(_) => Connection::open(self.address).await.ask(request.as_bytes()).await.0 == 200,
            Err(_) => false,
        }
    }
}

impl Drop for LiteLlm {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
