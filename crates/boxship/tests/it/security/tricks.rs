//! Class X: the kernel.

use crate::{daemon, field};

#[test]
fn x01_overlay_tricks_are_off() {
    let daemon = daemon();
    let mounts = daemon.boxship(&["run", "--rm", "busybox", "cat", "/proc/mounts"]).ok();
    let root = mounts
        .lines()
        .find(|line| line.contains(" / overlay "))
        .expect("an overlay root")
        .to_owned();
    for option in ["metacopy=on", "redirect_dir=on", "redirect_dir=follow", "userxattr"] {
        assert!(!root.contains(option), "{root}");
    }
    daemon.finish();
}

#[test]
fn x02_side_channels_are_masked() {
    let daemon = daemon();
    daemon.boxship(&["create", "--name", "c1", "busybox", "true"]).ok();
    let masked = field(&daemon, "c1", "{{json .HostConfig.MaskedPaths}}");
    for path in [
        "/proc/interrupts",
        "/proc/timer_list",
        "/proc/sched_debug",
        "/proc/kcore",
        "/sys/firmware",
        "/sys/devices/virtual/powercap",
    ] {
        assert!(masked.contains(path), "{masked}");
    }
    let thermal = daemon.boxship(&["run", "--rm", "busybox", "sh", "-c", "cat /sys/devices/system/cpu/cpu*/thermal_throttle/* 2>/dev/null | wc -c; wc -c </proc/interrupts"]).ok();
    assert_eq!(thermal, "0\n0");
    daemon.finish();
}
