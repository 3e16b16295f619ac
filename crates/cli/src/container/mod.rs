//! Commands on containers that exist.

mod copy;
mod details;
mod exec;
mod files;
mod lifecycle;
mod list;
mod logs;
mod ports;
mod start;
mod stats;

pub(crate) use copy::cp;
pub(crate) use details::{diff, port, top, update};
pub(crate) use exec::exec;
pub(crate) use files::{commit, export};
pub(crate) use lifecycle::{
    kill, pause, prune, prune_containers, rename, restart, rm, stop, unpause, wait,
};
pub(crate) use list::{CONTAINERS, ContainerRow, join_labels, ls};
pub(crate) use logs::{logs, time};
pub(crate) use start::{attach, start};
pub(crate) use stats::stats;
