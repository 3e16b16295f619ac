//! Images for tests: busybox from its Debian package, and layers made on the spot.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// The busybox image as `docker save` would write it, made once by `scripts/base-image`.
pub fn busybox() -> Vec<u8> {
    archive("busybox", &["busybox"])
}

/// The Debian image, likewise.
pub fn debian() -> Vec<u8> {
    archive("debian", &["debian:bookworm"])
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
