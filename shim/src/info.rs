//! `-info`: what this runtime is and can do, as `containerd.types.RuntimeInfo`.

use containerd_shim_protos::types::introspection::{RuntimeInfo, RuntimeVersion};
use protobuf::well_known_types::any::Any;
use protobuf::{Message, MessageField};
use runtime::{At, Error, Kind, Result};

use crate::{bootstrap, options, version};

/// What containerd knows this runtime by.
pub(crate) const NAME: &str = "io.containerd.myshim.v2";

/// What Go's typeurl knows the features of an OCI runtime by. They are JSON.
const FEATURES: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

/// Reads options from the standard input; what is returned is to be written to the standard
/// output. `features` makes the features document of the OCI runtime.
///
/// # Errors
/// When there are options, and they are not acceptable.
pub(crate) fn run(features: impl FnOnce() -> Result<Vec<u8>>) -> Result<Vec<u8>> {
    let stdin = bootstrap::read_stdin()?;
    answer(&stdin, features().at("features")?)
}

fn answer(stdin: &[u8], features: Vec<u8>) -> Result<Vec<u8>> {
    let options = Any::parse_from_bytes(stdin)
        .map_err(|error| Error::argument("stdin", format!("is no options message: {error}")))?;
    options::parse(Some(&options))?;
    let info = RuntimeInfo {
        name: NAME.to_owned(),
        version: MessageField::some(RuntimeVersion {
            version: version::VERSION.to_owned(),
            revision: version::REVISION.to_owned(),
            ..RuntimeVersion::default()
        }),
        options: (!stdin.is_empty()).then_some(options).into(),
        features: MessageField::some(Any {
            type_url: FEATURES.to_owned(),
            value: features,
            ..Any::default()
        }),
        ..RuntimeInfo::default()
    };
    info.write_to_bytes()
        .map_err(|error| Error::new(Kind::Corrupt(format!("encode the answer: {error}"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_says_what_was_asked() {
        let options = Any { type_url: "containerd.runc.v1.Options".to_owned(), ..Any::default() };
        let stdin = options.write_to_bytes().unwrap();
        let info = answer(&stdin, b"{\"linux\":{}}".to_vec()).unwrap();
        let info = RuntimeInfo::parse_from_bytes(&info).unwrap();
        assert_eq!(info.name, "io.containerd.myshim.v2");
        assert_eq!(info.version.version, env!("CARGO_PKG_VERSION"));
        assert_eq!(info.options, MessageField::some(options));
        assert_eq!(info.features.type_url, FEATURES);
        assert_eq!(info.features.value, b"{\"linux\":{}}");
    }

    #[test]
    fn nothing_asked_is_nothing_answered() {
        let info = RuntimeInfo::parse_from_bytes(&answer(&[], Vec::new()).unwrap()).unwrap();
        assert!(info.options.is_none());
    }

    #[test]
    fn options_that_would_fail_later_fail_now() {
        let options = Any { type_url: "x.Options".to_owned(), ..Any::default() };
        let error = answer(&options.write_to_bytes().unwrap(), Vec::new()).unwrap_err();
        assert!(error.to_string().contains("x.Options"));
    }
}
