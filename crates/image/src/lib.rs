//! Images: what they are called, what they are made of, how they come and go.
//!
//! An image is its config document (a blob in `storage`, whose digest is the image's id) and a
//! chain of layers. Records live in the metadata store:
//!
//! ```text
//! images      <id>          -> topmost layer (held), size, creation, parent, labels
//! references  <name:tag>    -> id          docker.io/library/busybox:latest
//!             <name@digest> -> id
//! ```
//!
//! Names, records and the layers' holders change in one transaction; a config blob without a
//! record is garbage from a crash. Start reading at [`Images`]; archives from strangers enter at
//! `load`, config documents at `document`, Dockerfile instructions at [`changes`].

pub mod changes;
mod check;
mod commit;
mod document;
mod error;
mod images;
mod import;
mod list;
mod load;
mod pattern;
mod records;
mod remove;
mod save;

pub use commit::CommitOptions;
pub use error::ImageError;
pub use images::{HistoryEntry, ImageInfo, Images, parse_target};
pub use import::ImportOptions;
pub use list::ImageSummary;
pub use load::{LoadEvent, Loaded};
pub use records::{ImageId, require_image};
pub use remove::{InUse, PruneReport, Removed, Use};
