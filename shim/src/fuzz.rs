//! What holds for any input from containerd: each function is a claim, as those of
//! [`runtime::fuzz`] are, and panics on an input for which it does not hold.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use containerd_shim_protos::api::{ExecProcessRequest, UpdateTaskRequest};
use protobuf::Message;
use protobuf::well_known_types::any::Any;
use runtime::{Error, Kind};

use crate::args::Args;
use crate::bootstrap::{Bootstrap, Environment};
use crate::caller::Generation;
use crate::{io, options, service};

/// By the first byte; others have a type that is not known.
const FORMS: [&str; 5] = [
    "containerd.runc.v1.Options",
    "type.googleapis.com/runtimeoptions.v1.Options",
    "containerd.linux.runc.CreateOptions",
    "containerd.linux.runc.RuncOptions",
    "cri.runtimeoptions.v1.Options",
];

/// Options of any form are taken, or refused by an argument's name.
pub fn options(input: &[u8]) {
    let Some((first, value)) = input.split_first() else { return };
    let form = FORMS.get(usize::from(*first)).copied().unwrap_or("io.example.Options");
    let any = Any { type_url: form.to_owned(), value: value.to_vec(), ..Any::default() };
    if let Err(error) = options::parse(Some(&any)) {
        is_of_an_argument(&error);
    }
}

/// What `start` reads from stdin is one of the two messages, or refused; and it is answered.
pub fn bootstrap(input: &[u8]) {
    let args = Args { id: "web".into(), namespace: "default".into(), ..Args::default() };
    let environment = Environment { max_shim_version: true, ..Environment::default() };
    let generation = match input.len().is_multiple_of(2) {
        true => Generation::One,
        false => Generation::Two,
    };
    match Bootstrap::new(&args, input, &environment, |_| generation) {
        Ok(bootstrap) => {
            assert_eq!((&*bootstrap.id, &*bootstrap.namespace), ("web", "default"));
            assert!(bootstrap.dialect.answer("unix:///run/s").is_ok());
            if let Err(error) = options::parse(bootstrap.options.as_ref()) {
                is_of_an_argument(&error);
            }
        }
        Err(error) => is_of_an_argument(&error),
    }
}

/// A command line, its arguments apart by NUL, is understood or refused.
pub fn args(input: &[u8]) {
    let arguments = input.split(|byte| *byte == 0).map(|bytes| OsString::from_vec(bytes.to_vec()));
    if let Err(error) = Args::parse(arguments) {
        assert!(!error.to_string().is_empty());
    }
}

/// Where output is to go is a place with an absolute path, or refused.
pub fn streams(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input)
        && let Err(error) = io::fuzz(text)
    {
        is_of_an_argument(&error);
    }
}

/// What an exec and an update ask for is handed on as text that the runtime reads as the same.
pub fn requests(input: &[u8]) {
    if let Ok(request) = ExecProcessRequest::parse_from_bytes(input) {
        let given = serde_json::from_slice::<serde_json::Value>(&request.spec.value);
        match service::new_exec(request) {
            Ok(exec) => {
                let handed_on = serde_json::from_str::<serde_json::Value>(&exec.process);
                // A number that no property has (beyond 64 bits, or a fraction) is rounded once.
                let given = given.and_then(|given| serde_json::from_str(&given.to_string()));
                let without = |value: serde_json::Result<serde_json::Value>| {
                    let mut value = value.ok()?;
                    value.as_object_mut()?.remove("terminal");
                    Some(value)
                };
                assert_eq!(without(handed_on), without(given));
            }
            Err(error) => is_of_an_argument(&error),
        }
    }
    if let Ok(request) = UpdateTaskRequest::parse_from_bytes(input)
        && let Err(error) = service::resources(request.resources.as_ref())
    {
        is_of_an_argument(&error);
    }
}

fn is_of_an_argument(error: &Error) {
    let Kind::Argument { name, .. } = error.kind() else { panic!("of no argument: {error}") };
    assert!(!name.is_empty());
}

#[cfg(test)]
mod corpus {
    use std::path::Path;

    fn every(target: &str, claim: fn(&[u8])) {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../integration/fuzz/corpus");
        let mut count = 0;
        for entry in std::fs::read_dir(corpus.join(target)).unwrap() {
            let path = entry.unwrap().path();
            println!("{}", path.display());
            claim(&std::fs::read(path).unwrap());
            count += 1;
        }
        assert!(count > 0, "{target} has no inputs");
    }

    macro_rules! kept_inputs {
        ($($target:ident),*) => {
            $(#[test]
            fn $target() {
                every(stringify!($target), super::$target);
            })*
        };
    }

    kept_inputs![args, bootstrap, options, requests, streams];
}
