//! `--gpus all`, `--gpus 2`, `--gpus '"device=0,1",capabilities=utility'`.

use std::collections::BTreeMap;

use api_types::host_config::DeviceRequest;

use super::csv;

pub(crate) fn parse_gpus(text: &str) -> Result<DeviceRequest, String> {
    let mut request = DeviceRequest { options: Some(BTreeMap::new()), ..DeviceRequest::default() };
    let mut capabilities = vec!["gpu".to_owned()];
    let mut seen: Vec<String> = Vec::new();
    for field in csv(text)? {
        let (key, value) = field.split_once('=').unwrap_or(("count", &field));
        if seen.iter().any(|before| before == key) {
            return Err(format!("gpu request key '{key}' can be specified only once"));
        }
        seen.push(key.to_owned());
        match key {
            "driver" => request.driver = value.to_owned(),
            "count" => request.count = count(value)?,
            "device" => request.device_ids = Some(value.split(',').map(str::to_owned).collect()),
            "capabilities" => {
                let mut named: Vec<String> = value.split(',').map(str::to_owned).collect();
                if !named.iter().any(|name| name == "gpu") {
                    named.push("gpu".to_owned());
                }
                capabilities = named;
            }
            "options" => request.options = Some(crate::flags::pairs(&csv(value)?)),
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
    }
    if !seen.iter().any(|key| key == "count") && request.device_ids.is_none() {
        request.count = 1;
    }
    request.capabilities = Some(vec![capabilities]);
    Ok(request)
}

fn count(text: &str) -> Result<i64, String> {
    if text == "all" {
        return Ok(-1);
    }
    text.parse().map_err(|_not_a_number| {
        format!(
            "invalid count ({text}): value must be either \"all\" or an integer: invalid syntax"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_count_or_name_devices() {
        assert_eq!(parse_gpus("all").unwrap().count, -1);
        assert_eq!(parse_gpus("2").unwrap().count, 2);
        assert_eq!(parse_gpus("driver=nvidia").unwrap().count, 1);
        let named = parse_gpus(r#""device=0,1""#).unwrap();
        assert_eq!(named.device_ids.unwrap(), ["0", "1"]);
        assert_eq!(named.count, 0);
        assert_eq!(named.capabilities.unwrap(), [["gpu"]]);
        assert!(parse_gpus("x").is_err() && parse_gpus("foo=1").is_err());
    }
}
