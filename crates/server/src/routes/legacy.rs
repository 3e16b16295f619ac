//! What older versions of the API say otherwise, in requests and in answers.

use std::collections::BTreeMap;

use api_types::container::Inspect;
use api_types::host_config::HostConfig;
use api_types::image;
use hyper::Response;
use serde_json::{Value, json};

use crate::answer::{self, ApiError, Body};
use crate::json::{self, JsonError};
use crate::request::Request;
use crate::version::ApiVersion;

/// Below 1.18 the limits of a container stood beside its configuration, and fig 1.0 sends them
/// there. What `HostConfig` says itself wins.
pub(super) fn move_limits_to_host_config(body: Value) -> Result<Value, JsonError> {
    const MOVED: &[(&str, &str)] = &[
        ("Memory", "Memory"),
        ("MemorySwap", "MemorySwap"),
        ("CpuShares", "CpuShares"),
        ("Cpuset", "CpusetCpus"),
    ];
    let mut members = json::object(body, "container.CreateRequest")?;
    let host_config = json::take(&mut members, "HostConfig")?;
    let mut host_config = json::object(host_config, "container.HostConfig")?;
    for (old, new) in MOVED {
        let old = json::take(&mut members, old)?;
        let new_value = json::take(&mut host_config, new)?;
        let value = if new_value.is_null() { old } else { new_value };
        host_config.insert((*new).to_owned(), value);
    }
    members.insert("HostConfig".to_owned(), host_config.into());
    Ok(members.into())
}

/// A body of `start` that says nothing.
const EMPTY_START_BODY: usize = 7;

/// Below 1.24 a `HostConfig` could come as late as the start. One that sets nothing is no matter.
pub(super) async fn start_body(request: &mut Request) -> Result<Option<HostConfig>, ApiError> {
    let body = request.body().await?;
    if body.len() <= EMPTY_START_BODY {
        return Ok(None);
    }
    if request.version.has(24) {
        return Err(ApiError::bad_request(
            "starting container with non-empty request body was deprecated since API v1.22 and \
             removed in v1.24",
        ));
    }
    let host_config = json::decode_host_config(json::parse(&body)?)?;
    Ok(Some(host_config).filter(|config| *config != HostConfig::default()))
}

pub(super) fn inspect_response(mut inspect: Inspect, version: ApiVersion) -> Response<Body> {
    if version.has(45) {
        return answer::json(&inspect);
    }
    add_short_id_to_aliases(&mut inspect);
    if version.has(20) {
        return answer::json(&inspect);
    }
    let destinations = |value: fn(&api_types::container::MountPoint) -> Value| {
        let mounts = inspect.mounts.iter();
        mounts.map(|mount| (mount.destination.clone(), value(mount))).collect::<BTreeMap<_, _>>()
    };
    let volumes = destinations(|mount| mount.source.clone().into());
    let writable = destinations(|mount| mount.rw.into());
    let mut body = serde_json::to_value(&inspect).expect("API types have string keys only");
    body["Volumes"] = json!(volumes);
    body["VolumesRW"] = json!(writable);
    answer::json(&body)
}

/// Networks that users made; the others never had aliases.
fn add_short_id_to_aliases(inspect: &mut Inspect) {
    let short_id = inspect.id.get(..12).unwrap_or(&inspect.id).to_owned();
    let names = [short_id, inspect.config.hostname.clone()];
    for (network, endpoint) in &mut inspect.network_settings.networks {
        if matches!(network.as_str(), "default" | "bridge" | "host" | "none") {
            continue;
        }
        let aliases = endpoint.aliases.get_or_insert_default();
        for name in &names {
            if !aliases.contains(name) {
                aliases.push(name.clone());
            }
        }
    }
}

pub(super) fn image_list_response(
    mut images: Vec<image::Summary>,
    version: ApiVersion,
) -> Response<Body> {
    if !version.has(44) {
        for image in &mut images {
            image.virtual_size = Some(image.size);
        }
    }
    answer::json(&images)
}

