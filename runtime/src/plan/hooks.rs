//! `hooks`.

use oci_spec::runtime;

use super::{Hook, Hooks};
use crate::error::{Error, Result};

#[allow(deprecated, reason = "prestart hooks are still in use, and so in the specification")]
pub(super) fn plan(listed: Option<&runtime::Hooks>) -> Result<Hooks> {
    let Some(listed) = listed else {
        return Ok(Hooks::default());
    };
    Ok(Hooks {
        prestart: list(listed.prestart(), "prestart")?,
        create_runtime: list(listed.create_runtime(), "createRuntime")?,
        create_container: list(listed.create_container(), "createContainer")?,
        start_container: list(listed.start_container(), "startContainer")?,
        poststart: list(listed.poststart(), "poststart")?,
        poststop: list(listed.poststop(), "poststop")?,
    })
}

fn list(listed: &Option<Vec<runtime::Hook>>, kind: &str) -> Result<Vec<Hook>> {
    let listed = listed.as_deref().unwrap_or_default();
    listed.iter().enumerate().map(|(index, listed)| hook(listed, kind, index)).collect()
}

fn hook(listed: &runtime::Hook, kind: &str, index: usize) -> Result<Hook> {
    let refuse =
        |field: &str, why: String| Err(Error::field(format!("hooks.{kind}[{index}].{field}"), why));
    let path = listed.path().clone();
    if !path.is_absolute() {
        return refuse("path", format!("{path:?} is not absolute"));
    }
    let args = match listed.args() {
        Some(args) if !args.is_empty() => args.clone(),
        _ => vec![path.to_string_lossy().into_owned()],
    };
    let timeout_secs = match listed.timeout().map(u64::try_from) {
        None => None,
        Some(Ok(seconds)) if seconds > 0 => Some(seconds),
        Some(_) => return refuse("timeout", "must be greater than zero".to_owned()),
    };
    Ok(Hook { path, args, env: listed.env().clone().unwrap_or_default(), timeout_secs })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan_of(json: &str) -> Result<Hooks> {
        plan(Some(&serde_json::from_str(json).unwrap()))
    }

    #[test]
    fn every_kind_of_hook_is_kept_in_order() {
        let hooks = plan_of(
            r#"{"prestart":[{"path":"/a"},{"path":"/b"}],"createRuntime":[{"path":"/c"}],
            "createContainer":[{"path":"/d"}],"startContainer":[{"path":"/e"}],
            "poststart":[{"path":"/f"}],"poststop":[{"path":"/g","args":["g","x"],
            "env":["A=B"],"timeout":5}]}"#,
        );
        let hooks = hooks.unwrap();
        assert_eq!(hooks.prestart[1].args, ["/b"]);
        assert_eq!(hooks.create_runtime[0].args, ["/c"]);
        assert_eq!(hooks.create_container[0].args, ["/d"]);
        assert_eq!(hooks.start_container[0].args, ["/e"]);
        assert_eq!(hooks.poststart[0].timeout_secs, None);
        assert_eq!(hooks.poststop[0].args, ["g", "x"]);
        assert_eq!(hooks.poststop[0].timeout_secs, Some(5));
    }

    #[test]
    fn a_relative_path_and_a_timeout_below_one_are_refused() {
        assert_eq!(
            plan_of(r#"{"poststop":[{"path":"/a"},{"path":"b"}]}"#).unwrap_err().to_string(),
            "hooks.poststop[1].path: \"b\" is not absolute"
        );
        for timeout in [0, -1] {
            let json = format!(r#"{{"createRuntime":[{{"path":"/a","timeout":{timeout}}}]}}"#);
            assert_eq!(
                plan_of(&json).unwrap_err().to_string(),
                "hooks.createRuntime[0].timeout: must be greater than zero"
            );
        }
    }
}
