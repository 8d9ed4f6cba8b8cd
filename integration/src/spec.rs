//! A config.json to edit: what `ctr oci spec` prints, pointed at a root directory of the test.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

/// An OCI runtime specification, as JSON.
#[derive(Debug, Clone)]
pub struct Spec(pub Value);

impl Spec {
    /// Sets the value at a JSON pointer, as in `/process/args`; what is on the way is made.
    ///
    /// # Panics
    /// When the way leads through something that is no object.
    #[must_use]
    pub fn with(mut self, pointer: &str, value: Value) -> Self {
        let mut place = &mut self.0;
        for key in pointer.trim_start_matches('/').split('/') {
            place = match place {
                Value::Array(items) => &mut items[key.parse::<usize>().unwrap()],
                other => &mut other[key],
            };
        }
        *place = value;
        self
    }

    /// Removes the value at a JSON pointer.
    #[must_use]
    pub fn without(mut self, pointer: &str) -> Self {
        let (parent, key) = pointer.rsplit_once('/').unwrap_or(("", pointer));
        if let Some(Value::Object(map)) = self.0.pointer_mut(parent) {
            map.remove(key);
        }
        self
    }

    /// Appends to the list at a JSON pointer, which is made when it is not there.
    ///
    /// # Panics
    /// When there is something else.
    #[must_use]
    pub fn push(mut self, pointer: &str, value: Value) -> Self {
        if self.0.pointer(pointer).is_none_or(Value::is_null) {
            self = self.with(pointer, json!([]));
        }
        self.0.pointer_mut(pointer).and_then(Value::as_array_mut).unwrap().push(value);
        self
    }

    /// Sets the program.
    #[must_use]
    pub fn args(self, args: &[&str]) -> Self {
        self.with("/process/args", json!(args))
    }

    /// Sets a shell script as program.
    #[must_use]
    pub fn shell(self, script: &str) -> Self {
        self.args(&["sh", "-c", script])
    }

    /// Adds a mount.
    #[must_use]
    pub fn mount(self, kind: &str, source: &str, destination: &str, options: &[&str]) -> Self {
        let mount = json!({
            "type": kind, "source": source, "destination": destination, "options": options,
        });
        self.push("/mounts", mount)
    }

    /// Gives all five sets of capabilities.
    #[must_use]
    pub fn capabilities(self, names: &[&str]) -> Self {
        let sets = ["bounding", "effective", "inheritable", "permitted", "ambient"];
        sets.iter().fold(self, |spec, set| {
            spec.with(&format!("/process/capabilities/{set}"), json!(names))
        })
    }

    /// Removes the namespaces of `kind`: the host's is used.
    #[must_use]
    pub fn host_namespace(mut self, kind: &str) -> Self {
        let list = self.0.pointer_mut("/linux/namespaces").and_then(Value::as_array_mut);
        list.into_iter().for_each(|list| list.retain(|namespace| namespace["type"] != kind));
        self
    }

    /// Makes the namespace of `kind` the one at `path`.
    #[must_use]
    pub fn join(self, kind: &str, path: &str) -> Self {
        self.host_namespace(kind).push("/linux/namespaces", json!({"type": kind, "path": path}))
    }

    /// Adds an annotation.
    ///
    /// # Panics
    /// When the annotations are no object.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.0["annotations"][key] = json!(value);
        self
    }

    /// Writes it to a file.
    ///
    /// # Panics
    /// When that fails.
    pub fn write(&self, file: &Path) {
        fs::write(file, self.0.to_string()).unwrap();
    }
}
