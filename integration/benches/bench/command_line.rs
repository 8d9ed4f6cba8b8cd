//! The arguments.

use std::ffi::OsString;
use std::path::PathBuf;

use myshim_integration::Version;
use myshim_integration::containerd::shim_binary;

use crate::budgets::Budgets;
use crate::runtimes::Runtime;
use crate::shim::Binary;

/// What is to be measured.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) rounds: usize,
    pub(crate) layers: usize,
    pub(crate) execs: usize,
    /// Where the figures and the pictures go; None: the figures go to standard output.
    pub(crate) out: Option<PathBuf>,
    file: Option<String>,
    pub(crate) shims: Vec<Binary>,
    pub(crate) budgets: Budgets,
    pub(crate) runtimes: Vec<Runtime>,
    tables: Vec<String>,
}

impl Options {
    pub(crate) fn parse(args: impl Iterator<Item = String>) -> Self {
        let ours = Binary {
            name: "myshim".to_owned(),
            shim: shim_binary(Version::V2),
            path: OsString::from("/bin"),
        };
        let mut options = Self {
            rounds: 100,
            layers: 1,
            execs: 1000,
            out: None,
            file: None,
            shims: vec![ours],
            budgets: Budgets::default(),
            runtimes: Vec::new(),
            tables: Vec::new(),
        };
        // cargo adds --bench.
        let mut args = args.filter(|arg| arg != "--bench");
        while let Some(arg) = args.next() {
            if !arg.starts_with("--") {
                options.tables.push(arg);
                continue;
            }
            let value = args.next().unwrap_or_else(|| panic!("{arg}: no value"));
            options.set(&arg, &value);
        }
        options
    }

    fn set(&mut self, arg: &str, value: &str) {
        let number = || value.parse().unwrap_or_else(|_| panic!("{arg}: {value:?} is no number"));
        match arg {
            "--rounds" => self.rounds = number(),
            "--layers" => self.layers = number(),
            "--execs" => self.execs = number(),
            "--out" => self.out = Some(value.into()),
            "--file" => self.file = Some(value.to_owned()),
            "--shim" => self.shims[0].shim = value.into(),
            "--peer" => {
                let (name, rest) = value.split_once('=').expect("--peer NAME=SHIM,PATH");
                let (shim, path) = rest.split_once(',').expect("--peer NAME=SHIM,PATH");
                self.shims.push(Binary {
                    name: name.to_owned(),
                    shim: shim.into(),
                    path: path.into(),
                });
            }
            "--runtime" => {
                let (name, program) = value.split_once('=').expect("--runtime NAME=PROGRAM");
                self.runtimes.push(Runtime { name: name.to_owned(), program: program.into() });
            }
            _ => panic!("{arg} is not known"),
        }
    }

    /// Whether a table is asked for.
    pub(crate) fn wants(&self, table: &str) -> bool {
        self.tables.is_empty() || self.names(table)
    }

    /// Whether a table is asked for by its name.
    pub(crate) fn names(&self, table: &str) -> bool {
        self.tables.iter().any(|wanted| wanted == table)
    }

    /// Where the figures go, below [`Options::out`].
    pub(crate) fn file(&self) -> &str {
        let usual = if self.shims.len() > 1 { "peers.md" } else { "figures.md" };
        self.file.as_deref().unwrap_or(usual)
    }

    /// Arguments for another bench of the same shims.
    pub(crate) fn shims_as_arguments(&self) -> Vec<OsString> {
        let mut arguments = vec!["--shim".into(), self.shims[0].shim.clone().into()];
        for peer in &self.shims[1..] {
            let mut value = OsString::from(format!("{}=", peer.name));
            value.push(&peer.shim);
            value.push(",");
            value.push(&peer.path);
            arguments.extend(["--peer".into(), value]);
        }
        arguments
    }
}
