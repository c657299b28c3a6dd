//! Every fault for which a server does not start, with what its message says to type.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::model;
use crate::program::{Server, likewise, output};

/// `serve` on a free port, over a directory of its own, with the model of the tests.
struct Case<'a> {
    options: Vec<&'a str>,
    variables: Vec<(&'a str, &'a str)>,
    model: &'a Path,
    data: &'a Path,
}

impl Case<'_> {
    /// The error.
    fn refused(&self) -> String {
        let mut program = Command::new(env!("CARGO_BIN_EXE_likewise"));
        program.args(["serve", "--data-dir"]).arg(self.data).arg("--model").arg(self.model);
        if !self.options.contains(&"--listen") {
            program.args(["--listen", "127.0.0.1:0"]);
        }
        program.args(&self.options).envs(self.variables.iter().copied());
        // No fault of this table may be found by asking another server.
        program.env("LIKEWISE_LOG", "error").env("HF_ENDPOINT", "http://127.0.0.1:1");
        for name in ["OPENAI_API_KEY", "LIKEWISE_CONFIG"] {
            if !self.variables.iter().any(|(given, _)| *given == name) {
                program.env_remove(name);
            }
        }
        let output = output(&mut program);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(matches!(output.status.code(), Some(1 | 2)), "{:?} started or crashed: {said}", self.options);
        assert!(output.stdout.is_empty());
        let at = said.find("likewise: ").unwrap_or_else(|| panic!("no error in {said}"));
        said[at..].to_owned()
    }
}

