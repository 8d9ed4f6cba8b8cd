//! The plan of a tenant: a process that comes into a container that is there.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::host::Host;
use super::process::{Context, Inherited};
use super::{IdMaps, Namespaces, Plan, Process, Seccomp, process};
use crate::error::Result;
use crate::spec::process_from_json;

/// What of a container's plan its tenants need: part of its state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExecTemplate {
    /// The container's id.
    pub id: String,
    /// The bundle: an absolute path on the host.
    pub bundle: PathBuf,
    /// `ociVersion`, for the state that a seccomp agent gets.
    pub oci_version: String,
    /// The spec's annotations, for that state.
    pub annotations: BTreeMap<String, String>,
    /// Those that are not the host's are joined.
    pub namespaces: Namespaces,
    /// The maps of the container's user namespace, as far as they are known.
    pub id_maps: Option<IdMaps>,
    /// The container's init: what a tenant does not say itself, it takes from there.
    pub process: Process,
    /// The container's filter: it holds for tenants too.
    pub seccomp: Option<Seccomp>,
}

impl ExecTemplate {
    /// The template for tenants of the container with this plan.
    pub fn of(plan: &Plan) -> ExecTemplate {
        ExecTemplate {
            id: plan.id.clone(),
            bundle: plan.bundle.clone(),
            oci_version: plan.oci_version.clone(),
            annotations: plan.annotations.clone(),
            namespaces: plan.namespaces.clone(),
            id_maps: plan.id_maps.clone().or_else(|| plan.joined_id_maps.clone()),
            process: plan.process.clone(),
            seccomp: plan.seccomp.clone(),
        }
    }
}

/// Everything that is done to make one tenant, beside what its container is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessPlan {
    /// The process, resolved.
    pub process: Process,
    /// See [`Plan::warnings`].
    pub warnings: Vec<String>,
}

impl ProcessPlan {
    /// Plans a tenant from the text of its process.json.
    ///
    /// Capabilities, resource limits, labels, oom score, scheduler, I/O priority, CPU affinity and
    /// umask that it does not give are the init's; memory policy and personality always are.
    ///
    /// # Errors
    /// [`crate::Error::field`] with a path that begins with `process`.
    pub fn new(process_json: &str, container: &ExecTemplate, host: &Host) -> Result<ProcessPlan> {
        let spec = process_from_json(process_json)?;
        let context = Context {
            host,
            id_maps: container.id_maps.as_ref(),
            inherited: Inherited::Tenant(&container.process),
        };
        let mut warnings = Vec::new();
        let process = process::plan(&spec, &context, &mut warnings)?;
        Ok(ProcessPlan { process, warnings })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{CreateOptions, CreateRequest};
    use crate::spec::Spec;

    fn template() -> ExecTemplate {
        let text = br#"{"ociVersion":"1.3.0","root":{"path":"/r"},
            "process":{"cwd":"/","args":["a"],"oomScoreAdj":7},
            "linux":{"namespaces":[{"type":"mount"}],"personality":{"domain":"LINUX32"},
            "seccomp":{"defaultAction":"SCMP_ACT_ALLOW"}}}"#;
        let request = CreateRequest {
            id: "c1".to_owned(),
            bundle: PathBuf::from("/bundle"),
            state_dir: PathBuf::from("/state"),
            rootfs: Vec::new(),
            options: CreateOptions { no_new_keyring: true, ..CreateOptions::default() },
            pid_file: None,
        };
        let spec = Spec::from_json(text).unwrap();
        ExecTemplate::of(&Plan::new(&request, &spec, &Host::example()).unwrap())
    }

    #[test]
    fn a_tenant_has_its_containers_filter_and_properties() {
        let template = template();
        assert!(!template.seccomp.as_ref().unwrap().bpf.is_empty());
        let json = r#"{"cwd":"/","args":["b"],"capabilities":{"bounding":["CAP_X"]}}"#;
        let plan = ProcessPlan::new(json, &template, &Host::example()).unwrap();
        assert_eq!(plan.process.oom_score_adj, Some(7));
        assert_eq!(plan.process.personality, Some(8));
        assert!(!plan.process.new_keyring);
        assert_eq!(plan.warnings.len(), 1);
    }

    #[test]
    fn a_tenant_is_refused_by_field_as_an_init_is() {
        let refusal =
            |json| ProcessPlan::new(json, &template(), &Host::example()).unwrap_err().to_string();
        assert_eq!(refusal(r#"{"cwd":"/","args":[]}"#), "process.args: is empty");
        assert_eq!(
            refusal(r#"{"cwd":"/","args":[1]}"#),
            "process.args[0]: invalid type: integer `1`, expected a string"
        );
    }

    #[test]
    fn a_template_survives_the_way_through_json() {
        let template = template();
        let text = serde_json::to_string(&template).unwrap();
        assert_eq!(serde_json::from_str::<ExecTemplate>(&text).unwrap(), template);
    }
}
