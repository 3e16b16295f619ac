//! Images for tests: busybox from its Debian package, and layers made on the spot.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// The busybox image as `docker save` would write it, made once by `scripts/base-image`.
pub fn busybox() -> Vec<u8> {
    archive("busybox", &["busybox"])
}

/// The busybox program itself, out of the image.
pub fn busybox_binary() -> Vec<u8> {
    let archive = busybox();
    let mut archive = tar::Archive::new(&archive[..]);
    for entry in archive.entries().expect("own archive") {
        let entry = entry.expect("own archive");
        if !entry.path().expect("own archive").ends_with("layer.tar") {
            continue;
        }
        let mut layer = tar::Archive::new(entry);
        for entry in layer.entries().expect("own layer") {
            let mut entry = entry.expect("own layer");
            let file = entry.header().entry_type().is_file();
            if file && entry.path().expect("own layer").starts_with("./bin") {
                let mut program = Vec::new();
                std::io::Read::read_to_end(&mut entry, &mut program).expect("memory");
                return program;
            }
        }
    }
    panic!("the busybox image has no program");
}

/// The Debian image, likewise.
pub fn debian() -> Vec<u8> {
    archive("debian", &["debian:bookworm"])
}

/// A Debian image with packages installed, tagged `name`.
pub fn with_packages(name: &str, packages: &[&str]) -> Vec<u8> {
    archive(name, &["--include", &packages.join(","), "--tag", name, "debian:bookworm"])
}

fn archive(name: &str, base: &[&str]) -> Vec<u8> {
    let path = images().join(format!("{name}.tar"));
    // Several test processes may get here at once; the one with the lock makes the file.
    let lock = std::fs::File::create(images().join(format!(".{name}.lock"))).expect("lock file");
    lock.lock().expect("lock");
    if !path.exists() {
        let status = Command::new(repository().join("scripts/base-image"))
            .arg("--output")
            .arg(&path)
            .args(base)
            .status()
            .expect("base-image starts");
        assert!(status.success(), "scripts/base-image {base:?}");
    }
    std::fs::read(&path).expect("the image was made")
}

fn images() -> &'static PathBuf {
    static IMAGES: OnceLock<PathBuf> = OnceLock::new();
    IMAGES.get_or_init(|| {
        let path = std::env::var_os("BOXSHIP_IMAGES")
            .map_or_else(|| repository().join("target/images"), PathBuf::from);
        std::fs::create_dir_all(&path).expect("image directory");
        path
    })
}

pub fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Builds an image on top of busybox (or of nothing) for `docker load`.
#[derive(Debug, Clone)]
pub struct Builder {
    tag: String,
    layers: Vec<Vec<u8>>,
    config: serde_json::Value,
}

impl Builder {
    /// An image without layers.
    pub fn scratch(tag: &str) -> Self {
        let config = serde_json::json!({
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "Cmd": ["sh"],
        });
        Self { tag: tag.to_owned(), layers: Vec::new(), config }
    }

    /// An image that starts with busybox's layer.
    pub fn busybox(tag: &str) -> Self {
        let mut image = Self::scratch(tag);
        let archive = busybox();
        let mut archive = tar::Archive::new(&archive[..]);
        for entry in archive.entries().expect("own archive") {
            let mut entry = entry.expect("own archive");
            if entry.path().expect("own archive").ends_with("layer.tar") {
                let mut layer = Vec::new();
                std::io::Read::read_to_end(&mut entry, &mut layer).expect("memory");
                image.layers.push(layer);
            }
        }
        image
    }

    /// Adds a layer given as an uncompressed tar.
    #[must_use]
    pub fn layer(mut self, tar: Vec<u8>) -> Self {
        self.layers.push(tar);
        self
    }

    /// Sets a member of the run configuration (`Entrypoint`, `Env`, ...).
    #[must_use]
    pub fn set(mut self, key: &str, value: serde_json::Value) -> Self {
        self.config[key] = value;
        self
    }

