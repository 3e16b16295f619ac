//! Volume plugins by Docker's legacy protocol: programs of the host that answer JSON over HTTP on
//! a socket they put where the daemon looks.
//!
//! ```text
//! /run/docker/plugins/<name>.sock, <name>/<name>.sock
//! /etc/docker/plugins, /usr/lib/docker/plugins: <name>.spec (an address), <name>.json
//! ```
//!
//! A plugin is looked for when its name is used, greeted once (`Plugin.Activate`) and known from
//! then on. Everything blocks, never longer than its [`Patience`]. Enter at [`Plugins::get`].

mod http;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api_types::plugin::{Activated, Answer, Request, SpecFile, Volume};
use serde::de::DeserializeOwned;
use serde_json::Value;

use self::http::Address;
pub(crate) use self::http::Patience;
use crate::errors::PluginError;

const KIND: &str = "VolumeDriver";

/// Where plugins say that they are there.
#[derive(Debug)]
pub(crate) struct Places {
    sockets: PathBuf,
    specs: Vec<PathBuf>,
}

/// By name; none for those that are something else than volume drivers.
type Greeted = BTreeMap<String, (Address, Option<Arc<Plugin>>)>;

#[derive(Debug)]
pub(crate) struct Plugins {
    places: Places,
    greeted: Mutex<Greeted>,
}

#[derive(Debug)]
pub(crate) struct Plugin {
    pub name: String,
    address: Address,
    /// `local` or `global`
    pub scope: String,
    /// Held from the question whether a volume is there to its creation.
    pub creating: Mutex<()>,
}

impl Default for Places {
    fn default() -> Self {
        let specs = ["/etc/docker/plugins", "/usr/lib/docker/plugins"];
        Self { sockets: "/run/docker/plugins".into(), specs: specs.map(PathBuf::from).to_vec() }
    }
}

impl Places {
    fn find(&self, name: &str) -> Result<Address, PluginError> {
        let not_found = || PluginError::NotFound { name: name.to_owned() };
        // A name is one component of a path.
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
            return Err(not_found());
        }
        for place in [format!("{name}.sock"), format!("{name}/{name}.sock")] {
            let path = self.sockets.join(place);
            if is_socket(&path) {
                return Ok(Address::Unix(path));
            }
        }
        for directory in &self.specs {
            for place in [directory.clone(), directory.join(name)] {
                for kind in ["spec", "json"] {
                    match std::fs::read_to_string(place.join(format!("{name}.{kind}"))) {
                        Ok(text) => return read_spec(name, kind, &text),
                        Err(error) => tracing::trace!(name, %error, "look for a plugin"),
                    }
                }
            }
        }
        Err(not_found())
    }

    /// The names of all plugins, whatever they do.
    fn names(&self) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        let mut list = |directory: &Path, kinds: &[&str]| {
            let Ok(entries) = std::fs::read_dir(directory) else { return };
            for entry in entries.filter_map(Result::ok) {
                let path = entry.path();
                let (Some(stem), kind) = (path.file_stem(), path.extension()) else { continue };
                let known = kind.is_some_and(|kind| kinds.iter().any(|known| kind == *known));
                if known || path.is_dir() {
                    let whole = if known { Some(stem) } else { path.file_name() };
                    names.extend(whole.and_then(|name| name.to_str()).map(str::to_owned));
                }
            }
        };
        list(&self.sockets, &["sock"]);
        self.specs.iter().for_each(|directory| list(directory, &["spec", "json"]));
        names.retain(|name| self.find(name).is_ok());
        names
    }
}

fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::metadata(path).is_ok_and(|meta| meta.file_type().is_socket())
}

fn read_spec(name: &str, kind: &str, text: &str) -> Result<Address, PluginError> {
    let text = text.trim();
    let mut address = text.to_owned();
    if kind == "json" {
        let bad = |_error| PluginError::Address { name: name.to_owned(), address: text.to_owned() };
        let spec: SpecFile = serde_json::from_str(text).map_err(bad)?;
        if spec.tls_config.is_some() {
            return Err(PluginError::Tls { name: name.to_owned() });
        }
        address = spec.addr;
    }
    match address.split_once("://") {
        Some(("unix", path)) if path.starts_with('/') => Ok(Address::Unix(path.into())),
        Some(("tcp" | "http", place)) => Ok(Address::Tcp(place.trim_end_matches('/').to_owned())),
        Some(("https", _)) => Err(PluginError::Tls { name: name.to_owned() }),
        _ => Err(PluginError::Address { name: name.to_owned(), address }),
    }
}

