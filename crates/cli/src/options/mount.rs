//! `--mount type=bind,source=/a,target=/b,readonly`.

use api_types::host_config::{
    BindOptions, DriverConfig, ImageOptions, Mount, TmpfsOptions, VolumeOptions,
};

use super::csv;

pub(crate) fn parse_mount(text: &str) -> Result<Mount, String> {
    let mut mount = Mount { kind: "volume".to_owned(), ..Mount::default() };
    for field in csv(text)? {
        apply(&mut mount, &field)?;
    }
    validate(&mount)?;
    Ok(mount)
}

fn apply(mount: &mut Mount, field: &str) -> Result<(), String> {
    let (key, value) = match field.split_once('=') {
        Some((key, value)) => (key.to_ascii_lowercase(), Some(value)),
        None => (field.to_ascii_lowercase(), None),
    };
    let switch = ["readonly", "ro", "volume-nocopy", "bind-nonrecursive"].contains(&key.as_str());
    let Some(value) = value.or_else(|| switch.then_some("true")) else {
        return Err(format!("invalid field '{field}' must be a key=value pair"));
    };
    let owned = || value.to_owned();
    let on =
        || spec::boolean::parse(value).map_err(|_text| format!("invalid value for {key}: {value}"));
    match key.as_str() {
        "type" => mount.kind = value.to_ascii_lowercase(),
        "source" | "src" => mount.source = absolute(value),
        "target" | "dst" | "destination" => mount.target = owned(),
        "readonly" | "ro" => mount.read_only = on()?,
        "consistency" => mount.consistency = value.to_ascii_lowercase(),
        "bind-propagation" => bind(mount).propagation = value.to_ascii_lowercase(),
        "bind-nonrecursive" => bind(mount).non_recursive = on()?,
        "bind-recursive" => recursive(bind(mount), value)?,
        "volume-subpath" => volume(mount).subpath = owned(),
        "volume-nocopy" => volume(mount).no_copy = on()?,
        "volume-label" => insert(&mut volume(mount).labels, value),
        "volume-driver" => driver(mount).name = owned(),
        "volume-opt" => insert(&mut driver(mount).options, value),
        "image-subpath" => {
            mount.image_options.get_or_insert_with(ImageOptions::default).subpath = owned();
        }
        "tmpfs-size" => {
            tmpfs(mount).size_bytes = spec::size::parse_bytes(value)
                .map_err(|_text| format!("invalid value for {key}: {value}"))?;
        }
        "tmpfs-mode" => {
            tmpfs(mount).mode = u32::from_str_radix(value, 8)
                .map_err(|_text| format!("invalid value for {key}: {value}"))?;
        }
        _ => return Err(format!("unexpected key '{key}' in '{field}'")),
    }
    Ok(())
}

fn bind(mount: &mut Mount) -> &mut BindOptions {
    mount.bind_options.get_or_insert_with(BindOptions::default)
}

fn volume(mount: &mut Mount) -> &mut VolumeOptions {
    let options = mount.volume_options.get_or_insert_with(VolumeOptions::default);
    options.driver_config.get_or_insert_default();
    options
}

fn driver(mount: &mut Mount) -> &mut DriverConfig {
    volume(mount).driver_config.get_or_insert_with(DriverConfig::default)
}

fn tmpfs(mount: &mut Mount) -> &mut TmpfsOptions {
    mount.tmpfs_options.get_or_insert_with(TmpfsOptions::default)
}

fn insert(map: &mut Option<std::collections::BTreeMap<String, String>>, pair: &str) {
    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
    map.get_or_insert_default().insert(key.to_owned(), value.to_owned());
}

/// `enabled` is the default; the other three are separate switches in the API.
fn recursive(options: &mut BindOptions, value: &str) -> Result<(), String> {
    match value {
        "enabled" => {}
        "disabled" => options.non_recursive = true,
        "writable" => options.read_only_non_recursive = true,
        "readonly" => options.read_only_force_recursive = true,
        _ => {
            return Err(format!(
                "invalid value for bind-recursive: {value} (must be \"enabled\", \"disabled\", \
                 \"writable\", or \"readonly\")"
            ));
        }
    }
    Ok(())
}

/// `.` and `./x` are relative to the directory of the caller, which the daemon cannot know.
fn absolute(source: &str) -> String {
    if source != "." && !source.starts_with("./") {
        return source.to_owned();
    }
    super::files::absolute_path(source)
}

fn validate(mount: &Mount) -> Result<(), String> {
    if mount.kind.is_empty() {
        return Err("type is required".to_owned());
    }
    if mount.target.is_empty() {
        return Err("target is required".to_owned());
    }
    let mixed = |present: bool, kind: &str| match present && mount.kind != kind {
        true => Err(format!("cannot mix '{kind}-*' options with mount type '{}'", mount.kind)),
        false => Ok(()),
    };
    mixed(mount.volume_options.is_some(), "volume")?;
    mixed(mount.bind_options.is_some(), "bind")?;
    mixed(mount.image_options.is_some(), "image")?;
    mixed(mount.tmpfs_options.is_some(), "tmpfs")?;
    validate_recursion(mount)
}

fn validate_recursion(mount: &Mount) -> Result<(), String> {
    let Some(options) = &mount.bind_options else { return Ok(()) };
    let requires = |option: &str, needed: &str| {
        Err(format!(
            "option 'bind-recursive={option}' requires '{needed}' to be specified in conjunction"
        ))
    };
    if options.read_only_non_recursive && !mount.read_only {
        return requires("writable", "readonly");
    }
    if options.read_only_force_recursive && !mount.read_only {
        return requires("readonly", "readonly");
    }
    if options.read_only_force_recursive && options.propagation != "rprivate" {
        return requires("readonly", "bind-propagation=rprivate");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &str) {
        let got = match parse_mount(text) {
            Ok(mount) => serde_json::to_string(&mount).unwrap(),
            Err(error) => error,
        };
        assert_eq!(got, expect, "{text}");
    }

    #[test]
    fn mounts_become_what_the_api_takes() {
        check("target=/x", r#"{"Type":"volume","Target":"/x"}"#);
        check(
            "type=bind,src=/a,dst=/b,ro,bind-propagation=RSLAVE",
            r#"{"Type":"bind","Source":"/a","Target":"/b","ReadOnly":true,"BindOptions":{"Propagation":"rslave"}}"#,
        );
        check(
            "source=v,target=/x,volume-nocopy,volume-label=a=b,volume-driver=d,volume-opt=o=1",
            r#"{"Type":"volume","Source":"v","Target":"/x","VolumeOptions":{"NoCopy":true,"Labels":{"a":"b"},"DriverConfig":{"Name":"d","Options":{"o":"1"}}}}"#,
        );
        check(
            "type=tmpfs,target=/x,tmpfs-size=1m,tmpfs-mode=1777",
            r#"{"Type":"tmpfs","Target":"/x","TmpfsOptions":{"SizeBytes":1048576,"Mode":1023}}"#,
        );
    }

    #[test]
    fn mistakes_are_named() {
        check("x", "invalid field 'x' must be a key=value pair");
        check("type=bind,src=/x", "target is required");
        check("target=/x,foo=1", "unexpected key 'foo' in 'foo=1'");
        check("target=/x,readonly=z", "invalid value for readonly: z");
        check(
            "type=bind,src=/a,target=/x,volume-nocopy",
            "cannot mix 'volume-*' options with mount type 'bind'",
        );
        check(
            "type=bind,src=/a,dst=/b,bind-recursive=readonly",
            "option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction",
        );
    }
}
