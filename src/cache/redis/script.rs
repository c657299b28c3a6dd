//! Scripts, which a server runs without other commands in between.

use redis::{Cmd, RedisError, ServerErrorKind, Value};

use super::call_error::CallError;
use super::link::Link;

/// The code of a script that appends an event.
macro_rules! appending {
    ($path:literal) => {
        concat!(include_str!("scripts/append.lua"), include_str!($path))
    };
}
pub(super) use appending;

/// A script in Lua, called by its hash.
#[derive(Debug)]
pub struct LuaScript {
    code: &'static str,
    hash: String,
}

impl LuaScript {
    /// Of this code.
    pub fn new(code: &'static str) -> LuaScript {
        LuaScript { code, hash: redis::Script::new(code).get_hash().to_owned() }
    }

    /// Runs on the server that has the keys. One that does not know the script, as after a failover, a restart or a
    /// `SCRIPT FLUSH`, is sent the code, which it remembers.
    pub(super) async fn run(
        &self,
        link: Link,
        keys: &[&str],
        arguments: &[&[u8]],
    ) -> Result<Value, CallError> {
        let call = |name, script: &str| -> Cmd {
            let mut command = redis::cmd(name);
            command.arg(script).arg(keys.len()).arg(keys).arg(arguments);
            command
        };
        match link.clone().command(&call("EVALSHA", &self.hash)).await {
            Err(CallError::Refused(error)) if is_unknown_script(&error) => {
                link.command(&call("EVAL", self.code)).await
            }
            reply => reply,
        }
    }
}

fn is_unknown_script(error: &RedisError) -> bool {
    error.kind() == redis::ErrorKind::Server(ServerErrorKind::NoScript)
}