impl Plugins {
    pub(crate) fn new(places: Places) -> Self {
        Self { places, greeted: Mutex::default() }
    }

    fn greeted(&self) -> MutexGuard<'_, Greeted> {
        self.greeted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The plugin of that name, greeted if it is new.
    pub(crate) fn get(&self, name: &str, patience: Patience) -> Result<Arc<Plugin>, PluginError> {
        let not_volumes = || PluginError::NotVolumes { name: name.to_owned() };
        let found = self.places.find(name);
        let known = self.greeted().get(name).cloned();
        let address = match (found, known) {
            (Ok(address), Some((same, plugin))) if same == address => {
                return plugin.ok_or_else(not_volumes);
            }
            // Its socket is gone for a moment, or for good: the call will tell.
            (Err(PluginError::NotFound { .. }), Some((_, Some(plugin)))) => return Ok(plugin),
            (found, _) => found?,
        };
        let plugin = greet(name, &address, patience)?.map(Arc::new);
        self.greeted().insert(name.to_owned(), (address, plugin.clone()));
        plugin.ok_or_else(not_volumes)
    }

    /// The names of those that were used.
    pub(crate) fn known(&self) -> Vec<String> {
        let greeted = self.greeted();
        let volumes = greeted.iter().filter(|(_, (_, plugin))| plugin.is_some());
        volumes.map(|(name, _)| name.clone()).collect()
    }

    /// The names of all that are or were there and may be volume drivers.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        let mut names = self.places.names();
        let greeted = self.greeted();
        names.retain(|name| greeted.get(name).is_none_or(|(_, plugin)| plugin.is_some()));
        names.extend(
            greeted
                .iter()
                .filter(|(_, (_, plugin))| plugin.is_some())
                .map(|(name, _)| name.clone()),
        );
        names
    }
}

/// None for a plugin that does something else.
fn greet(name: &str, address: &Address, patience: Patience) -> Result<Option<Plugin>, PluginError> {
    let activated: Activated = call(address, "Plugin.Activate", b"", patience)?;
    if !activated.implements.iter().any(|kind| kind == KIND) {
        return Ok(None);
    }
    let mut plugin = Plugin {
        name: name.to_owned(),
        address: address.clone(),
        scope: "local".to_owned(),
        creating: Mutex::default(),
    };
    // Older ones do not know the question.
    match plugin.ask("Capabilities", &Request::default(), patience) {
        Ok(answer) if answer.capabilities.scope.eq_ignore_ascii_case("global") => {
            plugin.scope = "global".to_owned();
        }
        Ok(_) => {}
        Err(error) => tracing::debug!(plugin = name, %error, "capabilities"),
    }
    Ok(Some(plugin))
}

impl Plugin {
    fn ask(&self, method: &str, body: &Request, wait: Patience) -> Result<Answer, PluginError> {
        let method = format!("{KIND}.{method}");
        let malformed = |error: serde_json::Error| PluginError::Malformed {
            method: method.clone(),
            reason: error.to_string(),
        };
        let body = serde_json::to_vec(body).map_err(malformed)?;
        let answer: Answer = call(&self.address, &method, &body, wait)?;
        match answer.err.is_empty() {
            true => Ok(answer),
            false => Err(PluginError::Refused { text: answer.err }),
        }
    }

    pub(crate) fn list(&self, patience: Patience) -> Result<Vec<Volume>, PluginError> {
        Ok(self.ask("List", &Request::default(), patience)?.volumes)
    }

    /// A volume that the plugin has; refused when it has none of that name.
    pub(crate) fn volume(&self, name: &str) -> Result<Volume, PluginError> {
        let answer = self.ask("Get", &named(name), Patience::of_questions())?;
        // Docker takes an answer about nothing as a no.
        let missing = || PluginError::Refused { text: "no such volume".to_owned() };
        answer.volume.filter(|volume| volume.name == name).ok_or_else(missing)
    }

    pub(crate) fn create(
        &self,
        name: &str,
        options: Option<BTreeMap<String, String>>,
    ) -> Result<(), PluginError> {
        let request = Request { opts: Some(options), ..named(name) };
        self.ask("Create", &request, Patience::of_work()).map(drop)
    }

