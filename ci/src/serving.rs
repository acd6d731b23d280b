//! A megaring server for as long as a test client needs one.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};

use crate::Result;
use crate::workspace::Workspace;

/// A running server on a free port, over an empty folder. Dropping it ends it.
pub(crate) struct Serving {
    child: Child,
    address: String,
}

impl Serving {
    /// Starts `megaring serve` and waits until it says where it listens.
    pub(crate) fn start(workspace: &Workspace, megaring: &Path) -> Result<Self> {
        let data = workspace.target().join("client-data");
        // What an earlier run left behind; that there is none is the usual case.
        let _ = fs::remove_dir_all(&data);
        fs::create_dir_all(&data).map_err(|error| format!("{} could not be made: {error}.", data.display()))?;
        let mut command = workspace.command(megaring);
        command.env("MEGARING_DATA", &data).args(["serve", "--json", "--listen", "127.0.0.1:0"]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut serving = Self {
            child: child.map_err(|error| format!("the server could not be started: {error}."))?,
            address: String::new(),
        };
        let mut line = String::new();
        if let Some(stdout) = serving.child.stdout.take() {
            // An error leaves the line empty, which is reported below.
            let _ = BufReader::new(stdout).read_line(&mut line);
        }
        serving.address = address(&line).ok_or("the server ended before it listened.")?.to_owned();
        Ok(serving)
    }

    /// Where it listens, as `HOST:PORT`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // One that has ended by itself cannot be ended again.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The address in the JSON line that announces a server.
fn address(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("\"address\":\"")?;
    rest.split_once('"').map(|(address, _)| address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_read_from_the_announcement() {
        let line = r#"{"address":"127.0.0.1:40123","data":"d","event":"listening","pid":7}"#;
        assert_eq!(address(line), Some("127.0.0.1:40123"));
        assert_eq!(address("\n"), None);
    }
}