    /// The docker-archive.
    pub fn archive(&self) -> Vec<u8> {
        let config = self.document();
        let config_name = format!("{}.json", sha256(config.as_bytes()));
        let diff_ids = self.diff_ids();
        let manifest = serde_json::json!([{
            "Config": config_name,
            "RepoTags": [self.tag],
            "Layers": diff_ids.iter().map(|id| format!("{id}/layer.tar")).collect::<Vec<_>>(),
        }])
        .to_string();
        let mut archive = Tar::default();
        archive.file(&config_name, 0o644, config.as_bytes());
        for (id, layer) in diff_ids.iter().zip(&self.layers) {
            archive.file(&format!("{id}/layer.tar"), 0o644, layer);
        }
        archive.file("manifest.json", 0o644, manifest.as_bytes());
        archive.finish()
    }

    /// The same image as an OCI layout.
    pub fn oci_layout(&self) -> Vec<u8> {
        const IMAGE: &str = "application/vnd.oci.image";
        let mut archive = Tar::default();
        let mut blob = |kind: &str, bytes: &[u8]| {
            let digest = sha256(bytes);
            archive.file(&format!("blobs/sha256/{digest}"), 0o644, bytes);
            serde_json::json!({
                "mediaType": format!("{IMAGE}.{kind}"),
                "digest": format!("sha256:{digest}"),
                "size": bytes.len(),
            })
        };
        let config = blob("config.v1+json", self.document().as_bytes());
        let layers: Vec<_> = self.layers.iter().map(|layer| blob("layer.v1.tar", layer)).collect();
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": format!("{IMAGE}.manifest.v1+json"),
            "config": config,
            "layers": layers,
        });
        let mut manifest = blob("manifest.v1+json", manifest.to_string().as_bytes());
        manifest["annotations"] = serde_json::json!({"io.containerd.image.name": self.tag});
        let index = serde_json::json!({"schemaVersion": 2, "manifests": [manifest]}).to_string();
        archive.file("index.json", 0o644, index.as_bytes());
        archive.file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#);
        archive.finish()
    }

    fn diff_ids(&self) -> Vec<String> {
        self.layers.iter().map(|layer| sha256(layer)).collect()
    }

    /// The image's configuration.
    fn document(&self) -> String {
        let diff_ids = self.diff_ids();
        serde_json::json!({
            "architecture": "amd64",
            "os": "linux",
            "created": "2024-01-01T00:00:00Z",
            "config": self.config,
            "rootfs": {
                "type": "layers",
                "diff_ids": diff_ids.iter().map(|id| format!("sha256:{id}")).collect::<Vec<_>>(),
            },
            "history": diff_ids.iter().map(|_| serde_json::json!({"created_by": "testkit"}))
                .collect::<Vec<_>>(),
        })
        .to_string()
    }
}

/// The hexadecimal sha256 of bytes.
pub fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    spec::Digest::from_bytes(sha2::Sha256::digest(bytes).into()).hex()
}

/// A tar under construction.
#[derive(Debug, Default)]
pub struct Tar(Vec<u8>);

impl Tar {
    pub fn file(&mut self, path: &str, mode: u32, data: &[u8]) -> &mut Self {
        self.entry(path, tar::EntryType::Regular, "", mode, data)
    }

    pub fn directory(&mut self, path: &str) -> &mut Self {
        self.entry(path, tar::EntryType::Directory, "", 0o755, b"")
    }

    pub fn symlink(&mut self, path: &str, target: &str) -> &mut Self {
        self.entry(path, tar::EntryType::Symlink, target, 0o777, b"")
    }

    pub fn hardlink(&mut self, path: &str, target: &str) -> &mut Self {
        self.entry(path, tar::EntryType::Link, target, 0o644, b"")
    }

    /// Writes the names as they are, hostile or not.
    pub fn entry(
        &mut self,
        path: &str,
        kind: tar::EntryType,
        link: &str,
        mode: u32,
        data: &[u8],
    ) -> &mut Self {
        let mut header = tar::Header::new_ustar();
        let bytes = header.as_mut_bytes();
        bytes[..path.len()].copy_from_slice(path.as_bytes());
        bytes[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        header.set_size(data.len() as u64);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn finish(&mut self) -> Vec<u8> {
        let mut archive = std::mem::take(&mut self.0);
        archive.resize(archive.len() + 1024, 0);
        archive
    }
}
