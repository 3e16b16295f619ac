//! The values templates see, and how Go prints them.
//!
//! The daemon's JSON has no types, but Go's output depends on them: a nil list prints `[]`, a nil
//! map `map[]`, a nil pointer `<nil>`, a struct `{a b}`. The little that is needed is decided by
//! member name in [`MAPS`], [`LISTS`] and [`OMITTED`].

use std::fmt::Write;
use std::rc::Rc;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// What is not there, by the type it would have had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nil {
    /// No such key in a map.
    NoValue,
    /// A nil pointer.
    Pointer,
    /// A nil pointer whose member the daemon left out.
    Absent,
    List,
    Map,
}

#[derive(Debug, Clone)]
pub(crate) enum Value {
    Nil(Nil),
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Rc<str>),
    List(Rc<Vec<Self>>),
    Object(Rc<Object>),
    Row(Rc<dyn Row>),
}

/// A JSON object, in the order it was sent.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    /// The member it was found under; tells structs apart where a member is missing.
    pub name: Rc<str>,
    pub is_map: bool,
    pub members: Vec<(Rc<str>, Value)>,
}

/// A line of a list (`ps`, `images`): members are computed when asked for.
pub(crate) trait Row: std::fmt::Debug {
    /// The name errors give it, `*formatter.ContainerContext`.
    fn type_name(&self) -> &'static str;
    /// The members, ordered as `json` prints them: by name.
    fn members(&self) -> Vec<&'static str>;
    fn member(&self, name: &str) -> Option<Value>;
    /// Calls a method with arguments, `{{.Label "x"}}`.
    fn call(&self, _name: &str, _arguments: &[Value]) -> Option<Value> {
        None
    }
}

