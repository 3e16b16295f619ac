//! The little languages inside option values: `--mount`, `--network`, `-p`, `--device`, `-v`, ...
//!
//! Parsers of text only, in docker's words when they refuse; what a file or the environment must
//! supply is read by [`files`], and nothing else.

mod csv;
mod device;
pub(crate) mod files;
mod gpus;
mod mount;
mod network;
mod platform;
mod port;
mod volume;

pub(crate) use csv::csv;
pub(crate) use device::{Device, parse_device};
pub(crate) use files::open_error;
pub(crate) use gpus::parse_gpus;
pub(crate) use mount::parse_mount;
pub(crate) use network::{NetworkOption, checked_mac, parse_network};
pub(crate) use platform::parse_platform;
pub(crate) use port::{parse_expose, parse_publish};
pub(crate) use volume::{VolumeOption, parse_volume};
