//! Image layers and the writable layers of containers, on overlayfs.
//!
//! Layout below the root, all of it mode 0700 and on one file system:
//!
//! ```text
//! layers/<chain id>/diff/       the unpacked layer, whiteouts in overlay's form; never changed
//!                  /replaced/   files that the layer's tar names but a later entry replaced
//!                  /recipe      how to make the tar again from those (see `recipe`)
//!                  /committed   the layer's record as JSON, for when the metadata is lost
//! ingest/<random>               layers and spools on their way in; garbage at the next start
//! content/sha256/<hex>          blobs: configs and manifests
//! containers/<id>/upper, work   the writable layer of a container
//! probe/                        what the kernel is tried with (see `erofs`)
//! quarantine/<name>-<random>    damaged layers and records that `system check` set aside
//! trash/<random>                what was removed, until `reap_trash`
//! ```
//!
//! A layer can instead be its tar and a table of contents, and a container's lower directory a
//! mount: see [`erofs`]. New layers have the form that the [`Layout`] says; both are used side by
//! side (see `layout`).
//!
//! The metadata store has the records (tables `layers`, `container_layers`); a directory
//! without a record is garbage from a crash. Other crates see layers by diff id and chain id only
//! and containers as [`OverlayDirs`], whatever form the layers have. Overlay mounts of these
//! directories must leave `redirect_dir`, `metacopy` and `index` off: an image could otherwise
//! ship redirects.
//!
//! Start reading at [`Storage`]; hostile input enters at `tree` and `tar`.

mod chain;
mod changes;
mod check;
mod confine;
mod containers;
mod content;
mod copy;
mod decode;
mod erofs;
mod error;
mod export;
mod extract;
mod hashing;
mod layout;
mod names;
mod recipe;
mod records;
mod room;
mod steps;
mod storage;
pub mod tar;
mod trash;
mod tree;
mod unpack;

pub use chain::{chain_id, sha256, top_chain};
pub use changes::{Change, ChangeKind};
pub use check::{CheckOptions, CheckReport, Holders, Lineage, Problem};
pub use confine::{Confined, unpack_main};
pub use containers::{OverlayDirs, add_container, container_ids, drop_container, tree_size};
pub use content::{Content, LARGEST as LARGEST_BLOB};
pub use copy::copy_tree;
pub use decode::{Decoder, Ratio, as_storage_error};
pub use error::StorageError;
pub use export::{is_kernels_own, write_directory, write_entry};
pub use extract::{ExtractOptions, extract};
pub use layout::{Layout, Lowers};
pub use records::{Claim, Freed, Layer, Lease, Leases, hold, hold_again, release};
pub use room::Room;
pub use storage::{Base, Options, Staged, Storage, Unplaced};
pub use trash::reap;
pub use unpack::{Form, InProcess, Job, Limits, Unpacked, Unpacker};
