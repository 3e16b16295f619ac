//! Images, for the API: thin asynchronous wrappers that run the (synchronous) `image` crate on the
//! blocking pool and tell the event watchers.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

use api_types::container::GraphDriver;
use api_types::image::{
    DeleteItem, HistoryItem, Inspect, Metadata, Progress, ProgressDetail, PruneResponse, RootFs,
    Summary,
};
use image::{ImageId, ImageInfo, ImageSummary, ImportOptions, InUse, LoadEvent, Removed, Use};
use spec::{Digest, Filters};

use crate::containers::registry::Registry;
use crate::containers::{RunImage, run_blocking};
use crate::errors::{Error, PlatformError, Result};
use crate::events::Events;

/// Configs of the images that containers are made of, by id; they never change.
const CACHE: usize = 32;

#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    pub all: bool,
    pub filters: Filters,
    pub shared_size: bool,
    pub count_containers: bool,
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
pub struct Images {
    images: image::Images,
    events: Arc<Events>,
    registry: Arc<Registry>,
    runs: Mutex<HashMap<ImageId, Run>>,
    /// How many there are, until one comes or goes.
    count: Mutex<Option<usize>>,
}

#[derive(Debug, Clone)]
struct Run {
    chain: Option<Digest>,
    config: Arc<spec::oci::ImageConfig>,
    size: u64,
}

impl Images {
    pub(crate) fn new(images: image::Images, events: Arc<Events>, registry: Arc<Registry>) -> Self {
        Self { images, events, registry, runs: Mutex::default(), count: Mutex::default() }
    }

