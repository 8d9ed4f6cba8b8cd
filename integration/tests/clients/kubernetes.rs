//! The manifests and the installer of config/kubernetes, without a cluster: the API's own types
//! decode the manifests, and the installer's script works on a folder whose containerd is real.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use myshim_integration::claim::Claim;
use myshim_integration::command::{self, LIMIT, Output};
use myshim_integration::containerd::{shim_binary, workspace};
use myshim_integration::{Test, Version, claims};

pub(crate) const CLAIMS: &[Claim] = claims![
    the_manifests_are_of_the_apis_own_types.once(),
    the_installer_adds_the_handler_and_takes_it_away,
    the_installer_takes_back_what_containerd_does_not_start_with,
];

fn manifests(files: &[PathBuf]) -> Output {
    let mut command = Command::new(workspace().join(".tools/clients/manifests"));
    command.args(files);
    command::run(command, LIMIT)
}

fn the_manifests_are_of_the_apis_own_types(t: &Test) {
    let dir = workspace().join("config/kubernetes");
    let files: Vec<PathBuf> =
        ["runtimeclass.yaml", "installer.yaml", "pod.yaml"].map(|f| dir.join(f)).into();
    let said = manifests(&files).ok();
    assert_eq!(said.lines().count(), 3, "{said}");
    let wrong = fs::read_to_string(&files[0]).unwrap().replace("podFixed", "podFixd");
    let wrong = t.file("wrong.yaml", &wrong);
    manifests(&[wrong]).fails(&["unknown field", "podFixd"]);
}

/// A node: a folder with a root, the installer's own folder, and a containerd that is asked
/// whether it would start with the configuration.
struct Node<'a> {
    t: &'a Test,
    root: PathBuf,
    image: PathBuf,
}

impl<'a> Node<'a> {
    fn new(t: &'a Test, config: Option<&str>) -> Self {
        let (root, image) = (t.folder("node"), t.folder("image"));
        let shipped = workspace().join("config");
        for name in ["containerd-1.x.toml", "containerd-2.x.toml", "myshim.toml"] {
            fs::copy(shipped.join(name), image.join(name)).unwrap();
        }
        fs::copy(shipped.join("kubernetes/node-installer"), image.join("node-installer")).unwrap();
        fs::set_permissions(image.join("node-installer"), fs::Permissions::from_mode(0o755))
            .unwrap();
        fs::copy(shim_binary(t.version()), image.join("containerd-shim-myshim-v2")).unwrap();
        let node = Self { t, root, image };
        fs::create_dir_all(node.etc()).unwrap();
        if let Some(text) = config {
            fs::write(node.config(), text).unwrap();
        }
        node
    }

    fn etc(&self) -> PathBuf {
        self.root.join("etc/containerd")
    }

    fn config(&self) -> PathBuf {
        self.etc().join("config.toml")
    }

    fn program(&self) -> PathBuf {
        self.root.join("usr/local/bin/containerd-shim-myshim-v2")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.config()).unwrap_or_default()
    }

    /// A restart is the question whether containerd takes its configuration, and a line in a file.
    fn installer(&self, action: &str, shims: &str) -> Output {
        let log = self.t.dir.join("restarts");
        let containerd = self.t.version().bin().join("containerd");
        // The path of the imports is the node's own.
        let restart = format!(
            "echo restart >>{}; sed 's#\"/etc/containerd/conf.d#\"{etc}/conf.d#' {etc}/config.toml \
             >{etc}/here.toml && {} --config {etc}/here.toml config dump >{}; s=$?; \
             rm {etc}/here.toml; exit $s",
            log.display(),
            containerd.display(),
            self.dump().display(),
            etc = self.etc().display(),
        );
        let mut command = Command::new(self.image.join("node-installer"));
        command.arg(action).env("HOST", &self.root).env("RESTART", restart);
        command.env("READY", "true").env("SHIMS", shims);
        command::run(command, LIMIT)
    }

    fn restarts(&self) -> usize {
        fs::read_to_string(self.t.dir.join("restarts")).unwrap_or_default().lines().count()
    }

    fn dump(&self) -> PathBuf {
        self.t.dir.join("dump.toml")
    }

    /// What containerd made of all its files.
    fn dumped(&self) -> String {
        fs::read_to_string(self.dump()).unwrap()
    }
}

/// A node's configuration before, with a setting that must survive.
fn before(version: Version) -> String {
    match version {
        Version::V16 => "version = 2\n\n[plugins.\"io.containerd.grpc.v1.cri\"]\n  \
                         max_container_log_line_size = 4711\n\n\
                         [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\n  \
                         runtime_type = \"io.containerd.runc.v2\"\n"
            .to_owned(),
        Version::V2 => "version = 3\n\n[plugins.'io.containerd.cri.v1.runtime']\n  \
                        max_container_log_line_size = 4711\n"
            .to_owned(),
    }
}

fn has_handler(dump: &str) -> bool {
    dump.contains("runtimes.myshim]") && dump.contains("io.containerd.myshim.v2")
}

fn the_installer_adds_the_handler_and_takes_it_away(t: &Test) {
    let text = before(t.version());
    let node = Node::new(t, Some(&text));
    node.installer("install", "true").ok();
    assert!(has_handler(&node.dumped()), "{}", node.dumped());
    assert!(node.dumped().contains("4711"), "{}", node.dumped());
    assert!(fs::read(node.program()).unwrap() == fs::read(shim_binary(t.version())).unwrap());
    assert_eq!(node.restarts(), 1);
    // Again: nothing to do, no restart. A new program: one.
    node.installer("install", "true").ok();
    assert_eq!(node.restarts(), 1);
    fs::write(node.image.join("containerd-shim-myshim-v2"), "the next version").unwrap();
    node.installer("install", "true").ok();
    assert_eq!(
        (node.restarts(), fs::read_to_string(node.program()).unwrap().as_str()),
        (2, "the next version")
    );
    assert_eq!(
        node.text().matches("runtimes.myshim]").count(),
        usize::from(t.version() == Version::V16)
    );

    // As long as containers run, nothing is taken away.
    node.installer("remove", "echo 4711").fails(&["nothing is removed"]);
    assert!(node.program().exists() && node.restarts() == 2);
    node.installer("remove", "true").ok();
    assert_eq!((node.text(), node.restarts()), (text, 3));
    assert!(!has_handler(&node.dumped()));
    assert_eq!(files(&node.root), ["etc/containerd/config.toml"]);
}

fn the_installer_takes_back_what_containerd_does_not_start_with(t: &Test) {
    let text = before(t.version());
    let node = Node::new(t, Some(&text));
    let drop_in = match t.version() {
        Version::V16 => "containerd-1.x.toml",
        Version::V2 => "containerd-2.x.toml",
    };
    fs::write(node.image.join(drop_in), "[plugins\n").unwrap();
    node.installer("install", "true").fails(&["it is taken away again"]);
    assert_eq!((node.text(), node.restarts()), (text, 2));
}

/// All files below a folder, by their paths in it.
fn files(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                found.push(entry.path().strip_prefix(root).unwrap().to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    found
}
