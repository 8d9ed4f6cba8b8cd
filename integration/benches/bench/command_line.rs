//! The arguments.

use std::ffi::OsString;
use std::path::PathBuf;

use myshim_integration::Version;
use myshim_integration::containerd::shim_binary;

use crate::runtimes::Runtime;
use crate::shim::Binary;

/// What is to be measured.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) rounds: usize,
    pub(crate) layers: usize,
    pub(crate) execs: usize,
    pub(crate) markdown: Option<PathBuf>,
    pub(crate) shims: Vec<Binary>,
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
            markdown: None,
            shims: vec![ours],
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
            "--markdown" => self.markdown = Some(value.into()),
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
        self.tables.is_empty() || self.tables.iter().any(|wanted| wanted == table)
    }
}