    /// The images themselves.
    pub(crate) fn store(&self) -> &image::Images {
        &self.images
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&image::Images) -> Result<T, image::ImageError> + Send + 'static,
    ) -> Result<T> {
        let images = self.images.clone();
        run_blocking(move || Ok(work(&images)?)).await
    }

    pub async fn list(&self, options: ListOptions) -> Result<Vec<Summary>> {
        let ListOptions { all, filters, shared_size, count_containers } = options;
        let list = self.blocking(move |images| images.list(all, &filters)).await?;
        let mut containers: HashMap<String, i64> = HashMap::new();
        for container in self.registry.all() {
            *containers.entry(container.snapshot().definition.image_id.clone()).or_default() += 1;
        }
        let shared = if shared_size { self.shared_sizes(&list) } else { HashMap::new() };
        let summaries = list.into_iter().map(|image| {
            let id = image.id.to_string();
            Summary {
                containers: if count_containers {
                    containers.get(&id).copied().unwrap_or_default()
                } else {
                    -1
                },
                created: image.created,
                labels: image.labels,
                parent_id: image.parent.map(|parent| parent.to_string()).unwrap_or_default(),
                repo_digests: image.digests,
                repo_tags: image.tags,
                shared_size: shared.get(&image.id).copied().unwrap_or(-1),
                size: signed(image.size),
                virtual_size: None,
                manifests: None,
                id,
            }
        });
        Ok(summaries.collect())
    }

    /// Bytes of each image in layers that another image has too.
    fn shared_sizes(&self, list: &[ImageSummary]) -> HashMap<ImageId, i64> {
        let storage = self.images.storage();
        let layers = |image: &ImageSummary| {
            let chain = image.chain.as_ref()?;
            storage.layers(chain).ok()
        };
        let all: Vec<_> = list.iter().map(|image| (image.id, layers(image))).collect();
        let mut users: HashMap<Digest, usize> = HashMap::new();
        for layer in all.iter().filter_map(|(_, layers)| layers.as_ref()).flatten() {
            *users.entry(layer.chain_id).or_default() += 1;
        }
        let shared = all.into_iter().map(|(id, layers)| {
            let layers = layers.unwrap_or_default();
            let twice = layers.iter().filter(|layer| users.get(&layer.chain_id) > Some(&1));
            (id, signed(twice.map(|layer| layer.size).sum()))
        });
        shared.collect()
    }

    pub async fn inspect(&self, name: &str) -> Result<Inspect> {
        let name = name.to_owned();
        let info = self.blocking(move |images| images.inspect(&name)).await?;
        Ok(self.describe(info))
    }

    fn describe(&self, info: ImageInfo) -> Inspect {
        let config = info.config;
        let layers: Vec<_> = info.diff_ids.iter().map(Digest::to_string).collect();
        Inspect {
            id: info.id.to_string(),
            repo_tags: info.tags,
            repo_digests: info.digests,
            parent: info.parent.map(|parent| parent.to_string()).unwrap_or_default(),
            comment: config.comment.unwrap_or_default(),
            created: config.created.unwrap_or_default(),
            docker_version: config.docker_version.unwrap_or_default(),
            author: config.author.unwrap_or_default(),
            config: config.config.unwrap_or_default().into(),
            architecture: config.architecture,
            variant: config.variant.unwrap_or_default(),
            os: config.os,
            os_version: config.os_version.unwrap_or_default(),
            size: signed(info.size),
            virtual_size: None,
            graph_driver: self.graph_driver(info.chain.as_ref()),
            root_fs: RootFs {
                kind: "layers".to_owned(),
                layers: (!layers.is_empty()).then_some(layers),
            },
            metadata: Metadata {
                last_tag_time: info.tagged.unwrap_or_else(|| spec::time::ZERO.to_owned()),
            },
        }
    }

    fn graph_driver(&self, chain: Option<&Digest>) -> GraphDriver {
        let lowers = chain.and_then(|chain| self.images.storage().lower_names(chain).ok());
        let data = lowers.map(|lowers| {
            let mut paths = lowers.paths.iter().map(|path| path.display().to_string());
            let mut data = BTreeMap::new();
            data.insert("UpperDir".to_owned(), paths.next().unwrap_or_default());
            let below = paths.collect::<Vec<_>>().join(":");
            if !below.is_empty() {
                data.insert("LowerDir".to_owned(), below);
            }
            data
        });
        GraphDriver { data, name: crate::system::STORAGE_DRIVER.to_owned() }
    }

    /// Takes the mounts of images away; what runs keeps them.
    pub(crate) async fn unmount(&self) {
        let storage = self.images.storage().clone();
        let unmounted = crate::run_blocking(move || {
            storage.unmount();
            Ok(())
        });
        if let Err(error) = unmounted.await {
            tracing::debug!(%error, "mounts of images stay");
        }
    }

    pub async fn history(&self, name: &str) -> Result<Vec<HistoryItem>> {
        let name = name.to_owned();
        let history = self.blocking(move |images| images.history(&name)).await?;
        let items = history.into_iter().map(|entry| HistoryItem {
            comment: entry.comment,
            created: entry.created,
            created_by: entry.created_by,
            id: entry.id,
            size: signed(entry.size),
            tags: (!entry.tags.is_empty()).then_some(entry.tags),
        });
        Ok(items.collect())
    }

    pub async fn tag(&self, source: &str, repository: &str, tag: &str) -> Result<()> {
        let target = image::parse_target(repository, tag)?;
        let target = target.ok_or(image::ImageError::TagFormat)?;
        let (source, name) = (source.to_owned(), target.familiar());
        let id = self
            .blocking(move |images| {
                images.tag(&source, &target)?;
                images.resolve(&source)
            })
            .await?;
        self.emit("tag", &id.to_string(), &name);
        Ok(())
    }

    pub async fn remove(&self, name: &str, options: RemoveOptions) -> Result<Vec<DeleteItem>> {
        let (name, registry) = (name.to_owned(), Arc::clone(&self.registry));
        let (id, removed) = self
            .blocking(move |images| {
                let id = images.resolve(&name)?;
                let in_use = users(&registry);
                let prune = !options.no_prune;
                Ok((id, images.remove(&name, options.force, prune, &*in_use)?))
            })
            .await?;
        Ok(self.report(Some(&id), removed))
    }

    pub async fn prune(&self, filters: Filters) -> Result<PruneResponse> {
        let registry = Arc::clone(&self.registry);
        let pruned = self
            .blocking(move |images| {
                let in_use = users(&registry);
                images.prune(&filters, &*in_use)
            })
            .await?;
        let deleted = self.report(None, pruned.removed);
        let attributes = [("reclaimed".to_owned(), pruned.reclaimed.to_string())];
        self.events.emit("image", "prune", "", attributes.into());
        Ok(PruneResponse {
            images_deleted: (!deleted.is_empty()).then_some(deleted),
            space_reclaimed: pruned.reclaimed,
        })
    }

    /// Turns what went into the answer's lines, and into events.
    fn report(&self, id: Option<&ImageId>, removed: Vec<Removed>) -> Vec<DeleteItem> {
        let items = removed.into_iter().map(|removed| match removed {
            Removed::Untagged(name) => {
                let id = id.map(ImageId::to_string).unwrap_or_default();
                self.emit("untag", &id, &id);
                DeleteItem { untagged: name, ..DeleteItem::default() }
            }
            Removed::Deleted(digest) => {
                let text = digest.to_string();
                if id.is_none_or(|id| *id == digest) {
                    self.emit("delete", &text, &text);
                }
                self.runs.lock().unwrap_or_else(PoisonError::into_inner).remove(&digest);
                DeleteItem { deleted: text, ..DeleteItem::default() }
            }
        });
        items.collect()
    }

    /// `docker load`. Progress lines end with `Loaded image: ...`.
    pub async fn load(
        &self,
        mut input: Box<dyn Read + Send>,
        mut progress: ProgressSink,
    ) -> Result<()> {
        let loaded = self
            .blocking(move |images| {
                let loaded = images.load(&mut *input, &mut |event: LoadEvent| {
                    progress(load_line(&event));
                })?;
                for image in &loaded {
                    progress(loaded_line(image));
                }
                Ok(loaded)
            })
            .await?;
        for image in loaded {
            let id = image.id.to_string();
            self.emit("load", &id, &id);
        }
        Ok(())
    }

    /// `docker import`. Returns the image's id.
    pub async fn import(
        &self,
        request: ImportRequest,
        mut input: Box<dyn Read + Send>,
        mut progress: ProgressSink,
    ) -> Result<String> {
        let reference = image::parse_target(&request.repository, &request.tag)?;
        let platform = match request.platform.as_deref() {
            None | Some("") => Platform::default(),
            Some(text) => Platform::parse(text)?,
        };
        if !matches!(platform.os.as_str(), "" | "linux") {
            return Err(PlatformError::System.into());
        }
        let message = match request.message.as_str() {
            "" => "Imported from -".to_owned(),
            message => message.to_owned(),
        };
        let name = reference.as_ref().map(spec::Reference::familiar);
        let options = ImportOptions {
            reference,
            message,
            changes: request.changes,
            architecture: platform.architecture,
            variant: platform.variant,
        };
        let id = self
            .blocking(move |images| {
                let id = images.import(&mut *input, &options)?;
                let status = Some(id.to_string());
                progress(Progress { status, ..Progress::default() });
                Ok(id)
            })
            .await?;
        let id = id.to_string();
        self.emit("import", &id, name.as_deref().unwrap_or(&id));
        Ok(id)
    }

    /// `docker commit`. Returns the image's id.
    pub(crate) async fn commit(
        &self,
        container: &str,
        options: image::CommitOptions,
    ) -> Result<String> {
        let container = container.to_owned();
        let name = options.reference.as_ref().map(spec::Reference::familiar);
        let id = self.blocking(move |images| images.commit(&container, &options)).await?;
        let id = id.to_string();
        self.emit("create", &id, name.as_deref().unwrap_or(&id));
        Ok(id)
    }

    /// Fails as `save` would, before a byte of the answer is sent.
    /// Whether `docker save` can go on: images of these names are there, for that platform.
    pub async fn check_save(&self, names: &[String], platform: Option<&str>) -> Result<()> {
        self.check_names(names).await?;
        let Some(wanted) = platform else { return Ok(()) };
        let wanted = Platform::from_json(wanted)?;
        for name in names {
            let config = self.run_of(&self.images.resolve(name)?)?.config;
            let variant = config.variant.as_deref().unwrap_or_default();
            let fits = wanted.variant.is_empty() || wanted.variant == variant;
            if wanted.check(name, &config).is_err() || !fits {
                return Err(PlatformError::Export { wanted: wanted.name() }.into());
            }
        }
        Ok(())
    }

    /// An image that is there is of the platform that a client means.
    pub fn check_platform(&self, name: &str, platform: &str) -> Result<()> {
        let config = self.run_of(&self.images.resolve(name)?)?.config;
        Ok(Platform::from_json(platform)?.check(name, &config)?)
    }

    async fn check_names(&self, names: &[String]) -> Result<()> {
        let names = names.to_vec();
        self.blocking(move |images| {
            names.iter().try_for_each(|name| match images.resolve(name) {
                // Docker names it as the client did here.
                Err(image::ImageError::NoSuchImage { .. }) => {
                    Err(match name.rsplit('/').next().is_some_and(|last| last.contains(':')) {
                        true => image::ImageError::NoSuchReference,
                        false => image::ImageError::NoSuchImage { reference: name.clone() },
                    })
                }
                resolved => resolved.map(drop),
            })
        })
        .await
    }

    /// `docker save`: writes the archive of all `names`.
    pub async fn save(&self, names: Vec<String>, mut output: Box<dyn Write + Send>) -> Result<()> {
        self.check_names(&names).await?;
        let saved = names.clone();
        self.blocking(move |images| {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            images.save(&names, &mut *output)
        })
        .await?;
        for name in saved {
            if let Some(id) = self.find_id(&name) {
                self.emit("save", &id, &id);
            }
        }
        Ok(())
    }

    fn emit(&self, action: &str, id: &str, name: &str) {
        *self.count.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let attributes = BTreeMap::from([("name".to_owned(), name.to_owned())]);
        self.events.emit("image", action, id, attributes);
    }

    /// The id an image's name stands for now; a short read from memory.
    pub(crate) fn find_id(&self, name: &str) -> Option<String> {
        self.images.resolve(name).ok().map(|id| id.to_string())
    }

    pub(crate) fn count(&self) -> usize {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let look = || self.images.list(false, &Filters::default()).map_or(0, |list| list.len());
        *count.get_or_insert_with(look)
    }

    /// Bytes of the image with this id; none for one that is gone.
    pub(crate) fn size(&self, id: &str) -> i64 {
        let id = id.parse::<ImageId>().ok();
        id.and_then(|id| self.run_of(&id).ok()).map_or(0, |run| signed(run.size))
    }

    /// Finds an image for a container to be made of.
    pub(crate) async fn resolve_for_run(
        &self,
        name: &str,
        platform: Option<&str>,
    ) -> Result<RunImage> {
        if name.is_empty() {
            return Err(Error::unsupported("a container without an image"));
        }
        let wanted = match platform {
            None | Some("") => None,
            Some(text) => Some(Platform::parse(text)?),
        };
        let id = self.images.resolve(name)?;
        let run = self.run_of(&id)?;
        if let Some(wanted) = wanted {
            wanted.check(name, &run.config)?;
        }
        Ok(RunImage { id: id.to_string(), chain: run.chain, config: run.config })
    }

    fn run_of(&self, id: &ImageId) -> Result<Run> {
        let known = self.runs.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
        if let Some(run) = known {
            return Ok(run);
        }
        let info = self.images.inspect(&id.to_string())?;
        let run = Run { chain: info.chain, config: Arc::new(info.config), size: info.size };
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        if runs.len() >= CACHE {
            runs.clear();
        }
        runs.insert(*id, run.clone());
        Ok(run)
    }
}

