//! The `filters` query parameter: `{"label":["a=b"]}`, or the older `{"label":{"a=b":true}}`.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Parsed filters: a name maps to the set of values asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, BTreeSet<String>>);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    #[error("invalid filter")]
    Malformed,
    #[error("invalid filter '{name}'")]
    UnknownName { name: String },
    #[error("invalid filter '{name}={value}'")]
    InvalidValue { name: String, value: String },
}

impl crate::Kinded for FilterError {
    fn kind(&self) -> crate::ErrorKind {
        crate::ErrorKind::InvalidArgument
    }
}

impl Filters {
    /// Parses the JSON of the query parameter. An empty text is no filter.
    pub fn parse(json: &str) -> Result<Self, FilterError> {
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum Values {
            List(Vec<String>),
            Map(HashMap<String, bool>),
        }
        if json.is_empty() {
            return Ok(Self::default());
        }
        let raw: BTreeMap<String, Option<Values>> =
            serde_json::from_str(json).map_err(|_malformed| FilterError::Malformed)?;
        let values = |values| match values {
            None => BTreeSet::new(),
            Some(Values::List(list)) => list.into_iter().collect(),
            Some(Values::Map(map)) => {
                map.into_iter().filter(|(_, on)| *on).map(|(value, _)| value).collect()
            }
        };
        Ok(Self(raw.into_iter().map(|(name, list)| (name, values(list))).collect()))
    }

    /// Prints the JSON form that every API version since 1.22 accepts.
    pub fn to_json(&self) -> String {
        let maps: BTreeMap<_, BTreeMap<_, bool>> = self
            .0
            .iter()
            .map(|(name, values)| (name, values.iter().map(|value| (value, true)).collect()))
            .collect();
        serde_json::to_string(&maps).expect("maps of strings always serialize")
    }

    pub fn add(&mut self, name: &str, value: &str) {
        self.0.entry(name.to_owned()).or_default().insert(value.to_owned());
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Refuses names outside `accepted`.
    pub fn validate(&self, accepted: &[&str]) -> Result<(), FilterError> {
        match self.0.keys().find(|name| !accepted.contains(&name.as_str())) {
            Some(name) => Err(FilterError::UnknownName { name: name.clone() }),
            None => Ok(()),
        }
    }

    /// The values asked for under `name`; none when it was not given.
    pub fn get(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.get(name).into_iter().flatten().map(String::as_str)
    }

    /// True when `name` was not asked for, or one of its values satisfies `test`.
    pub fn any(&self, name: &str, test: impl FnMut(&str) -> bool) -> bool {
        match self.0.get(name) {
            Some(values) if !values.is_empty() => values.iter().map(String::as_str).any(test),
            _ => true,
        }
    }

    /// True when every asked `key` or `key=value` under `name` is among the labels.
    pub fn matches_labels<'a>(&self, name: &str, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.get(name).all(|wanted| has_label(wanted, &label))
    }

    /// True when a `key` or `key=value` under `name` is among the labels: `label!` of a prune.
    pub fn any_label<'a>(&self, name: &str, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.get(name).any(|wanted| has_label(wanted, &label))
    }

    /// The one boolean under `name`, in Docker's spellings.
    pub fn boolean(&self, name: &str) -> Result<Option<bool>, FilterError> {
        let mut seen = None;
        for value in self.get(name) {
            let this = match value {
                "1" | "true" => true,
                "0" | "false" => false,
                _ => {
                    return Err(FilterError::InvalidValue {
                        name: name.to_owned(),
                        value: value.to_owned(),
                    });
                }
            };
            if seen.replace(this).is_some_and(|before| before != this) {
                return Err(FilterError::InvalidValue {
                    name: name.to_owned(),
                    value: value.to_owned(),
                });
            }
        }
        Ok(seen)
    }
}

/// Whether a `key` or `key=value` is among the labels.
fn has_label<'a>(wanted: &str, label: impl Fn(&str) -> Option<&'a str>) -> bool {
    match wanted.split_once('=') {
        Some((key, value)) => label(key) == Some(value),
        None => label(wanted).is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_wire_forms_mean_the_same() {
        let list = Filters::parse(r#"{"label":["a=b","c"]}"#).unwrap();
        let map = Filters::parse(r#"{"label":{"a=b":true,"c":true,"d":false}}"#).unwrap();
        assert_eq!(list, map);
        assert_eq!(Filters::parse(&list.to_json()).unwrap(), list);
        assert!(Filters::parse("[1]").is_err());
    }

    #[test]
    fn labels_match_exactly() {
        let filters = Filters::parse(r#"{"label":["a=b","c"]}"#).unwrap();
        let labels = |pairs: &'static [(&str, &str)]| {
            move |key: &str| pairs.iter().find(|(k, _)| *k == key).map(|(_, v)| *v)
        };
        assert!(filters.matches_labels("label", labels(&[("a", "b"), ("c", "x")])));
        assert!(!filters.matches_labels("label", labels(&[("a", "bb"), ("c", "x")])));
        assert!(!filters.matches_labels("label", labels(&[("a", "b")])));
    }

    #[test]
    fn booleans_refuse_anything_else() {
        let filters = Filters::parse(r#"{"dangling":["yes"]}"#).unwrap();
        assert_eq!(
            filters.boolean("dangling").unwrap_err().to_string(),
            "invalid filter 'dangling=yes'"
        );
    }
}
