//! The options of a runtime, in all the forms that containerd's clients send them in.
//!
//! | type | from | what |
//! |---|---|---|
//! | `containerd.runc.v1.Options` | Go clients that think of runc | its fields |
//! | `runtimeoptions.v1.Options` | CRI, docker, `ctr --runtime-config-path` | TOML, in it or in a file |
//! | `containerd.linux.runc.CreateOptions`, `RuncOptions` | clients of containerd 1.x | their fields |
//!
//! What only a shim that starts another runtime has a use for (its program, its root) is taken,
//! and named in a warning: the sections that people copy from runc's have it.

mod keys;
mod legacy;
mod message;
mod runc;

use protobuf::well_known_types::any::Any;
use runtime::{Error, Result};

/// A runtime's options.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "containerd.runc.v1.Options has them as flags")]
pub(crate) struct Options {
    /// MS_MOVE + chroot(2) in place of pivot_root(2).
    pub(crate) no_pivot_root: bool,
    /// Stay in the caller's session keyring.
    pub(crate) no_new_keyring: bool,
    /// cgroupsPath is `slice:prefix:name` and systemd makes the cgroup.
    pub(crate) systemd_cgroup: bool,
    /// The cgroup that the daemon is put into; empty: containerd's.
    pub(crate) shim_cgroup: String,
    /// Owner of the pipes of the standard streams.
    pub(crate) io_uid: u32,
    /// Group of the pipes of the standard streams.
    pub(crate) io_gid: u32,
    /// Where a checkpoint's image is; empty: none.
    pub(crate) criu_image_path: String,
    /// Where CRIU works; empty: in the bundle.
    pub(crate) criu_work_path: String,
    /// For the log: what was given and has no effect here.
    pub(crate) warnings: Vec<String>,
}

/// The form that options came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Runc,
    Toml,
    LegacyCreate,
    LegacyRunc,
}

impl Form {
    fn of(any: &Any) -> Option<Form> {
        // Go writes the bare name, protobuf libraries put a host before it.
        match any.type_url.rsplit('/').next().unwrap_or_default() {
            "containerd.runc.v1.Options" => Some(Form::Runc),
            "runtimeoptions.v1.Options" | "cri.runtimeoptions.v1.Options" => Some(Form::Toml),
            "containerd.linux.runc.CreateOptions" => Some(Form::LegacyCreate),
            "containerd.linux.runc.RuncOptions" => Some(Form::LegacyRunc),
            _ => None,
        }
    }
}

/// Whether this is a runtime's options, in a form that is known here.
pub(crate) fn is_options(any: &Any) -> bool {
    Form::of(any).is_some()
}

/// Takes options apart; none, or empty ones, are the default.
///
/// # Errors
/// When the type is not known, or the contents are not acceptable; a wrong key in TOML is named
/// with its line. When the file that they name cannot be read.
pub(crate) fn parse(any: Option<&Any>) -> Result<Options> {
    let Some(any) = any else { return Ok(Options::default()) };
    if any.type_url.is_empty() && any.value.is_empty() {
        return Ok(Options::default());
    }
    let parsed = match Form::of(any) {
        Some(Form::Runc) => runc::runc(&any.value),
        Some(Form::Toml) => keys::runtime_options(&any.value),
        Some(Form::LegacyCreate) => legacy::legacy_create(&any.value),
        Some(Form::LegacyRunc) => legacy::legacy_runc(&any.value),
        None => {
            let why = format!("type {:?} is not known to this runtime", any.type_url);
            return Err(Error::argument("options", why));
        }
    };
    parsed.map_err(|error| error.at("options"))
}