fn signed(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

/// Which container uses an image: a running one if there is any.
fn users(registry: &Registry) -> Box<InUse<'static>> {
    let mut table: HashMap<String, Use> = HashMap::new();
    for container in registry.all() {
        let snapshot = container.snapshot();
        let running = snapshot.progress.is_running();
        let user = || Use { container: container.id.short().to_owned(), running };
        let definition = &snapshot.definition;
        let mounted = definition.mounts.iter().filter_map(|mount| mount.image());
        for image in mounted.chain([definition.image_id.as_str()]) {
            let entry = table.entry(image.to_owned()).or_insert_with(user);
            if running && !entry.running {
                *entry = user();
            }
        }
    }
    Box::new(move |id| table.get(&id.to_string()).cloned())
}

/// What one word alone may stand for.
const ARCHITECTURES: &[&str] = &[
    "386", "amd64", "x86_64", "x86-64", "i386", "arm", "armhf", "armel", "arm64", "aarch64",
    "loong64", "mips", "mipsle", "mips64", "mips64le", "ppc64", "ppc64le", "riscv64", "s390x",
    "wasm",
];

/// `os[/architecture[/variant]]`
#[derive(Debug, Default, PartialEq, Eq)]
struct Platform {
    os: String,
    architecture: String,
    variant: String,
}

