//! Containers. The public methods of [`Containers`] are spread over the files of this directory,
//! one concern each.

pub mod detach;
pub mod options;

use std::sync::Arc;

use api_types::container::{
    Change, CreateRequest, CreateResponse, Inspect, PruneResponse, Summary, TopResponse,
    UpdateRequest, UpdateResponse,
};
use api_types::{IdResponse, exec, stats};
pub use detach::{DetachKeys, Typed};
pub use options::{
    AttachHandle, AttachOptions, Detached, ExecHandle, ListOptions, LogOptions, LogStream,
    RemoveOptions, StopOptions, WaitCondition, WaitHandle,
};
use spec::Filters;
use tokio::sync::mpsc;

use crate::errors::{Error, Result};

#[derive(Debug)]
pub struct Containers {}

#[derive(Debug)]
pub(crate) struct Container {}

#[derive(Debug)]
pub(crate) struct Snapshot {}

impl Container {
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::new(Snapshot {})
    }
}
impl Snapshot {
    pub(crate) fn emit(
        &self,
        _events: &crate::events::Events,
        _action: &str,
        _extra: impl IntoIterator<Item = (&'static str, String)>,
    ) {
    }
}

#[allow(unused_variables)]
impl Containers {
    pub async fn create(
        &self,
        name: Option<String>,
        request: CreateRequest,
        platform: Option<String>,
    ) -> Result<CreateResponse> {
        Err(Error::unsupported("create"))
    }
    /// Waits for nothing but, with `size`, the disk.
    pub async fn list(&self, options: ListOptions) -> Result<Vec<Summary>> {
        Err(Error::unsupported("list"))
    }
    pub async fn inspect(&self, reference: &str, size: bool) -> Result<Inspect> {
        Err(Error::unsupported("inspect"))
    }
    pub async fn start(&self, reference: &str) -> Result<()> {
        Err(Error::unsupported("start"))
    }
    pub async fn stop(&self, reference: &str, options: StopOptions) -> Result<()> {
        Err(Error::unsupported("stop"))
    }
    pub async fn restart(&self, reference: &str, options: StopOptions) -> Result<()> {
        Err(Error::unsupported("restart"))
    }
    pub async fn kill(&self, reference: &str, signal: Option<String>) -> Result<()> {
        Err(Error::unsupported("kill"))
    }
    pub async fn pause(&self, reference: &str) -> Result<()> {
        Err(Error::unsupported("pause"))
    }
    pub async fn unpause(&self, reference: &str) -> Result<()> {
        Err(Error::unsupported("unpause"))
    }
    pub async fn rename(&self, reference: &str, name: &str) -> Result<()> {
        Err(Error::unsupported("rename"))
    }
    pub async fn update(&self, reference: &str, request: UpdateRequest) -> Result<UpdateResponse> {
        Err(Error::unsupported("update"))
    }
    /// Checks at once, so that headers can be flushed; the handle then waits.
    pub async fn wait(&self, reference: &str, condition: WaitCondition) -> Result<WaitHandle> {
        Err(Error::unsupported("wait"))
    }
    pub async fn remove(&self, reference: &str, options: RemoveOptions) -> Result<()> {
        Err(Error::unsupported("remove"))
    }
    pub async fn prune(&self, filters: Filters) -> Result<PruneResponse> {
        Err(Error::unsupported("prune"))
    }
    pub async fn top(&self, reference: &str, ps_args: &str) -> Result<TopResponse> {
        Err(Error::unsupported("top"))
    }
    pub async fn changes(&self, reference: &str) -> Result<Vec<Change>> {
        Err(Error::unsupported("changes"))
    }
    pub async fn resize(&self, reference: &str, height: u16, width: u16) -> Result<()> {
        Err(Error::unsupported("resize"))
    }
    pub async fn attach(&self, reference: &str, options: AttachOptions) -> Result<AttachHandle> {
        Err(Error::unsupported("attach"))
    }
    pub async fn logs(&self, reference: &str, options: LogOptions) -> Result<LogStream> {
        Err(Error::unsupported("logs"))
    }
    /// `stream` false sends one sample and closes; `one_shot` does not wait for a second reading
    /// to fill `precpu_stats`.
    pub async fn stats(
        &self,
        reference: &str,
        stream: bool,
        one_shot: bool,
    ) -> Result<mpsc::Receiver<stats::Stats>> {
        Err(Error::unsupported("stats"))
    }
    pub async fn exec_create(
        &self,
        reference: &str,
        request: exec::CreateRequest,
    ) -> Result<IdResponse> {
        Err(Error::unsupported("exec"))
    }
    pub async fn exec_start(&self, id: &str, request: exec::StartRequest) -> Result<ExecHandle> {
        Err(Error::unsupported("exec"))
    }
    pub async fn exec_inspect(&self, id: &str) -> Result<exec::Inspect> {
        Err(Error::unsupported("exec"))
    }
    pub async fn exec_resize(&self, id: &str, height: u16, width: u16) -> Result<()> {
        Err(Error::unsupported("exec"))
    }
}
