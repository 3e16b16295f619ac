//! `docker import`: an image from the tar of a root file system.

use std::io::Read;

use spec::Reference;
use spec::oci::{History, ImageConfig, RootFs, RunConfig};

use crate::changes;
use crate::error::ImageError;
use crate::images::{Images, now};
use crate::records::ImageId;

/// What goes with the tar.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    pub reference: Option<Reference>,
    /// Shown in the history; the API fills in `Imported from -`.
    pub message: String,
    /// Dockerfile instructions.
    pub changes: Vec<String>,
    /// The host's when empty.
    pub architecture: String,
    pub variant: String,
}

impl Images {
    /// Makes an image with one layer. The changes are read first: a bad one costs no upload.
    pub fn import(
        &self,
        stream: &mut (dyn Read + Send),
        options: &ImportOptions,
    ) -> Result<ImageId, ImageError> {
        let mut run = RunConfig::default();
        changes::apply(&mut run, &options.changes)?;
        let mut lease = self.storage.lease();
        let layer = self.storage.apply_layer(&mut lease, None, stream, None)?;
        let created = now();
        let architecture = match options.architecture.as_str() {
            "" => host_architecture().to_owned(),
            other => other.to_owned(),
        };
        let config = ImageConfig {
            created: Some(created.clone()),
            architecture,
            variant: Some(options.variant.clone()).filter(|variant| !variant.is_empty()),
            os: "linux".to_owned(),
            comment: Some(options.message.clone()),
            config: Some(run),
            rootfs: RootFs { kind: "layers".to_owned(), diff_ids: Some(vec![layer.diff_id]) },
            history: Some(vec![History {
                created: Some(created),
                comment: Some(options.message.clone()),
                ..History::default()
            }]),
            ..ImageConfig::default()
        };
        let config = serde_json::to_vec(&config)
            .map_err(|error| ImageError::Json { reason: error.to_string() })?;
        self.create(&lease, &config, None, options.reference.as_slice())
    }
}

/// Go's name of the architecture we run on.
pub(crate) const fn host_architecture() -> &'static str {
    match std::env::consts::ARCH.as_bytes() {
        b"x86_64" => "amd64",
        b"aarch64" => "arm64",
        b"x86" => "386",
        _ => std::env::consts::ARCH,
    }
}