impl Platform {
    fn parse(text: &str) -> Result<Self, PlatformError> {
        let bad = || PlatformError::Syntax { text: text.to_owned() };
        let parts: Vec<&str> = text.split('/').collect();
        let word = |part: &&str| {
            !part.is_empty()
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
        };
        if parts.len() > 3 || !parts.iter().all(word) {
            return Err(bad());
        }
        let lower = |at: usize| parts.get(at).map(|part| part.to_ascii_lowercase());
        let first = lower(0).ok_or_else(bad)?;
        // One word alone may be either.
        let (os, architecture) = match (first.as_str(), lower(1)) {
            (_, Some(architecture)) => (first, architecture),
            ("linux" | "windows" | "freebsd" | "darwin", None) => (first, String::new()),
            (known, None) if ARCHITECTURES.contains(&known) => ("linux".to_owned(), first),
            (_, None) => return Err(PlatformError::Unknown { text: text.to_owned() }),
        };
        let architecture = match architecture.as_str() {
            "x86_64" | "x86-64" => "amd64".to_owned(),
            "aarch64" => "arm64".to_owned(),
            _ => architecture,
        };
        let variant = lower(2).unwrap_or_default();
        Ok(Self { os, architecture, variant })
    }

    /// The parameter `platform` of what is done with images that are there.
    fn from_json(text: &str) -> Result<Self, PlatformError> {
        let bad = |error: serde_json::Error| PlatformError::Json { text: error.to_string() };
        let platform: spec::oci::Platform = serde_json::from_str(text).map_err(bad)?;
        let spec::oci::Platform { os, architecture, variant, .. } = platform;
        Ok(Self { os, architecture, variant })
    }

