//! Layers of one file each, mounted by the kernel's EROFS.
//!
//! ```text
//! layers/<chain id>/tar          the layer's tar as it came; after its end, from a block of 4096
//!                                on, copies of what a file system cannot show where it is
//!                  /toc          what is in it and where: names, attributes, extents (`toc`)
//!                  /root.erofs   the merged tree of this layer and those below it (`image`)
//! mounts/<chain id>              `root.erofs`, mounted while the daemon runs (`mounts`)
//! ```
//!
//! The way of a layer: the unpacker checks the tar's entries one by one and puts them into a tree
//! in memory ([`layer`]), by the same rules as `crate::tree` has for directories, writes the tar
//! and the table of contents, and ends. The daemon reads the table as a stranger's, lays the
//! tables of a chain over one another ([`merge`]) and writes an image without a byte of file
//! content, whose extents are in the tars. The kernel's parser never sees an image, or a number,
//! that somebody else chose the place of.
//!
//! Blocks are of 512 bytes, as a tar's.

mod acl;
mod image;
mod layer;
mod merge;
mod model;
mod mounts;
mod toc;
mod xattr;

pub(crate) use layer::{Builder, Padding};
pub(crate) use mounts::InUse;
pub(crate) use mounts::{IMAGE, Mounts, Run, Rung, check_layer, copies, image_is_wrong};

/// Log2 of a block's size.
const BLOCK_BITS: u8 = 9;
const BLOCK: u64 = 1 << BLOCK_BITS;