fn warn_of(warnings: &mut Vec<String>, key: &str, value: &str) {
    if !value.is_empty() {
        warnings.push(format!("option {key}={value:?} has no effect: the runtime is built in"));
    }
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn broken(error: protobuf::Error) -> Error {
    Error::argument("message", error.to_string())
}

#[cfg(test)]
mod tests {
    use containerd_shim_protos::shim::oci;
    use protobuf::{CodedOutputStream, Message};
    use serde::Deserialize;

    use super::keys::{Keys, toml_options};
    use super::*;

    fn any(type_url: &str, value: Vec<u8>) -> Any {
        Any { type_url: type_url.to_owned(), value, ..Any::default() }
    }

    fn message(write: impl FnOnce(&mut CodedOutputStream<'_>) -> protobuf::Result<()>) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut output = CodedOutputStream::vec(&mut bytes);
        write(&mut output).unwrap();
        output.flush().unwrap();
        drop(output);
        bytes
    }

    fn from_toml(body: &str) -> Result<Options> {
        let value = message(|output| {
            output.write_string(1, "whatever")?;
            output.write_bytes(3, body.as_bytes())
        });
        parse(Some(&any("runtimeoptions.v1.Options", value)))
    }

    #[test]
    fn no_options_are_the_default() {
        assert_eq!(parse(None).unwrap(), Options::default());
        assert_eq!(parse(Some(&Any::default())).unwrap(), Options::default());
        assert_eq!(from_toml("").unwrap(), Options::default());
    }

    #[test]
    fn the_options_of_runc_are_taken() {
        let given = oci::Options {
            no_pivot_root: true,
            no_new_keyring: true,
            shim_cgroup: "/shims".to_owned(),
            io_uid: 1000,
            io_gid: 1001,
            binary_name: "crun".to_owned(),
            systemd_cgroup: true,
            criu_image_path: "/image".to_owned(),
            criu_work_path: "/work".to_owned(),
            ..oci::Options::default()
        };
        let value = given.write_to_bytes().unwrap();
        let expected = Options {
            no_pivot_root: true,
            no_new_keyring: true,
            systemd_cgroup: true,
            shim_cgroup: "/shims".to_owned(),
            io_uid: 1000,
            io_gid: 1001,
            criu_image_path: "/image".to_owned(),
            criu_work_path: "/work".to_owned(),
            warnings: vec![
                "option binary_name=\"crun\" has no effect: the runtime is built in".to_owned(),
            ],
        };
        for host in ["", "type.googleapis.com/"] {
            let url = format!("{host}containerd.runc.v1.Options");
            assert_eq!(parse(Some(&any(&url, value.clone()))).unwrap(), expected);
        }
    }

    #[test]
    fn a_handlers_section_of_containerd_is_taken() {
        let options = from_toml(
            "BinaryName = \"/usr/bin/crun\"\nIoUid = 5\nNoPivotRoot = false\nShimCgroup = \"/s\"\n\
             SystemdCgroup = true\nTypeUrl = \"x\"\n",
        )
        .unwrap();
        assert!(options.systemd_cgroup);
        assert_eq!((options.io_uid, &*options.shim_cgroup), (5, "/s"));
        assert_eq!(options.warnings.len(), 1);
    }

    #[test]
    fn the_documented_file_has_every_key_at_its_default() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/myshim.toml");
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(toml_options(&text, path).unwrap(), Options::default());
        // Every key is in there, commented out: with its default it must still be acceptable.
        let keys = text.lines().filter_map(|line| line.strip_prefix("# "));
        let is_key = |line: &&str| line.split(' ').nth(1) == Some("=");
        let keys: Vec<&str> = keys.filter(is_key).collect();
        assert_eq!(toml_options(&keys.join("\n"), path).unwrap(), Options::default());
        for key in [
            "NoPivotRoot",
            "NoNewKeyring",
            "SystemdCgroup",
            "ShimCgroup",
            "IoUid",
            "IoGid",
            "CriuImagePath",
            "CriuWorkPath",
            "BinaryName",
            "Root",
            "CriuPath",
        ] {
            assert!(keys.iter().any(|line| line.starts_with(&format!("{key} = "))), "{key}");
        }
    }

    #[test]
    fn the_drop_ins_for_containerd_name_this_runtime_and_known_options() {
        let (v1, v2) = ("io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime");
        for (name, plugin, kind) in [
            ("containerd-1.x.toml", v1, crate::info::NAME),
            ("containerd-2.x.toml", v2, crate::info::NAME),
            ("containerd-2.x-systemd.toml", v2, "io.containerd.runc.v2"),
        ] {
            let path = format!("{}/../config/{name}", env!("CARGO_MANIFEST_DIR"));
            let text = std::fs::read_to_string(path).unwrap();
            let config: toml::Table = toml::from_str(&text).unwrap();
            let handler = &config["plugins"][plugin]["containerd"]["runtimes"]["myshim"];
            assert_eq!(handler["runtime_type"].as_str(), Some(kind));
            if let Some(options) = handler.get("options") {
                Keys::deserialize(options.clone()).unwrap();
            }
        }
    }

    #[test]
    fn a_file_is_read_where_one_is_named() {
        let path = std::env::temp_dir().join(format!("myshim-options-{}.toml", std::process::id()));
        std::fs::write(&path, "NoNewKeyring = true\n").unwrap();
        let value = message(|output| {
            output.write_string(2, path.to_str().unwrap())?;
            output.write_bytes(3, b"IoUid = 7")
        });
        let options = parse(Some(&any("runtimeoptions.v1.Options", value.clone()))).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(options, Options { no_new_keyring: true, ..Options::default() });
        let error = parse(Some(&any("runtimeoptions.v1.Options", value))).unwrap_err();
        let expected =
            format!("options: config_path {0}: open(\"{0}\", O_RDONLY): ENOENT", path.display());
        assert!(error.to_string().starts_with(&expected), "{error}");
    }

    #[test]
    fn what_is_no_file_is_not_read() {
        for path in ["/dev/zero", "/proc/self/fd", "/dev/tty"] {
            let value = message(|output| output.write_string(2, path));
            let error = parse(Some(&any("runtimeoptions.v1.Options", value))).unwrap_err();
            assert!(error.to_string().contains(path), "{error}");
        }
    }

    #[test]
    fn a_wrong_key_or_value_is_named_with_its_line() {
        for (body, start) in [
            (
                "IoUid = 1\n\nSystemdCgruop = true",
                "options: config_body line 3: unknown field `SystemdCgruop`",
            ),
            (
                "IoUid = 1\nIoGid = \"a\"",
                "options: config_body line 2: invalid type: string \"a\", expected u32",
            ),
            ("IoUid = -1", "options: config_body line 1: invalid value: integer `-1`"),
            ("SystemdCgroup true", "options: config_body line 1: "),
        ] {
            let error = from_toml(body).unwrap_err().to_string();
            assert!(error.starts_with(start), "{error}");
        }
    }

    #[test]
    fn the_options_of_containerd_1_are_taken() {
        let create = message(|output| {
            output.write_bool(1, true)?;
            output.write_string(7, "soft")?;
            output.write_bool(8, true)?;
            output.write_string(9, "/shims")?;
            output.write_uint32(10, 1)?;
            output.write_uint32(11, 2)
        });
        let options = parse(Some(&any("containerd.linux.runc.CreateOptions", create))).unwrap();
        let expected = Options {
            no_pivot_root: true,
            no_new_keyring: true,
            shim_cgroup: "/shims".to_owned(),
            io_uid: 1,
            io_gid: 2,
            ..Options::default()
        };
        assert_eq!(options, expected);
        let runc = message(|output| {
            output.write_string(1, "runc")?;
            output.write_bool(4, true)
        });
        let options = parse(Some(&any("containerd.linux.runc.RuncOptions", runc))).unwrap();
        assert!(options.systemd_cgroup);
        assert_eq!(options.warnings.len(), 1);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let error = parse(Some(&any("io.example.Options", Vec::new()))).unwrap_err();
        let expected = "options: type \"io.example.Options\" is not known to this runtime";
        assert_eq!(error.to_string(), expected);
        for url in ["containerd.runc.v1.Options", "runtimeoptions.v1.Options"] {
            assert!(parse(Some(&any(url, vec![0xff; 3]))).is_err());
        }
    }
}