/// A file that holds `text`.
fn file(dir: &TempDir, name: &str, text: &str) -> String {
    let path = dir.path().join(name);
    fs_err::create_dir_all(path.parent().unwrap()).unwrap();
    fs_err::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Options, variables, and what the message must contain: the fault, then what to type.
type Row<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], [&'a str; 2]);

fn check(rows: &[Row<'_>], data: &Path) {
    for (options, variables, words) in rows {
        let case =
            Case { options: options.to_vec(), variables: variables.to_vec(), model: &model::dir(), data };
        says(&case.refused(), words);
    }
}

fn says(line: &str, words: &[&str]) {
    for word in words {
        assert!(line.contains(word), "`{word}` is not in: {line}");
    }
}

#[test]
fn a_configuration_that_cannot_be_used_says_what_to_type() {
    let dir = TempDir::new().unwrap();
    let no_toml = file(&dir, "no.toml", "[http\n");
    let unknown = file(&dir, "unknown.toml", "[http]\nlisten_on = \"127.0.0.1:1\"\n");
    let wrong_type = file(&dir, "type.toml", "[http]\nrequests_max = \"many\"\n");
    let correct = "correct the option in";
    let listed = "examples/config.toml has every option";
    let short_keys = file(&dir, "keys", "short\n");
    let rows: &[Row<'_>] = &[
        (&["--config", "/no/such.toml"], &[], ["/no/such.toml", "give --config"]),
        (&["--config", &no_toml], &[], ["no.toml", correct]),
        (
            &["--config", &unknown],
            &[],
            ["unknown key `http.listen_on`; did you mean `http.listen`?", correct],
        ),
        (&["--config", &wrong_type], &[], ["requests_max", listed]),
        (&[], &[("LIKEWISE__HTTP__LISTENS", "x")], ["did you mean `http.listen`?", "LIKEWISE__SECTION__KEY"]),
        (&[], &[("LIKEWISE__HTTP__REQUESTS_MAX", "0")], ["http.requests_max must be at least 1", correct]),
        (&[], &[("LIKEWISE__UPSTREAM__IDLE_MS", "0")], ["upstream.idle_ms", correct]),
        (&[], &[("LIKEWISE__HTTP__CORS", "shop")], ["http.cors", "correct"]),
        (&[], &[("LIKEWISE__HTTP__API_KEYS", "short")], ["at least 8 characters", "openssl rand -hex 24"]),
        (
            &[],
            &[("LIKEWISE__HTTP__API_KEYS", "long-enough,long-enough")],
            ["twice", "take one of the two out"],
        ),
        (&[], &[("LIKEWISE__HTTP__API_KEYS_FILE", "/no/keys")], ["/no/keys", "one key a line"]),
        (&[], &[("LIKEWISE__HTTP__API_KEYS_FILE", &short_keys)], ["at least 8 characters", "openssl"]),
        (&[], &[("LIKEWISE__EMBED__TOKENS_MAX", "100000")], ["embed.tokens_max must be at most", "correct"]),
        (&[], &[("LIKEWISE__CACHE__MEMORY__BUDGET", "1")], ["cache.memory.budget", "correct the option"]),
    ];
    check(rows, &dir.path().join("data"));
}

#[test]
fn an_address_that_cannot_be_used_says_what_to_type() {
    let dir = TempDir::new().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let own = std::process::id();
    let stop = format!("stop it with `kill {own}`, or give --listen");
    let rows: &[Row<'_>] = &[
        (&["--listen", &address], &[], ["cannot bind http.listen", &stop]),
        (&["--listen", "8420"], &[], ["cannot bind http.listen", "such as 127.0.0.1:8420"]),
        (&["--listen", "127.0.0.1:99999"], &[], ["127.0.0.1:99999", "such as 127.0.0.1:8420"]),
        (&["--listen", "192.0.2.1:8420"], &[], ["192.0.2.1:8420", "an address of this machine"]),
        (
            &["--listen", "0.0.0.0:0"],
            &[],
            ["not a loopback address", "export LIKEWISE__HTTP__API_KEYS=$(openssl"],
        ),
        (
            &["--listen", "0.0.0.0:0"],
            &[],
            ["not a loopback address", "--listen 127.0.0.1:8420 for this machine"],
        ),
    ];
    check(rows, &dir.path().join("data"));
}

#[test]
fn an_upstream_that_cannot_be_used_says_what_to_type() {
    let dir = TempDir::new().unwrap();
    let named = [("LIKEWISE__UPSTREAM__API_KEY_ENV", "NO_SUCH_KEY")];
    let keyed =
        [("LIKEWISE__UPSTREAM__FORWARD_CLIENT_KEY", "true"), ("LIKEWISE__HTTP__API_KEYS", "long-enough")];
    let remote = [("LIKEWISE__EMBED__REMOTE__BASE_URL", "http://127.0.0.1:1/v1")];
    let rows: &[Row<'_>] = &[
        (
            &["--upstream", "api.openai.com"],
            &[],
            ["is not an address", "--upstream https://api.openai.com/v1"],
        ),
        (
            &["--upstream", "ftp://a/v1"],
            &[],
            ["must be http or https", "--upstream https://api.openai.com/v1"],
        ),
        (&["--upstream", "http://a:b@c/v1"], &[], ["must hold no credential", "api_key_env"]),
        (&["--upstream", "http://a/v1"], &named, ["`NO_SUCH_KEY` is not set", "export NO_SUCH_KEY=..."]),
        (
            &["--upstream", "http://a/v1"],
            &keyed,
            ["upstream.forward_client_key must be false", "correct the option"],
        ),
        (&[], &remote, ["two models", "--model"]),
    ];
    check(rows, &dir.path().join("data"));
    let mut program = Command::new(env!("CARGO_BIN_EXE_likewise"));
    program.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(dir.path());
    let lacks_dim = program.envs(remote).env("LIKEWISE__EMBED__REMOTE__MODEL", "m");
    let said = String::from_utf8_lossy(&output(lacks_dim).stderr).into_owned();
    says(&said, &["embed.remote.dim must be set", "correct the option"]);
    lacks_dim
        .env("LIKEWISE__EMBED__REMOTE__DIM", "8")
        .env("LIKEWISE__EMBED__REMOTE__API_KEY_ENV", "NO_SUCH_KEY");
    let said = String::from_utf8_lossy(&output(lacks_dim).stderr).into_owned();
    says(&said, &["`NO_SUCH_KEY`", "export NO_SUCH_KEY=..."]);
}

#[test]
fn a_model_that_cannot_be_used_says_what_to_type() {
    let dir = TempDir::new().unwrap();
    let made = |name: &str, change: &dyn Fn(&Path)| {
        let target = dir.path().join(name);
        fs_err::create_dir_all(target.join("1_Pooling")).unwrap();
        for file in
            ["modules.json", "config.json", "tokenizer.json", "model.safetensors", "1_Pooling/config.json"]
        {
            fs_err::copy(model::dir().join(file), target.join(file)).unwrap();
        }
        change(&target);
        target
    };
    let replaced = |file: &'static str, from: &'static str, to: &'static str| {
        move |target: &Path| {
            let text = fs_err::read_to_string(target.join(file)).unwrap();
            assert!(text.contains(from), "{from} is not in {file}");
            fs_err::write(target.join(file), text.replace(from, to)).unwrap();
        }
    };
    let without = |file: &'static str| move |target: &Path| fs_err::remove_file(target.join(file)).unwrap();
    let empty = dir.path().join("empty");
    fs_err::create_dir_all(&empty).unwrap();
    let advice = "give --model another DIRECTORY, --model OWNER/NAME";
    let cases = [
        ("/no/such/dir".into(), "no such directory", "--model DIRECTORY"),
        (model::dir().join("config.json"), "it is a file", "--model DIRECTORY"),
        (empty, "config.json", advice),
        (made("no-weights", &without("model.safetensors")), "model.safetensors", advice),
        (made("no-tokenizer", &without("tokenizer.json")), "tokenizer.json", advice),
        (made("decoder", &replaced("config.json", "\"bert\"", "\"llama\"")), "model_type `llama`", advice),
        (made("modules", &replaced("modules.json", "Normalize", "Dense")), "Dense` is not supported", advice),
        (
            made("broken", &|target| fs_err::write(target.join("config.json"), "{").unwrap()),
            "config.json",
            advice,
        ),
        (
            made("cut", &|target| fs_err::write(target.join("model.safetensors"), "short").unwrap()),
            "cannot parse the weights",
            advice,
        ),
    ];
    for (model, fault, advice) in &cases {
        let data = dir.path().join("data");
        let case = Case { options: vec![], variables: vec![], model, data: &data };
        says(&case.refused(), &[fault, advice]);
    }
    // Nothing listens at the address of the hub.
    let data = dir.path().join("data");
    let case = Case { options: vec![], variables: vec![], model: Path::new("owner/name"), data: &data };
    says(&case.refused(), &["cannot fetch owner/name", "give --model DIRECTORY", "HF_ENDPOINT"]);
}

#[test]
fn a_data_directory_that_cannot_be_used_says_what_to_type() {
    let dir = TempDir::new().unwrap();
    let refused =
        |data: &Path| Case { options: vec![], variables: vec![], model: &model::dir(), data }.refused();
    says(&refused(Path::new("/proc/likewise")), &["cannot create the data directory", "give --data-dir"]);
    says(&refused(Path::new("/dev/null")), &["/dev/null", "a directory that this user can write to"]);

    let format = dir.path().join("newer");
    fs_err::create_dir_all(&format).unwrap();
    fs_err::write(format.join("FORMAT"), "likewise 99\n").unwrap();
    says(&refused(&format), &["newer version", "start the version of likewise that wrote"]);
    fs_err::write(format.join("FORMAT"), "something else").unwrap();
    says(&refused(&format), &["cannot read the format", "likewise verify", "--repair"]);

    let used = dir.path().join("used");
    let server = Server::spawn(&mut likewise("serve", &used));
    let process = format!("process: {}", server.pid());
    says(&refused(&used), &["another process uses the data directory", "--data-dir", &process]);
}
