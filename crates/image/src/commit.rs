//! `docker commit`: an image from what a container changed.

use std::io;

use spec::oci::{History, ImageConfig, RunConfig};
use spec::{Digest, Reference};
use storage::{Lease, StorageError};

use crate::changes;
use crate::document;
use crate::error::ImageError;
use crate::images::{Images, now};
use crate::import::host_architecture;
use crate::records::ImageId;

/// A layer without entries, which is none.
const EMPTY_LAYER: &str = "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";

/// What the new image says beside its layers.
#[derive(Debug, Clone, Default)]
pub struct CommitOptions {
    pub reference: Option<Reference>,
    /// The container's image, if it is still there.
    pub parent: Option<ImageId>,
    /// The container's configuration; `changes` are applied to it.
    pub run: RunConfig,
    pub author: String,
    pub message: String,
    /// Dockerfile instructions.
    pub changes: Vec<String>,
    /// The container's command, for the history.
    pub created_by: String,
}

impl Images {
    /// Makes an image of a container's root. A crash before the last step leaves a layer without
    /// an image, which the next start removes.
    pub fn commit(&self, container: &str, options: &CommitOptions) -> Result<ImageId, ImageError> {
        let mut run = options.run.clone();
        changes::apply(&mut run, &options.changes)?;
        let mut lease = self.storage.lease();
        let added = self.commit_layer(container, &mut lease)?;
        let mut config = self.parent_config(options.parent.as_ref())?;
        let created = now();
        config.created = Some(created.clone());
        config.author = Some(options.author.clone()).filter(|author| !author.is_empty());
        config.comment = Some(options.message.clone()).filter(|message| !message.is_empty());
        config.config = Some(run);
        config.history.get_or_insert_default().push(History {
            created: Some(created),
            created_by: Some(options.created_by.clone()),
            author: config.author.clone(),
            comment: config.comment.clone(),
            empty_layer: added.is_none(),
        });
        config.rootfs.diff_ids.get_or_insert_default().extend(added);
        let config = serde_json::to_vec(&config)
            .map_err(|error| ImageError::Json { reason: error.to_string() })?;
        self.create(&lease, &config, options.parent, options.reference.as_slice())
    }

    /// Takes the container's changes in as a layer on top of its own; `None` when there are none.
    fn commit_layer(
        &self,
        container: &str,
        lease: &mut Lease,
    ) -> Result<Option<Digest>, ImageError> {
        let chain = self.storage.container_chain(container)?;
        let (mut reader, mut writer) =
            io::pipe().map_err(|source| StorageError::Output { source })?;
        std::thread::scope(|scope| {
            // The pipe's end is dropped with the closure, so that the reader sees its end.
            let written = scope.spawn(move || self.storage.write_changes(container, &mut writer));
            let staged =
                self.storage.unpack(&self.storage.base(chain.as_ref())?, &mut reader, None);
            // If unpacking failed, the writer sees a broken pipe from here on; if writing failed,
            // the archive was cut short. The first cause is the one to tell.
            drop(reader);
            let written = written.join().unwrap_or(Err(StorageError::Panicked));
            let staged = match (staged, written) {
                (Err(error), Err(StorageError::Output { source }))
                    if source.kind() == io::ErrorKind::BrokenPipe =>
                {
                    return Err(error.into());
                }
                (_, Err(error)) | (Err(error), Ok(())) => return Err(error.into()),
                (Ok(staged), Ok(())) => staged,
            };
            if staged.diff_id.hex() == EMPTY_LAYER {
                return Ok(None);
            }
            let layers = self.storage.commit(lease, vec![staged])?;
            Ok(layers.last().map(|layer| layer.diff_id))
        })
    }

    fn parent_config(&self, parent: Option<&ImageId>) -> Result<ImageConfig, ImageError> {
        if let Some(parent) = parent {
            return Ok(document::parse(&self.storage.content().get(parent)?)?.config);
        }
        let mut config = ImageConfig {
            architecture: host_architecture().to_owned(),
            os: "linux".to_owned(),
            ..ImageConfig::default()
        };
        config.rootfs.kind = "layers".to_owned();
        Ok(config)
    }
}
