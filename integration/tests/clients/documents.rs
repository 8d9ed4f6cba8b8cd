//! The commands in the documents for people: every block of shell is run, in order, on a machine
//! that looks as theirs does. /etc, /run, /usr/local, /opt and /var/lib are the claim's own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use myshim_integration::claim::Claim;
use myshim_integration::command;
use myshim_integration::containerd::{shim_binary, workspace};
use myshim_integration::host;
use myshim_integration::image::Image;
use myshim_integration::{Test, claims};

pub(crate) const CLAIMS: &[Claim] = claims![
    the_commands_of_install_work.own_network().once().within(180),
    the_commands_of_configure_work.own_network().once().within(180),
    the_commands_of_operate_work.own_network().once().within(180),
    the_commands_of_migrate_work.own_network().once().within(180),
];

/// The image that the documents use, which is not pulled.
const IMAGE: &str = "docker.io/library/busybox:latest";

/// Makes the machine and starts its containerd; `$S` is the claim's folder.
const BEGIN: &str = r#"
set -eu
mount --make-rprivate /
mkdir -p "$S/m" && mount -t tmpfs tmpfs "$S/m"
for d in etc usr/local; do
  mkdir -p "$S/m/$d" "$S/m/w/$d"
  mount -t overlay overlay -o "lowerdir=/$d,upperdir=$S/m/$d,workdir=$S/m/w/$d" "/$d"
done
for d in run opt var/lib; do mount -t tmpfs tmpfs "/$d"; done
trap 'kill $(cat /run/containerd.pid)' EXIT
mkdir -p /etc/containerd
systemctl restart containerd
ctr images import "$S/image.tar" >/dev/null
"#;

/// What the documents call and this machine has no use for, or must not do: a service manager,
/// and a build.
const SYSTEMCTL: &str = r#"[ "$*" = 'restart containerd' ] || exit 1
if [ -e /run/containerd.pid ]; then
  kill "$(cat /run/containerd.pid)"
  while [ -e "/proc/$(cat /run/containerd.pid)" ]; do sleep 0.05; done
fi
env PATH=/usr/local/bin "$CONTAINERD" >>"$S/log" 2>&1 &
echo $! >/run/containerd.pid
n=0
until ctr version >/dev/null 2>&1; do
  n=$((n + 1))
  [ $n -lt 400 ] || { cat "$S/log" >&2; exit 1; }
  sleep 0.05
done"#;
const MAKE: &str = r#"exec /usr/bin/make --old-file build DIST="$DIST" "$@""#;

/// The blocks of shell of a document, one after the other.
fn blocks(document: &str) -> String {
    let (mut script, mut inside) = (String::new(), false);
    for line in document.lines() {
        match line.trim() {
            "``` sh" => inside = true,
            "```" => inside = false,
            _ if inside => script.push_str(&format!("{}\n", line.trim_start())),
            _ => {}
        }
    }
    script
}

fn runs(t: &Test, document: &str) {
    let text = fs::read_to_string(workspace().join("docs").join(document)).unwrap();
    let blocks = blocks(&text);
    assert!(blocks.lines().count() > 1, "{document} has no commands");
    Image::busybox().archive(&t.dir.join("image.tar"), IMAGE);
    let bin = t.folder("bin");
    for (name, script) in [("systemctl", SYSTEMCTL), ("make", MAKE)] {
        let file = bin.join(name);
        fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }
    // The program is there before the first command, but where the document installs it.
    let shim = shim_binary(t.version());
    let given = format!("install -m 0755 {} /usr/local/bin/\n", shim.display());
    let given = if blocks.contains("make install") { "" } else { &given };
    let script = t.file("script", &format!("{BEGIN}{given}set -x\n{blocks}"));
    let containerd = t.version().bin();
    let path = format!(
        "{}:{}:{}:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        bin.display(),
        containerd.display(),
        workspace().join(".tools/clients").display()
    );
    let mut command = Command::new("/usr/bin/unshare");
    command.args(["--mount", "/bin/sh"]).arg(script).current_dir(workspace());
    command.env_clear().env("PATH", path).env("HOME", &t.dir).env("S", &t.dir);
    command.env("CONTAINERD", containerd.join("containerd")).env("DIST", shim.parent().unwrap());
    command.env("CONTAINERD_NAMESPACE", format!("docs-{}", t.tag));
    command::run(command, Duration::from_secs(150)).ok();
    for root in host::cgroup_roots() {
        remove_parent(&root.join(format!("docs-{}", t.tag)));
    }
    t.finish();
}

/// The folder of the namespace's cgroups: not removed when something is left in it.
fn remove_parent(dir: &Path) {
    fs::remove_dir(dir).ok();
}

fn the_commands_of_install_work(t: &Test) {
    runs(t, "install.md");
}

fn the_commands_of_configure_work(t: &Test) {
    runs(t, "configure.md");
}

fn the_commands_of_operate_work(t: &Test) {
    runs(t, "operate.md");
}

fn the_commands_of_migrate_work(t: &Test) {
    runs(t, "migrate.md");
}