/// Members that are maps, with what a missing key means: text (`""`), a list, or a pointer.
const MAPS: &[(&str, MapOf)] = &[
    ("Annotations", MapOf::Text),
    ("Attributes", MapOf::Text),
    ("AuxiliaryAddresses", MapOf::Text),
    ("Config.LogConfig", MapOf::Text),
    ("Containers", MapOf::Pointer),
    ("Data", MapOf::Text),
    ("Details", MapOf::Text),
    ("DriverOpts", MapOf::Text),
    ("ExposedPorts", MapOf::Pointer),
    ("IndexConfigs", MapOf::Pointer),
    ("Labels", MapOf::Text),
    ("Networks", MapOf::Pointer),
    ("Options", MapOf::Text),
    ("PortBindings", MapOf::List),
    ("Ports", MapOf::List),
    ("Runtimes", MapOf::Pointer),
    ("StorageOpt", MapOf::Text),
    ("Sysctls", MapOf::Text),
    ("Tmpfs", MapOf::Text),
    ("Volumes", MapOf::Pointer),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MapOf {
    Text,
    List,
    Pointer,
}

/// Members that print `[]` when they are null.
const LISTS: &[&str] = &[
    "Aliases",
    "Args",
    "Authorization",
    "Binds",
    "BlkioDeviceReadBps",
    "BlkioDeviceReadIOps",
    "BlkioDeviceWriteBps",
    "BlkioDeviceWriteIOps",
    "BlkioWeightDevice",
    "CapAdd",
    "CapDrop",
    "Cmd",
    "Config.IPAM",
    "DNSNames",
    "Devices",
    "DeviceCgroupRules",
    "DeviceRequests",
    "Dns",
    "DnsOptions",
    "DnsSearch",
    "Entrypoint",
    "Env",
    "ExecIDs",
    "ExtraHosts",
    "GenericResources",
    "GroupAdd",
    "Layers",
    "Links",
    "MaskedPaths",
    "Mirrors",
    "Mounts",
    "OnBuild",
    "ReadonlyPaths",
    "RemoteManagers",
    "RepoDigests",
    "RepoTags",
    "SecondaryIPAddresses",
    "SecondaryIPv6Addresses",
    "SecurityOpt",
    "Shell",
    "Ulimits",
    "VolumesFrom",
    "Warnings",
];

/// Members the daemon leaves out when empty, by the struct they belong to.
const OMITTED: &[(&str, &str, Omitted)] = &[
    ("container", "SizeRw", Omitted::Pointer),
    ("container", "SizeRootFs", Omitted::Pointer),
    ("State", "Health", Omitted::Pointer),
    ("Config", "ExposedPorts", Omitted::Map),
    ("Config", "Healthcheck", Omitted::Pointer),
    ("Config", "StopSignal", Omitted::Text),
    ("Config", "StopTimeout", Omitted::Pointer),
    ("Config", "Shell", Omitted::List),
    ("Config", "NetworkDisabled", Omitted::False),
    ("Config", "ArgsEscaped", Omitted::False),
    ("Config", "MacAddress", Omitted::Text),
    ("HostConfig", "Annotations", Omitted::Map),
    ("HostConfig", "StorageOpt", Omitted::Map),
    ("HostConfig", "Tmpfs", Omitted::Map),
    ("HostConfig", "Sysctls", Omitted::Map),
    ("HostConfig", "Runtime", Omitted::Text),
    ("HostConfig", "Mounts", Omitted::List),
    ("HostConfig", "Init", Omitted::Pointer),
    ("Mounts", "Type", Omitted::Text),
    ("Mounts", "Name", Omitted::Text),
    ("Mounts", "Source", Omitted::Text),
    ("Mounts", "Driver", Omitted::Text),
    ("image", "Variant", Omitted::Text),
    ("image", "OsVersion", Omitted::Text),
    ("image", "Created", Omitted::Text),
    ("volume", "CreatedAt", Omitted::Text),
    ("volume", "Status", Omitted::Map),
    ("volume", "UsageData", Omitted::Pointer),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Omitted {
    Pointer,
    List,
    Map,
    Text,
    False,
}

impl Value {
    pub(crate) fn text(text: impl Into<Rc<str>>) -> Self {
        Self::Text(text.into())
    }

    /// Go's idea of true: not the zero value, not empty.
    pub(crate) fn truth(&self) -> bool {
        match self {
            Self::Nil(_) => false,
            Self::Bool(on) => *on,
            Self::Int(number) => *number != 0,
            Self::Float(number) => *number != 0.0,
            Self::Text(text) => !text.is_empty(),
            Self::List(list) => !list.is_empty(),
            Self::Object(object) => !object.is_map || !object.members.is_empty(),
            Self::Row(_) => true,
        }
    }

    /// Prints as Go's `%v`.
    pub(crate) fn print(&self, out: &mut String) {
        match self {
            Self::Nil(Nil::NoValue) => out.push_str("<no value>"),
            Self::Nil(Nil::Pointer | Nil::Absent) => out.push_str("<nil>"),
            Self::Nil(Nil::List) => out.push_str("[]"),
            Self::Nil(Nil::Map) => out.push_str("map[]"),
            Self::Bool(on) => out.push_str(if *on { "true" } else { "false" }),
            Self::Int(number) => push(out, number),
            Self::Float(number) => push_float(out, *number),
            Self::Text(text) => out.push_str(text),
            Self::List(list) => print_list(out, list.iter()),
            Self::Object(object) if object.is_map => print_map(out, object),
            Self::Object(object) => {
                out.push('{');
                print_separated(out, object.members.iter().map(|(_, value)| value));
                out.push('}');
            }
            Self::Row(row) => push(out, &format_args!("{{{}}}", row.type_name())),
        }
    }

    pub(crate) fn to_text(&self) -> String {
        let mut out = String::new();
        self.print(&mut out);
        out
    }

    /// Prints as Go's JSON encoder with HTML escapes off.
    pub(crate) fn json(&self, out: &mut String) {
        match self {
            Self::Nil(_) => out.push_str("null"),
            Self::Bool(on) => out.push_str(if *on { "true" } else { "false" }),
            Self::Int(number) => push(out, number),
            Self::Float(number) => push_float(out, *number),
            Self::Text(text) => crate::json::push_string(out, text),
            Self::List(list) => {
                out.push('[');
                for (at, value) in list.iter().enumerate() {
                    if at > 0 {
                        out.push(',');
                    }
                    value.json(out);
                }
                out.push(']');
            }
            Self::Object(object) if object.is_map => {
                let sorted = object.sorted();
                json_members(out, sorted.iter().map(|(name, value)| (&***name, (*value).clone())));
            }
            Self::Object(object) => {
                json_members(
                    out,
                    object.members.iter().map(|(name, value)| (&**name, value.clone())),
                );
            }
            Self::Row(row) => {
                let names = row.members().into_iter();
                let mut text = String::new();
                json_members(&mut text, names.filter_map(|name| Some((name, row.member(name)?))));
                out.push_str(&crate::json::escape_html(&text));
            }
        }
    }
}

impl Object {
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.members.iter().find(|(member, _)| **member == *name).map(|(_, value)| value)
    }

    /// A struct's member by its name in Go, which may differ from JSON's in case: `ID` is `Id` in
    /// containers and `id` in events.
    pub(crate) fn field(&self, name: &str) -> Option<&Value> {
        self.get(name).or_else(|| {
            let exported = !self.is_map && name.starts_with(|c: char| c.is_ascii_uppercase());
            let mut members = self.members.iter().filter(|_member| exported);
            members.find(|(member, _)| member.eq_ignore_ascii_case(name)).map(|(_, value)| value)
        })
    }

    /// What a struct member that was not sent stands for; `None` when there is no such member.
    pub(crate) fn omitted(&self, name: &str) -> Option<Value> {
        let (_, _, omitted) =
            OMITTED.iter().find(|(owner, member, _)| **owner == *self.name && *member == name)?;
        Some(match omitted {
            Omitted::Pointer => Value::Nil(Nil::Absent),
            Omitted::List => Value::Nil(Nil::List),
            Omitted::Map => Value::Nil(Nil::Map),
            Omitted::Text => Value::text(""),
            Omitted::False => Value::Bool(false),
        })
    }

    /// What `index` returns for a key that a map does not have: the zero value of its type.
    pub(crate) fn zero(&self) -> Value {
        match map_of(&self.name) {
            Some(MapOf::Text) => Value::text(""),
            Some(MapOf::List) => Value::Nil(Nil::List),
            Some(MapOf::Pointer) => Value::Nil(Nil::Pointer),
            None => Value::Nil(Nil::NoValue),
        }
    }

    /// The members ordered by key, as Go visits maps.
    pub(crate) fn sorted(&self) -> Vec<(&Rc<str>, &Value)> {
        let mut members: Vec<_> = self.members.iter().map(|(name, value)| (name, value)).collect();
        members.sort_by_key(|(name, _)| *name);
        members
    }
}

fn map_of(name: &str) -> Option<MapOf> {
    MAPS.iter().find(|(map, _)| *map == name).map(|(_, of)| *of)
}

fn push(out: &mut String, value: &dyn std::fmt::Display) {
    write!(out, "{value}").expect("writing to a String does not fail");
}

/// Go's `%v`: the shortest digits, an exponent from 1e21 up and below 1e-4.
fn push_float(out: &mut String, number: f64) {
    let magnitude = number.abs();
    if magnitude != 0.0 && !(1e-4..1e21).contains(&magnitude) {
        let text = format!("{number:e}");
        let (digits, exponent) = text.split_once('e').expect("`{:e}` writes an exponent");
        let (sign, exponent) = match exponent.strip_prefix('-') {
            Some(exponent) => ('-', exponent),
            None => ('+', exponent),
        };
        push(out, &format_args!("{digits}e{sign}{exponent:0>2}"));
    } else {
        push(out, &number);
    }
}

fn print_separated<'a>(out: &mut String, values: impl Iterator<Item = &'a Value>) {
    for (at, value) in values.enumerate() {
        if at > 0 {
            out.push(' ');
        }
        match value {
            Value::Nil(Nil::NoValue) => out.push_str("<nil>"),
            value => value.print(out),
        }
    }
}