    fn name(&self) -> String {
        let parts = [&self.os, &self.architecture, &self.variant].map(String::as_str);
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
    }

    fn check(&self, name: &str, config: &spec::oci::ImageConfig) -> Result<(), PlatformError> {
        let fits = self.os == config.os
            && (self.architecture.is_empty() || self.architecture == config.architecture);
        if fits {
            return Ok(());
        }
        Err(PlatformError::Mismatch {
            reference: name.to_owned(),
            found: format!("{}/{}", config.os, config.architecture),
            wanted: format!("{}/{}", self.os, self.architecture),
        })
    }
}

fn load_line(event: &LoadEvent) -> Progress {
    match event {
        LoadEvent::Layer { diff_id, current, total } => {
            let (current, total) = (signed(*current), signed(*total));
            Progress {
                status: Some("Loading layer".to_owned()),
                progress_detail: Some(ProgressDetail {
                    current: Some(current),
                    total: Some(total),
                }),
                progress: Some(progress_bar(current, total)),
                id: Some(diff_id.hex()[..12].to_owned()),
                ..Progress::default()
            }
        }
        LoadEvent::Renamed { reference, old } => Progress {
            stream: Some(format!(
                "The image {reference} already exists, renaming the old one with ID {old} to \
                 empty string\n"
            )),
            ..Progress::default()
        },
    }
}

/// `[=====>      ]  1.2MB/12MB`, fifty columns wide.
fn progress_bar(current: i64, total: i64) -> String {
    let filled = if total > 0 { (current.min(total) * 50 / total) as usize } else { 0 };
    let human = |bytes: i64| spec::size::human(bytes as f64);
    let (bar, space) = ("=".repeat(filled), " ".repeat(50 - filled));
    format!("[{bar}>{space}] {:>8}/{}", human(current), human(total))
}

fn loaded_line(image: &image::Loaded) -> Progress {
    let text = match &image.reference {
        Some(reference) => format!("Loaded image: {reference}\n"),
        None => format!("Loaded image ID: {}\n", image.id),
    };
    Progress { stream: Some(text), ..Progress::default() }
}

/// The confined unpacker, whose process the reaper must leave to it.
#[derive(Debug)]
pub(crate) struct OwnUnpacker(pub(crate) storage::Confined);

impl storage::Unpacker for OwnUnpacker {
    fn unpack(
        &self,
        job: &storage::Job<'_>,
        stream: &mut (dyn Read + Send),
    ) -> std::result::Result<storage::Unpacked, storage::StorageError> {
        crate::reaper::shielded(|| self.0.unpack(job, stream))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_parse() {
        let check = |text: &str, os: &str, architecture: &str| {
            let parsed = Platform::parse(text).unwrap();
            assert_eq!((parsed.os.as_str(), parsed.architecture.as_str()), (os, architecture));
        };
        check("linux/amd64", "linux", "amd64");
        check("linux", "linux", "");
        check("arm64", "linux", "arm64");
        check("linux/aarch64/v8", "linux", "arm64");
        assert_eq!(
            Platform::parse("foo/x/y/z").unwrap_err().to_string(),
            "\"foo/x/y/z\": cannot parse platform specifier: invalid argument"
        );
        assert_eq!(Platform::parse("linux/arm/v7").unwrap().name(), "linux/arm/v7");
        assert_eq!(
            Platform::parse("foo").unwrap_err().to_string(),
            "\"foo\": unknown operating system or architecture: invalid argument"
        );
    }

    #[test]
    fn a_wrong_platform_is_named() {
        let config = spec::oci::ImageConfig {
            os: "linux".to_owned(),
            architecture: "amd64".to_owned(),
            ..Default::default()
        };
        let error = Platform::parse("linux/arm64").unwrap().check("busybox", &config).unwrap_err();
        assert_eq!(
            error.to_string(),
            "image with reference busybox was found but its platform (linux/amd64) does not match \
             the specified platform (linux/arm64)"
        );
    }
}
