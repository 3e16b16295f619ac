//! Reading image configs that strangers wrote.

use serde_json::Value;
use spec::Digest;
use spec::oci::ImageConfig;

use crate::error::ImageError;

/// A config that was checked: it is for Linux and lists its layers.
#[derive(Debug, Clone)]
pub(crate) struct Document {
    pub(crate) config: ImageConfig,
    pub(crate) diff_ids: Vec<Digest>,
}

/// Reads a config. Members that are `null` count as absent, except that the list of layers must
/// be there, as Docker wants it.
pub(crate) fn parse(bytes: &[u8]) -> Result<Document, ImageError> {
    let malformed = |error: serde_json::Error| ImageError::Json { reason: error.to_string() };
    let mut value: Value = serde_json::from_slice(bytes).map_err(malformed)?;
    let Some(members) = value.as_object_mut() else {
        return Err(ImageError::Json { reason: "not an object".to_owned() });
    };
    members.retain(|_, member| !member.is_null());
    match members.get("rootfs") {
        None => return Err(ImageError::NoRootFs),
        Some(Value::Object(_)) => {}
        Some(_) => return Err(ImageError::Json { reason: "rootfs is not an object".to_owned() }),
    }
    let config: ImageConfig = serde_json::from_value(value).map_err(malformed)?;
    if !config.os.is_empty() && config.os != "linux" {
        return Err(ImageError::OtherOs { os: config.os });
    }
    let diff_ids = config.rootfs.diff_ids.clone().unwrap_or_default();
    Ok(Document { config, diff_ids })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, expect: &str) {
        let got = match parse(json.as_bytes()) {
            Ok(document) => format!("{} layers", document.diff_ids.len()),
            Err(error) => error.to_string(),
        };
        assert_eq!(got, expect, "{json}");
    }

    #[test]
    fn g07_malformed_configs_are_refused_or_read() {
        check("{}", "invalid image JSON, no RootFS key");
        check(r#"{"rootfs":null,"history":null}"#, "invalid image JSON, no RootFS key");
        check(r#"{"rootfs":{}}"#, "0 layers");
        check(r#"{"rootfs":{"diff_ids":null},"history":null,"os":null,"config":null}"#, "0 layers");
        check(r#"{"rootfs":{"type":"layers","diff_ids":[]},"os.features":["x"]}"#, "0 layers");
        check(r#"{"rootfs":{},"os":"windows"}"#, "cannot load windows image on linux");
        check("[]", "invalid image JSON: not an object");
        check("", "invalid image JSON: EOF while parsing a value at line 1 column 0");
        for bad in [
            r#"{"rootfs":[]}"#,
            r#"{"rootfs":{"diff_ids":["sha256:zz"]}}"#,
            r#"{"rootfs":{"diff_ids":{"a":1}}}"#,
            r#"{"rootfs":{},"history":[null]}"#,
            r#"{"rootfs":{},"history":7}"#,
            r#"{"rootfs":{},"os":["linux"]}"#,
            r#"{"rootfs":{},"config":{"Env":"x"}}"#,
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
        let deep = "[".repeat(100_000);
        assert!(parse(format!("{{\"rootfs\":{deep}").as_bytes()).is_err());
    }
}
