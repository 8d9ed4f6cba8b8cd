//! An image made on the spot from Debian's static busybox: as an OCI archive for
//! `ctr images import`, or unpacked as a root directory.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::command;
use crate::containerd::hex;

/// The name under which the image is imported.
pub const NAME: &str = "myshim.test/busybox:1";

#[derive(Debug, Clone)]
enum Entry {
    Dir { mode: u32 },
    File { mode: u32, data: Vec<u8> },
    Link { to: String },
}

/// A root directory to be: paths without leading slash, parents before children.
#[derive(Debug, Clone, Default)]
pub struct Image {
    entries: Vec<(String, Entry)>,
    command: Vec<String>,
    user: String,
}

impl Image {
    /// busybox with all its applets, users `root`, `nobody` and `app` (1000:1000, also in group
    /// `extra`, 2000), and the usual empty directories.
    ///
    /// # Panics
    /// When there is no static busybox (Debian's busybox-static).
    #[must_use]
    pub fn busybox() -> Self {
        let program = fs::read("/bin/busybox").expect("busybox-static is not installed");
        let dynamic = program.windows(7).any(|bytes| bytes == b".interp");
        assert!(!dynamic, "/bin/busybox needs a loader: busybox-static is not installed");
        let mut list = Command::new("/bin/busybox");
        list.arg("--list");
        let mut image = Self::default();
        for dir in ["bin", "dev", "etc", "home", "home/app", "proc", "root", "sys", "var"] {
            image = image.dir(dir, 0o755);
        }
        image = image.dir("tmp", 0o1777).file("bin/busybox", 0o755, program);
        for applet in command::run(list, command::LIMIT).ok().lines() {
            if applet != "busybox" {
                image = image.link(&format!("bin/{applet}"), "busybox");
            }
        }
        image
            .file("etc/passwd", 0o644, PASSWD)
            .file("etc/group", 0o644, GROUP)
            .file("etc/hostname", 0o644, "image\n")
            .file("etc/plain", 0o644, "a file\n")
            .link("etc/absolute", "/etc/plain")
            .file("bin/selfie", 0o755, "#!/proc/self/exe\n")
    }

    /// Adds a directory.
    #[must_use]
    pub fn dir(mut self, path: &str, mode: u32) -> Self {
        self.entries.push((path.to_owned(), Entry::Dir { mode }));
        self
    }

    /// Adds a file.
    #[must_use]
    pub fn file(mut self, path: &str, mode: u32, data: impl Into<Vec<u8>>) -> Self {
        self.entries.push((path.to_owned(), Entry::File { mode, data: data.into() }));
        self
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn link(mut self, path: &str, to: &str) -> Self {
        self.entries.push((path.to_owned(), Entry::Link { to: to.to_owned() }));
        self
    }

    /// Sets what a container of it runs; a shell unless said.
    #[must_use]
    pub fn command(mut self, command: &[&str]) -> Self {
        self.command = command.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Sets whom a container of it runs as; root unless said.
    #[must_use]
    pub fn user(mut self, user: &str) -> Self {
        user.clone_into(&mut self.user);
        self
    }

    /// Makes the root directory `root`.
    ///
    /// # Panics
    /// When a file cannot be made.
    pub fn unpack(&self, root: &Path) {
        fs::create_dir_all(root).unwrap();
        for (path, entry) in &self.entries {
            let path = root.join(path);
            match entry {
                Entry::Dir { mode } => {
                    fs::create_dir(&path).unwrap();
                    fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
                }
                Entry::File { mode, data } => {
                    fs::write(&path, data).unwrap();
                    fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
                }
                Entry::Link { to } => symlink(to, &path).unwrap(),
            }
        }
    }

    /// Writes the image as an OCI archive, named `name`.
    ///
    /// # Panics
    /// When the archive cannot be written.
    pub fn archive(&self, file: &Path, name: &str) {
        let layer = self.layer();
        let command = match &*self.command {
            [] => vec!["/bin/sh".to_owned()],
            command => command.to_vec(),
        };
        let config = json!({
            "architecture": architecture(), "os": "linux",
            "config": {"Env": ["PATH=/bin"], "Cmd": command, "WorkingDir": "/", "User": self.user},
            "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
        });
        let config = config.to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": described("application/vnd.oci.image.config.v1+json", &config),
            "layers": [described("application/vnd.oci.image.layer.v1.tar", &layer)],
        });
        let manifest = manifest.to_string().into_bytes();
        let mut entry = described(MANIFEST, &manifest);
        entry["annotations"] = json!({"io.containerd.image.name": name});
        let index = json!({"schemaVersion": 2, "manifests": [entry]});

        let mut tar = Tar::default();
        tar.file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#);
        tar.file("index.json", 0o644, index.to_string().as_bytes());
        for blob in [&layer, &config, &manifest] {
            tar.file(&format!("blobs/sha256/{}", hex(&Sha256::digest(blob))), 0o644, blob);
        }
        fs::write(file, tar.finish()).unwrap();
    }