pub(super) fn image_inspect_response(
    mut inspect: image::Inspect,
    version: ApiVersion,
) -> Response<Body> {
    if version.has(50) {
        return answer::json(&inspect);
    }
    if !version.has(44) {
        inspect.virtual_size = Some(inspect.size);
    }
    let mut body = serde_json::to_value(&inspect).expect("API types have string keys only");
    add_missing(&mut body["Config"], &container_members());
    if !version.has(45) {
        let mut empty = container_members();
        let rest = json!({
            "User": "", "Env": null, "Cmd": null, "Volumes": null, "WorkingDir": "",
            "Entrypoint": null, "OnBuild": null, "Labels": null,
        });
        add_missing(&mut empty, &rest);
        body["ContainerConfig"] = empty;
    }
    answer::json(&body)
}

/// The members of a container's configuration that an image's never had a use for.
fn container_members() -> Value {
    json!({
        "Hostname": "", "Domainname": "", "AttachStdin": false, "AttachStdout": false,
        "AttachStderr": false, "Tty": false, "OpenStdin": false, "StdinOnce": false, "Image": "",
    })
}

fn add_missing(object: &mut Value, members: &Value) {
    let (Value::Object(object), Value::Object(members)) = (object, members) else { return };
    for (name, value) in members {
        object.entry(name).or_insert_with(|| value.clone());
    }
}

#[cfg(test)]
mod tests {
    use api_types::network::EndpointSettings;

    use super::*;

    fn body(response: Response<Body>) -> Value {
        match response.into_body() {
            Body::Whole(bytes) => serde_json::from_slice(&bytes).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn limits_move_to_the_host_config() {
        let check = |body: Value, expect: Value| {
            let moved = move_limits_to_host_config(body).and_then(json::decode_create).unwrap();
            let resources = moved.host_config.resources;
            let seen = json!([resources.memory, resources.cpuset_cpus]);
            assert_eq!(seen, expect);
        };
        check(json!({"Image": "a", "Memory": 7, "Cpuset": "0,1"}), json!([7, "0,1"]));
        check(json!({"Image": "a", "memory": 7, "HostConfig": {"Memory": 8}}), json!([8, ""]));
        check(json!({"Image": "a", "Memory": null}), json!([0, ""]));
    }

    #[test]
    fn older_clients_see_older_members() {
        let mut inspect = Inspect { id: "0123456789abcdef".to_owned(), ..Inspect::default() };
        inspect.config.hostname = "host".to_owned();
        inspect.mounts.push(api_types::container::MountPoint {
            source: "/src".to_owned(),
            destination: "/dst".to_owned(),
            rw: true,
            ..Default::default()
        });
        let networks = &mut inspect.network_settings.networks;
        networks.insert("bridge".to_owned(), EndpointSettings::default());
        networks.insert("mine".to_owned(), EndpointSettings::default());
        let seen = |minor| body(inspect_response(inspect.clone(), ApiVersion::new(1, minor)));
        let networks = |minor| seen(minor)["NetworkSettings"]["Networks"].clone();
        assert_eq!(networks(45)["mine"]["Aliases"], Value::Null);
        assert_eq!(networks(44)["mine"]["Aliases"], json!(["0123456789ab", "host"]));
        assert_eq!(networks(44)["bridge"]["Aliases"], Value::Null);
        assert_eq!(seen(20)["Volumes"], Value::Null);
        assert_eq!(seen(19)["Volumes"], json!({"/dst": "/src"}));
        assert_eq!(seen(19)["VolumesRW"], json!({"/dst": true}));
    }

    #[test]
    fn older_clients_see_older_images() {
        let inspect = image::Inspect { size: 5, ..image::Inspect::default() };
        let seen = |minor| body(image_inspect_response(inspect.clone(), ApiVersion::new(1, minor)));
        assert_eq!(seen(50)["Config"].get("Hostname"), None);
        assert_eq!(seen(49)["Config"]["Hostname"], "");
        assert_eq!(seen(45).get("ContainerConfig"), None);
        assert_eq!(seen(44)["ContainerConfig"].as_object().unwrap().len(), 17);
        assert_eq!(seen(44).get("VirtualSize"), None);
        assert_eq!(seen(43)["VirtualSize"], 5);
    }
}
