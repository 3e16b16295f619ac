//! Every endpoint of the Docker API, in one table: what is served, what is served in part, and
//! what is refused by name. `cargo xtask compat` prints it; the first row that matches wins.

mod archive;
mod containers;
mod events;
mod exec;
mod images;
mod legacy;
mod networks;
mod sessions;
mod system;
mod volumes;

use futures_util::future::BoxFuture;
use hyper::StatusCode;

use crate::answer::{Answer, ApiError};
use crate::request::Request;

pub type Handler = fn(Request) -> BoxFuture<'static, Result<Answer, ApiError>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    Works,
    Partly,
    Refused,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Action {
    Handle(Handler),
    /// 501, naming this thing.
    Refuse(&'static str),
    /// 503: clients tell by it that there is no swarm.
    NeedsManager,
}

#[derive(Debug)]
pub(crate) struct Route {
    pub method: &'static str,
    /// `{...}` stands for one or more characters, slashes included.
    pub path: &'static str,
    pub action: Action,
    support: Support,
    note: &'static str,
    /// Nothing is lost when the client leaves before the answer.
    pub may_be_dropped: bool,
}

/// A row of the table, for those who document it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteInfo {
    pub method: &'static str,
    pub path: &'static str,
    pub support: Support,
    pub note: &'static str,
}

/// The whole table.
pub fn table() -> Vec<RouteInfo> {
    let info = |route: &Route| RouteInfo {
        method: route.method,
        path: route.path,
        support: route.support,
        note: route.note,
    };
    // Answered before routing, whatever the path.
    let preflight =
        RouteInfo { method: "OPTIONS", path: "/{anyroute}", support: Support::Works, note: "" };
    ROUTES.iter().map(info).chain([preflight]).collect()
}

/// Finds the route of a path that has no version, with what its `{...}` stand for.
pub(crate) fn find(method: &str, path: &str) -> Option<(&'static Route, Vec<String>)> {
    ROUTES
        .iter()
        .chain(OWN)
        .filter(|route| route.method == method)
        .find_map(|route| Some((route, captures(route.path, path)?)))
}

/// Matches a template of at most two `{...}`.
fn captures(template: &str, path: &str) -> Option<Vec<String>> {
    let Some((before, rest)) = template.split_once('{') else {
        return (template == path).then(Vec::new);
    };
    let path = path.strip_prefix(before)?;
    let (_, after) = rest.split_once('}')?;
    let found = match after.split_once('{') {
        None => vec![path.strip_suffix(after)?],
        Some((between, _)) => {
            let (first, second) = path.rsplit_once(between)?;
            vec![first, second]
        }
    };
    let complete = found.iter().all(|part| !part.is_empty());
    complete.then(|| found.into_iter().map(str::to_owned).collect())
}

pub(crate) fn not_a_manager() -> ApiError {
    ApiError::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to \
         connect this node to swarm and try again.",
    )
}

const fn route(method: &'static str, path: &'static str, action: Action) -> Route {
    let bytes = method.as_bytes();
    let reads = (bytes[0] == b'G' && bytes[1] == b'E') || bytes[0] == b'H';
    let (support, note) = match action {
        Action::Handle(_) => (Support::Works, ""),
        Action::Refuse(_) => (Support::Refused, ""),
        Action::NeedsManager => (Support::Refused, "503: no swarm"),
    };
    Route { method, path, action, support, note, may_be_dropped: reads }
}

const fn refused(method: &'static str, path: &'static str, thing: &'static str) -> Route {
    route(method, path, Action::Refuse(thing))
}

const fn swarm(method: &'static str, path: &'static str) -> Route {
    route(method, path, Action::NeedsManager)
}

impl Route {
    const fn partly(mut self, note: &'static str) -> Self {
        self.support = Support::Partly;
        self.note = note;
        self
    }

    const fn droppable(mut self) -> Self {
        self.may_be_dropped = true;
        self
    }
}

/// A row whose handler is an async function.
macro_rules! works {
    ($method:literal, $path:literal, $handler:path) => {
        route(
            $method,
            $path,
            Action::Handle(|request| {
                Box::pin(async move { $handler(request).await.map(Answer::from) })
            }),
        )
    };
}

/// What Docker does not have, below a name that it will not take.
static OWN: &[Route] = &[works!("POST", "/boxship/check", system::check)];

