//! Builds `docker-init`, a freestanding program that `sys::init` embeds.

use std::path::PathBuf;
use std::process::Command;

fn main() {
    let source = "docker-init/main.rs";
    println!("cargo:rerun-if-changed={source}");
    println!("cargo:rerun-if-changed=build.rs");
    let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    let output = PathBuf::from(variable("OUT_DIR")).join("docker-init");
    let mut rustc = Command::new(variable("RUSTC"));
    rustc
        .args(["--edition=2024", "--crate-name=docker_init", "--crate-type=bin"])
        .args(["-Copt-level=s", "-Cpanic=abort", "-Cstrip=symbols", "-Cdebuginfo=0"])
        .args(["-Crelocation-model=static", "-Ctarget-feature=+crt-static"])
        .args(["-Clink-arg=-nostartfiles", "-Clink-arg=-nostdlib", "-Clink-arg=-static"])
        .arg("-Clink-arg=-Wl,--build-id=none,-z,noseparate-code,-z,noexecstack,--no-eh-frame-hdr")
        .args(["--target", &variable("TARGET"), "-o"])
        .arg(output)
        .arg(source);
    if let Ok(linker) = std::env::var("RUSTC_LINKER") {
        rustc.arg(format!("-Clinker={linker}"));
    }
    let status = rustc.status().expect("rustc can be started: cargo just used it");
    assert!(status.success(), "docker-init does not compile");
}