    fn layer(&self) -> Vec<u8> {
        let mut tar = Tar::default();
        for (path, entry) in &self.entries {
            match entry {
                Entry::Dir { mode } => tar.dir(path, *mode),
                Entry::File { mode, data } => tar.file(path, *mode, data),
                Entry::Link { to } => tar.link(path, to),
            }
        }
        tar.finish()
    }
}

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
                      app:x:1000:1000:app:/home/app:/bin/sh\n\
                      nobody:x:65534:65534:nobody:/:/bin/false\n";
const GROUP: &str = "root:x:0:\napp:x:1000:\nextra:x:2000:app\nnogroup:x:65534:\n";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// How long an import may take.
pub const IMPORT: Duration = Duration::from_secs(60);

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn digest(blob: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(blob)))
}

fn described(media_type: &str, blob: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(blob), "size": blob.len()})
}

/// An archive in the ustar format of POSIX.1-1988; names up to 100 bytes.
#[derive(Debug, Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn file(&mut self, name: &str, mode: u32, data: &[u8]) {
        self.header(name, mode, b'0', data.len(), "");
        self.0.extend_from_slice(data);
        self.pad();
    }

    fn dir(&mut self, name: &str, mode: u32) {
        self.header(&format!("{name}/"), mode, b'5', 0, "");
    }

    fn link(&mut self, name: &str, to: &str) {
        self.header(name, 0o777, b'2', 0, to);
    }

    fn header(&mut self, name: &str, mode: u32, kind: u8, size: usize, link: &str) {
        assert!(name.len() <= 100 && link.len() <= 100, "too long for ustar: {name}");
        let mut block = [0u8; 512];
        let mut put = |at: usize, text: &[u8]| block[at..at + text.len()].copy_from_slice(text);
        put(0, name.as_bytes());
        put(100, format!("{mode:07o}").as_bytes());
        put(108, b"0000000");
        put(116, b"0000000");
        put(124, format!("{size:011o}").as_bytes());
        put(136, b"00000000000");
        put(148, b"        ");
        put(156, &[kind]);
        put(157, link.as_bytes());
        put(257, b"ustar\x0000");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&block);
    }

    fn pad(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_read_back_by_tar() {
        let file = std::env::temp_dir().join(format!("myshim-tar-{}", std::process::id()));
        let image = Image::default().dir("a", 0o755).file("a/b", 0o640, "text").link("a/c", "b");
        fs::write(&file, image.layer()).unwrap();
        let mut tar = Command::new("tar");
        tar.arg("-tvf").arg(&file);
        let listing = command::run(tar, command::LIMIT).ok();
        fs::remove_file(&file).unwrap();
        let lines: Vec<_> = listing.lines().collect();
        assert!(lines[0].starts_with("drwxr-xr-x") && lines[0].ends_with(" a/"), "{listing}");
        assert!(lines[1].starts_with("-rw-r-----") && lines[1].ends_with(" a/b"), "{listing}");
        assert!(lines[2].ends_with("a/c -> b"), "{listing}");
    }
}