static ROUTES: &[Route] = &[
    // Containers.
    works!("GET", "/containers/json", containers::list),
    works!("POST", "/containers/create", containers::create),
    works!("POST", "/containers/prune", containers::prune),
    works!("GET", "/containers/{id}/json", containers::inspect),
    works!("GET", "/containers/{id}/top", containers::top),
    works!("GET", "/containers/{id}/logs", sessions::logs),
    works!("GET", "/containers/{id}/changes", containers::changes),
    works!("GET", "/containers/{id}/stats", sessions::stats),
    works!("POST", "/containers/{id}/resize", containers::resize),
    works!("POST", "/containers/{id}/start", containers::start).partly("checkpoints are refused"),
    works!("POST", "/containers/{id}/stop", containers::stop),
    works!("POST", "/containers/{id}/restart", containers::restart),
    works!("POST", "/containers/{id}/kill", containers::kill),
    works!("POST", "/containers/{id}/update", containers::update),
    works!("POST", "/containers/{id}/rename", containers::rename),
    works!("POST", "/containers/{id}/pause", containers::pause),
    works!("POST", "/containers/{id}/unpause", containers::unpause),
    works!("POST", "/containers/{id}/attach", sessions::attach),
    works!("GET", "/containers/{id}/attach/ws", sessions::attach_websocket),
    works!("POST", "/containers/{id}/wait", containers::wait).droppable(),
    works!("POST", "/containers/{id}/exec", exec::create),
    works!("GET", "/containers/{id}/export", containers::export),
    works!("HEAD", "/containers/{id}/archive", archive::stat),
    works!("GET", "/containers/{id}/archive", archive::get),
    works!("PUT", "/containers/{id}/archive", archive::put).partly("plain, gzip or zstd"),
    refused("POST", "/containers/{id}/copy", "copying out of a container by POST"),
    refused("GET", "/containers/{id}/checkpoints", "a container checkpoint"),
    refused("POST", "/containers/{id}/checkpoints", "a container checkpoint"),
    refused("DELETE", "/containers/{id}/checkpoints/{checkpoint}", "a container checkpoint"),
    works!("DELETE", "/containers/{id}", containers::remove),
    // Commands in containers.
    works!("POST", "/exec/{id}/start", exec::start),
    works!("POST", "/exec/{id}/resize", exec::resize),
    works!("GET", "/exec/{id}/json", exec::inspect),
    // Images.
    works!("GET", "/images/json", images::list).partly("without manifests and identity"),
    works!("POST", "/images/create", images::create).partly("fromSrc=- only: no pull, no URL"),
    works!("POST", "/images/load", images::load).partly("without platform"),
    works!("POST", "/images/prune", images::prune),
    works!("GET", "/images/get", images::save_all),
    refused("GET", "/images/search", "searching a registry"),
    refused("GET", "/images/viz", "the image graph of API 1.6"),
    works!("GET", "/images/{name}/get", images::save),
    works!("GET", "/images/{name}/json", images::inspect),
    works!("GET", "/images/{name}/history", images::history),
    works!("POST", "/images/{name}/tag", images::tag),
    refused("GET", "/images/{name}/attestations", "an image attestation"),
    refused("POST", "/images/{name}/push", "pushing an image"),
    refused("POST", "/images/{name}/insert", "inserting a file into an image"),
    works!("DELETE", "/images/{name}", images::remove).partly("without platforms"),
    works!("POST", "/commit", containers::commit),
    refused("POST", "/build", "building an image"),
    refused("POST", "/build/prune", "a build cache"),
    refused("POST", "/build/cancel", "building an image"),
    refused("POST", "/session", "BuildKit"),
    refused("POST", "/grpc", "BuildKit"),
    refused("GET", "/distribution/{name}/json", "asking a registry for an image"),
    // The daemon.
    works!("GET", "/_ping", system::ping),
    works!("HEAD", "/_ping", system::ping),
    works!("GET", "/version", system::version),
    works!("GET", "/info", system::info),
    works!("GET", "/events", events::events),
    works!("GET", "/system/df", system::disk_usage).partly("without build cache"),
    works!("POST", "/auth", system::auth).partly("refused by the engine, naming the registry"),
    refused("GET", "/auth", "showing stored credentials"),
    // Networks.
    works!("GET", "/networks", networks::list),
    works!("GET", "/networks/", networks::list),
    works!("POST", "/networks/create", networks::create).partly(
        "drivers bridge, macvlan, ipvlan (l2); no ConfigOnly; gateway modes nat and isolated",
    ),
    works!("POST", "/networks/prune", networks::prune),
    works!("POST", "/networks/{id}/connect", networks::connect),
    works!("POST", "/networks/{id}/disconnect", networks::disconnect),
    works!("GET", "/networks/{id}", networks::inspect),
    works!("DELETE", "/networks/{id}", networks::remove),
    // Volumes.
    works!("GET", "/volumes", volumes::list),
    works!("POST", "/volumes/create", volumes::create)
        .partly("without quotas; plugins without TLS"),
    works!("POST", "/volumes/prune", volumes::prune),
    works!("GET", "/volumes/{name}", volumes::inspect),
    works!("PUT", "/volumes/{name}", volumes::update).partly("503: no swarm"),
    works!("DELETE", "/volumes/{name}", volumes::remove),
    // Plugins.
    refused("GET", "/plugins", "a list of plugins"),
    refused("GET", "/plugins/privileges", "installing a plugin"),
    refused("POST", "/plugins/pull", "installing a plugin"),
    refused("POST", "/plugins/create", "creating a plugin"),
    refused("GET", "/plugins/{name}/json", "inspecting a plugin"),
    refused("POST", "/plugins/{name}/enable", "enabling a plugin"),
    refused("POST", "/plugins/{name}/disable", "disabling a plugin"),
    refused("POST", "/plugins/{name}/upgrade", "upgrading a plugin"),
    refused("POST", "/plugins/{name}/push", "pushing a plugin"),
    refused("POST", "/plugins/{name}/set", "configuring a plugin"),
    refused("DELETE", "/plugins/{name}", "removing a plugin"),
    // Swarm: this node is in none.
    swarm("GET", "/swarm"),
    refused("POST", "/swarm/init", "a swarm"),
    refused("POST", "/swarm/join", "a swarm"),
    works!("POST", "/swarm/leave", system::leave_swarm).partly("503: no swarm to leave"),
    swarm("POST", "/swarm/update"),
    swarm("GET", "/swarm/unlockkey"),
    swarm("POST", "/swarm/unlock"),
    swarm("GET", "/nodes"),
    swarm("GET", "/nodes/{id}"),
    swarm("DELETE", "/nodes/{id}"),
    swarm("POST", "/nodes/{id}/update"),
    swarm("GET", "/services"),
    swarm("POST", "/services/create"),
    swarm("GET", "/services/{id}/logs"),
    swarm("GET", "/services/{id}"),
    swarm("DELETE", "/services/{id}"),
    swarm("POST", "/services/{id}/update"),
    swarm("GET", "/tasks"),
    swarm("GET", "/tasks/{id}/logs"),
    swarm("GET", "/tasks/{id}"),
    swarm("GET", "/secrets"),
    swarm("POST", "/secrets/create"),
    swarm("GET", "/secrets/{id}"),
    swarm("DELETE", "/secrets/{id}"),
    swarm("POST", "/secrets/{id}/update"),
    swarm("GET", "/configs"),
    swarm("POST", "/configs/create"),
    swarm("GET", "/configs/{id}"),
    swarm("DELETE", "/configs/{id}"),
    swarm("POST", "/configs/{id}/update"),
    // What a debugging Go daemon shows of itself.
    refused("GET", "/debug/vars", "the debug page of a Go program"),
    refused("GET", "/debug/pprof/", "the debug page of a Go program"),
    refused("GET", "/debug/pprof/cmdline", "the debug page of a Go program"),
    refused("GET", "/debug/pprof/profile", "the debug page of a Go program"),
    refused("GET", "/debug/pprof/symbol", "the debug page of a Go program"),
    refused("GET", "/debug/pprof/trace", "the debug page of a Go program"),
    refused("GET", "/debug/pprof/{name}", "the debug page of a Go program"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_capture() {
        let check = |template, path, expect: Option<&[&str]>| {
            let expect = expect.map(|parts| parts.iter().map(|part| (*part).to_owned()).collect());
            assert_eq!(captures(template, path), expect, "{path}");
        };
        check("/images/{name}/json", "/images/a/b/json", Some(&["a/b"]));
        check("/images/{name}/json", "/images/json", None);
        check("/images/{name}/json", "/images//json", None);
        check("/containers/{id}", "/containers/x", Some(&["x"]));
        check("/containers/{id}", "/containers/", None);
        check("/c/{id}/checkpoints/{x}", "/c/a/checkpoints/b", Some(&["a", "b"]));
        check("/version", "/version", Some(&[]));
    }

    /// The inventory has a row per endpoint; its two catch-alls are spelled differently here.
    #[test]
    fn every_endpoint_of_the_inventory_has_a_row() {
        let inventory = include_str!("../../tests/endpoints.tsv");
        let mut count = 0;
        for line in inventory.lines() {
            let (method, path) = line.split_once('\t').unwrap();
            count += 1;
            assert!(
                ROUTES.iter().any(|route| route.method == method && route.path == path),
                "{method} {path}"
            );
        }
        assert_eq!(count, ROUTES.len());
    }

    #[test]
    fn no_row_hides_another() {
        for route in ROUTES {
            let path = route.path.replace(['{', '}'], "");
            let (found, _) = find(route.method, &path).unwrap();
            assert_eq!(found.path, route.path);
        }
    }
}