fn print_list<'a>(out: &mut String, values: impl Iterator<Item = &'a Value>) {
    out.push('[');
    print_separated(out, values);
    out.push(']');
}

fn print_map(out: &mut String, object: &Object) {
    out.push_str("map[");
    for (at, (name, value)) in object.sorted().into_iter().enumerate() {
        if at > 0 {
            out.push(' ');
        }
        out.push_str(name);
        out.push(':');
        value.print(out);
    }
    out.push(']');
}

fn json_members<'a>(out: &mut String, members: impl Iterator<Item = (&'a str, Value)>) {
    out.push('{');
    for (at, (name, value)) in members.enumerate() {
        if at > 0 {
            out.push(',');
        }
        crate::json::push_string(out, name);
        out.push(':');
        value.json(out);
    }
    out.push('}');
}

/// Reads JSON, keeping its order; `name` is what the outermost object is called in [`OMITTED`].
pub(crate) fn from_json(json: &[u8], name: &str) -> Result<Value, serde_json::Error> {
    let Untyped(value) = serde_json::from_slice(json)?;
    Ok(typed(value, name, ""))
}

/// Gives JSON's nulls and objects their Go types, by the member they are found under.
fn typed(value: Value, name: &str, owner: &str) -> Value {
    let qualified = format!("{name}.{owner}");
    let map = map_of(name).or_else(|| map_of(&qualified));
    match value {
        Value::Nil(_) if map.is_some() => Value::Nil(Nil::Map),
        Value::Nil(_) if LISTS.contains(&name) || LISTS.contains(&qualified.as_str()) => {
            Value::Nil(Nil::List)
        }
        Value::List(list) => {
            let list = Rc::unwrap_or_clone(list);
            Value::List(Rc::new(list.into_iter().map(|item| typed(item, name, owner)).collect()))
        }
        Value::Object(object) => {
            let object = Rc::unwrap_or_clone(object);
            let inner = |(member, value): (Rc<str>, Value)| {
                let value = match map {
                    Some(MapOf::List) if matches!(value, Value::Nil(_)) => Value::Nil(Nil::List),
                    Some(_) => typed(value, "", name),
                    None => typed(value, &member, name),
                };
                (member, value)
            };
            let members = object.members.into_iter().map(inner).collect();
            Value::Object(Rc::new(Object { name: name.into(), is_map: map.is_some(), members }))
        }
        value => value,
    }
}

/// JSON before [`typed`] has seen it.
struct Untyped(Value);

impl<'de> Deserialize<'de> for Untyped {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader).map(Self)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Nil(Nil::Pointer))
    }

    fn visit_bool<E>(self, on: bool) -> Result<Value, E> {
        Ok(Value::Bool(on))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Int(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(i64::try_from(number).map_or(Value::Float(number as f64), Value::Int))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Float(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Untyped(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(Rc::new(list)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut members = Vec::new();
        while let Some((name, Untyped(value))) = entries.next_entry::<String, Untyped>()? {
            members.push((Rc::from(name), value));
        }
        Ok(Value::Object(Rc::new(Object { name: "".into(), is_map: false, members })))
    }
}
