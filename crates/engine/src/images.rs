//! Images, for the API: thin asynchronous wrappers that run the (synchronous) `image` crate on the
//! blocking pool and tell the event watchers.

use std::io::{Read, Write};

use api_types::image::{DeleteItem, HistoryItem, Inspect, Progress, PruneResponse, Summary};
use spec::Filters;

use crate::errors::{Error, Result};

#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    pub all: bool,
    pub filters: Filters,
    pub shared_size: bool,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct RemoveOptions {
    pub force: bool,
    pub no_prune: bool,
}

/// `POST /images/create?fromSrc=-`
#[derive(Debug, Clone, Default)]
pub struct ImportRequest {
    pub repository: String,
    pub tag: String,
    pub message: String,
    /// Dockerfile instructions (`CMD`, `ENV`, ...) applied to the config.
    pub changes: Vec<String>,
    pub platform: Option<String>,
}

/// Where a long operation reports its progress lines; called on a blocking thread.
pub type ProgressSink = Box<dyn FnMut(Progress) + Send>;

#[derive(Debug)]
pub struct Images {}

impl Images {
    pub async fn list(&self, _options: ListOptions) -> Result<Vec<Summary>> {
        Err(Error::unsupported("image list"))
    }
    pub async fn inspect(&self, _name: &str) -> Result<Inspect> {
        Err(Error::unsupported("image inspect"))
    }
    pub async fn history(&self, _name: &str) -> Result<Vec<HistoryItem>> {
        Err(Error::unsupported("image history"))
    }
    pub async fn tag(&self, _source: &str, _repository: &str, _tag: &str) -> Result<()> {
        Err(Error::unsupported("image tag"))
    }
    pub async fn remove(&self, _name: &str, _options: RemoveOptions) -> Result<Vec<DeleteItem>> {
        Err(Error::unsupported("image remove"))
    }
    pub async fn prune(&self, _filters: Filters) -> Result<PruneResponse> {
        Err(Error::unsupported("image prune"))
    }
    /// `docker load`. Progress lines end with `Loaded image: ...`.
    pub async fn load(&self, _input: Box<dyn Read + Send>, _progress: ProgressSink) -> Result<()> {
        Err(Error::unsupported("image load"))
    }
    /// `docker import`. Returns the image's id.
    pub async fn import(
        &self,
        _request: ImportRequest,
        _input: Box<dyn Read + Send>,
        _progress: ProgressSink,
    ) -> Result<String> {
        Err(Error::unsupported("image import"))
    }
    /// Fails as `save` would, before a byte of the answer is sent.
    pub async fn check_save(&self, _names: &[String]) -> Result<()> {
        Err(Error::unsupported("image save"))
    }
    /// `docker save`: writes the archive of all `names`.
    pub async fn save(&self, _names: Vec<String>, _output: Box<dyn Write + Send>) -> Result<()> {
        Err(Error::unsupported("image save"))
    }
}
