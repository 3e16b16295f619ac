//! Reading an OCI layout: `index.json`, indexes inside it, manifests.

use serde::de::DeserializeOwned;
use spec::oci::{Descriptor, Index, MEDIA_DOCKER_LIST, MEDIA_INDEX, Manifest, Platform};
use storage::sha256;

use super::spool::{Member, Spool};
use super::{Planned, PlannedLayer, parse_names};
use crate::error::ImageError;
use crate::import::host_architecture;

/// How deep indexes may lie in indexes.
const DEPTH: usize = 4;

pub(super) fn plan(spool: &Spool) -> Result<Vec<Planned>, ImageError> {
    let json = spool.document(&spool.need("index.json")?)?;
    let index: Index = parse("index.json", &json)?;
    let named = |descriptor: &Descriptor| name_of(descriptor).map(str::to_owned);
    let mut planned: Vec<Planned> = Vec::new();
    let mut seen: Vec<Option<String>> = Vec::new();
    for descriptor in index.manifests.iter().filter(|it| !is_attestation(it)) {
        let name = named(descriptor);
        // Several platforms of one name: the first pass over them takes the best.
        let siblings: Vec<_> = index
            .manifests
            .iter()
            .filter(|other| !is_attestation(other) && named(other) == name)
            .collect();
        let platforms = siblings.iter().any(|other| other.platform != descriptor.platform);
        let chosen = if platforms && name.is_some() {
            if seen.contains(&name) {
                continue;
            }
            best(&siblings).unwrap_or(descriptor)
        } else {
            descriptor
        };
        seen.push(name.clone());
        let manifest = manifest(spool, chosen, DEPTH)?;
        add(&mut planned, plan_image(spool, &manifest, name.as_deref())?);
    }
    if planned.is_empty() {
        return Err(ImageError::Archive { reason: "index.json names no image".to_owned() });
    }
    Ok(planned)
}

/// The same image under several names is one image.
fn add(planned: &mut Vec<Planned>, image: Planned) {
    match planned.iter_mut().find(|other| other.config == image.config) {
        Some(other) => other.names.extend(image.names),
        None => planned.push(image),
    }
}

/// Follows indexes down to the manifest for this machine.
fn manifest(spool: &Spool, descriptor: &Descriptor, depth: usize) -> Result<Manifest, ImageError> {
    let json = document(spool, descriptor)?;
    let media_type = descriptor.media_type.as_str();
    if media_type != MEDIA_INDEX && media_type != MEDIA_DOCKER_LIST {
        return parse("manifest", &json);
    }
    let reason = |text: &str| ImageError::Archive { reason: text.to_owned() };
    if depth == 0 {
        return Err(reason("indexes lie too deep in each other"));
    }
    let index: Index = parse("index", &json)?;
    // Archives of one platform often keep the index of all.
    let present: Vec<_> =
        index.manifests.iter().filter(|it| !is_attestation(it) && spool.has(&path(it))).collect();
    let chosen = best(&present).ok_or_else(|| reason("an index names no image that is there"))?;
    manifest(spool, chosen, depth - 1)
}

fn plan_image(
    spool: &Spool,
    manifest: &Manifest,
    name: Option<&str>,
) -> Result<Planned, ImageError> {
    let layers = manifest.layers.iter().map(|layer| {
        let data = find(spool, layer)?;
        Ok(PlannedLayer { data, digest: Some(layer.digest) })
    });
    Ok(Planned {
        config: find(spool, &manifest.config)?,
        config_digest: Some(manifest.config.digest),
        layers: layers.collect::<Result<_, ImageError>>()?,
        names: parse_names(name.into_iter())?,
    })
}

/// The name Docker gives in full, or the specification's when it is more than a tag.
fn name_of(descriptor: &Descriptor) -> Option<&str> {
    let full = descriptor.annotations.get("io.containerd.image.name");
    let short = descriptor.annotations.get("org.opencontainers.image.ref.name");
    full.or(short).map(String::as_str).filter(|name| {
        spec::Reference::parse(name).is_ok_and(|name| name.tag.is_some() && name.digest.is_none())
    })
}

/// BuildKit puts provenance beside images, as manifests of an unknown platform.
fn is_attestation(descriptor: &Descriptor) -> bool {
    descriptor.annotations.contains_key("vnd.docker.reference.type")
        || descriptor.platform.as_ref().is_some_and(|it| it.os == "unknown")
}

/// This machine's platform, or the first.
fn best<'a>(descriptors: &[&'a Descriptor]) -> Option<&'a Descriptor> {
    let ours = |platform: &Platform| {
        platform.os == "linux" && platform.architecture == host_architecture()
    };
    descriptors
        .iter()
        .find(|it| it.platform.as_ref().is_some_and(ours))
        .or_else(|| descriptors.first())
        .copied()
}

fn path(descriptor: &Descriptor) -> String {
    format!("blobs/sha256/{}", descriptor.digest.hex())
}

/// A blob of the length that its descriptor says.
fn find(spool: &Spool, descriptor: &Descriptor) -> Result<Member, ImageError> {
    let member = spool.need(&path(descriptor))?;
    if i64::try_from(member.length) != Ok(descriptor.size) {
        let digest = descriptor.digest;
        let reason = format!("{digest} has {} bytes, not {}", member.length, descriptor.size);
        return Err(ImageError::Archive { reason });
    }
    Ok(member)
}

fn document(spool: &Spool, descriptor: &Descriptor) -> Result<Vec<u8>, ImageError> {
    let bytes = spool.document(&find(spool, descriptor)?)?;
    let (expected, actual) = (descriptor.digest, sha256(&bytes));
    if actual != expected {
        return Err(ImageError::WrongDigest { name: "a manifest".to_owned(), expected, actual });
    }
    Ok(bytes)
}

fn parse<T: DeserializeOwned>(what: &str, json: &[u8]) -> Result<T, ImageError> {
    serde_json::from_slice(json)
        .map_err(|error| ImageError::Archive { reason: format!("{what}: {error}") })
}