    pub(crate) fn remove(&self, name: &str) -> Result<(), PluginError> {
        self.ask("Remove", &named(name), Patience::of_work()).map(drop)
    }

    /// Returns where its files are now.
    pub(crate) fn mount(&self, name: &str, id: &str) -> Result<String, PluginError> {
        let request = Request { id: id.to_owned(), ..named(name) };
        Ok(self.ask("Mount", &request, Patience::of_work())?.mountpoint)
    }

    pub(crate) fn unmount(&self, name: &str, id: &str) -> Result<(), PluginError> {
        let request = Request { id: id.to_owned(), ..named(name) };
        self.ask("Unmount", &request, Patience::of_work()).map(drop)
    }
}

fn named(name: &str) -> Request {
    Request { name: name.to_owned(), ..Request::default() }
}

fn call<T: DeserializeOwned>(
    address: &Address,
    method: &str,
    body: &[u8],
    patience: Patience,
) -> Result<T, PluginError> {
    let unreachable = |cause| PluginError::Unreachable { method: method.to_owned(), cause };
    let reply = http::post(address, method, body, patience).map_err(unreachable)?;
    let parsed = serde_json::from_slice::<Value>(&reply.body);
    if reply.status != 200 {
        let own = parsed.as_ref().ok().and_then(|value| value["Err"].as_str());
        let text = match own.filter(|text| !text.is_empty()) {
            Some(text) => text.to_owned(),
            None => String::from_utf8_lossy(&reply.body).trim().to_owned(),
        };
        return Err(PluginError::Status { method: method.to_owned(), text });
    }
    let typed = parsed.and_then(|value| serde_json::from_value(without_nulls(value)));
    typed.map_err(|error| PluginError::Malformed {
        method: method.to_owned(),
        reason: error.to_string(),
    })
}

/// Go spells what is empty `null`.
fn without_nulls(mut value: Value) -> Value {
    match &mut value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(|member| *member = without_nulls(member.take()));
        }
        Value::Array(items) => {
            items.iter_mut().for_each(|item| *item = without_nulls(item.take()));
        }
        _ => {}
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> (tempfile::TempDir, Places) {
        let root = tempfile::tempdir().unwrap();
        let places = Places {
            sockets: root.path().join("run"),
            specs: vec![root.path().join("etc"), root.path().join("lib")],
        };
        for directory in ["run/two", "etc/five", "lib"] {
            std::fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        (root, places)
    }

    #[test]
    fn plugins_are_found_where_docker_looks() {
        let (root, places) = places();
        let socket = |place: &str| {
            std::os::unix::net::UnixListener::bind(root.path().join(place)).unwrap();
            Address::Unix(root.path().join(place))
        };
        let write =
            |place: &str, text: &str| std::fs::write(root.path().join(place), text).unwrap();
        let (one, two) = (socket("run/one.sock"), socket("run/two/two.sock"));
        write("run/file.sock", "");
        write("etc/one.spec", "tcp://hidden:1");
        write("etc/three.spec", "tcp://localhost:80\n");
        write("lib/four.json", r#"{"Name": "four", "Addr": "unix:///run/four"}"#);
        write("etc/five/five.spec", "unix:///run/five");
        write("lib/six.json", r#"{"Addr": "https://x:1", "TLSConfig": {}}"#);
        write("lib/seven.spec", "ftp://x");
        assert_eq!(places.find("one").unwrap(), one);
        assert_eq!(places.find("two").unwrap(), two);
        assert_eq!(places.find("three").unwrap(), Address::Tcp("localhost:80".to_owned()));
        assert_eq!(places.find("four").unwrap(), Address::Unix("/run/four".into()));
        assert_eq!(places.find("five").unwrap(), Address::Unix("/run/five".into()));
        let check = |name: &str, text: &str| {
            assert_eq!(places.find(name).unwrap_err().to_string(), text);
        };
        check("six", "plugin \"six\": TLS is not supported yet");
        check("seven", "plugin \"seven\": \"ftp://x\" is no address of a plugin");
        for name in ["file", "", "..", "../run/one", "two/two"] {
            check(name, &format!("plugin {name:?} not found"));
        }
        let names: Vec<_> = places.names().into_iter().collect();
        assert_eq!(names, ["five", "four", "one", "three", "two"]);
    }
}
