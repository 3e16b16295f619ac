//! `docker context export` and `import`: one context as a tar archive;
//! `import` takes the same files zipped, too.
//!
//! ```text
//! meta.json                    mode 0644
//! tls/                         mode 0700
//! tls/<endpoint>/              mode 0700
//! tls/<endpoint>/<file>        mode 0600
//! ```

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;

use client::contexts::{Context, TlsMaterial, check_name};
use tar::{EntryType, Header};

use super::change::{check_new_name, done};
use super::{DEFAULT, load, store, zip};
use crate::app::App;
use crate::failure::{Failure, Outcome};
use crate::flags::Parsed;
use crate::options::open_error;
use crate::output;

/// Archives are read whole, so there is an end to how large they may be.
const MAX_ARCHIVE: u64 = 10 << 20;

/// `docker context export`.
pub(crate) async fn export(app: &App, flags: &Parsed) -> Outcome {
    let name = &flags.args[0];
    if name != DEFAULT {
        check_name(name)?;
    }
    let default_file = format!("{name}.dockercontext");
    let file = flags.args.get(1).unwrap_or(&default_file);
    let (context, tls) = load(app, name)?;
    if file == "-" {
        if crate::terminal::stdout_is_terminal() {
            return Err(Failure::new(
                "cowardly refusing to export to a terminal, specify a file path",
            ));
        }
        output::write(&archive(&context, &tls)?)?;
        return Ok(0);
    }
    let bytes = archive(&context, &tls)?;
    // It may hold a key; and a file that is there already is nobody's to overwrite.
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .and_then(|mut file| file.write_all(&bytes))
        .map_err(|error| open_error(file, &error))?;
    output::complain(&format!("Written file {file:?}"));
    Ok(0)
}

fn archive(context: &Context, tls: &BTreeMap<String, TlsMaterial>) -> io::Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    append(&mut builder, "meta.json", 0o644, Some(context.to_json().as_bytes()))?;
    append(&mut builder, "tls", 0o700, None)?;
    for (endpoint, material) in tls {
        append(&mut builder, &format!("tls/{endpoint}"), 0o700, None)?;
        for (file, bytes) in material {
            append(&mut builder, &format!("tls/{endpoint}/{file}"), 0o600, Some(bytes))?;
        }
    }
    builder.into_inner()
}

/// A file, or a directory where there are no bytes.
fn append(
    builder: &mut tar::Builder<Vec<u8>>,
    path: &str,
    mode: u32,
    bytes: Option<&[u8]>,
) -> io::Result<()> {
    let mut header = Header::new_ustar();
    header.set_mode(mode);
    header.set_entry_type(bytes.map_or(EntryType::Directory, |_file| EntryType::Regular));
    let bytes = bytes.unwrap_or_default();
    header.set_size(bytes.len() as u64);
    builder.append_data(&mut header, path, bytes)
}

/// `docker context import`. The archive is checked whole before anything is stored.
pub(crate) async fn import(app: &App, flags: &Parsed) -> Outcome {
    let (name, file) = (&flags.args[0], &flags.args[1]);
    check_new_name(app, name)?;
    let bytes = match file.as_str() {
        "-" => read(io::stdin().lock()),
        path => std::fs::File::open(path).and_then(read),
    };
    let bytes = bytes.map_err(|error| open_error(file, &error))?;
    let (mut context, tls) = parse(bytes)?;
    context.name.clone_from(name);
    store(app).create(&context, &tls)?;
    done(name, &format!("Successfully imported context {name:?}"))
}

fn read(source: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(MAX_ARCHIVE + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn parse(mut bytes: Vec<u8>) -> Result<(Context, BTreeMap<String, TlsMaterial>), String> {
    if bytes.len() as u64 > MAX_ARCHIVE {
        return Err("read exceeds the defined limit".to_owned());
    }
    if bytes.starts_with(b"PK\x03\x04") {
        return assemble(zip::files(&bytes, MAX_ARCHIVE)?);
    }
    if !bytes.is_empty() && bytes.len() < 512 {
        return Err("unexpected EOF".to_owned());
    }
    // Docker never ends its archives: the last file is not padded, and no empty blocks follow.
    bytes.resize(bytes.len().next_multiple_of(512) + 1024, 0);
    let malformed = |_reason: io::Error| "archive/tar: invalid tar header".to_owned();
    let mut files = Vec::new();
    for entry in tar::Archive::new(bytes.as_slice()).entries().map_err(malformed)? {
        let mut entry = entry.map_err(malformed)?;
        if entry.header().entry_type() != EntryType::Regular {
            continue;
        }
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).map_err(|_cut| "unexpected EOF".to_owned())?;
        files.push((path, content));
    }
    assemble(files)
}

/// Checks what an archive of either kind holds.
fn assemble(
    files: Vec<(String, Vec<u8>)>,
) -> Result<(Context, BTreeMap<String, TlsMaterial>), String> {
    let mut context = None;
    let mut tls: BTreeMap<String, TlsMaterial> = BTreeMap::new();
    for (path, content) in files {
        if path == "meta.json" {
            context = Some(Context::parse(&content)?);
        } else if let Some(rest) = path.strip_prefix("tls/") {
            let (endpoint, file) = tls_path(rest).ok_or("archive format is invalid")?;
            tls.entry(endpoint.to_owned()).or_default().insert(file.to_owned(), content);
        } else {
            return Err(format!("{path}: unexpected context file"));
        }
    }
    Ok((context.ok_or("invalid context: no metadata found")?, tls))
}

/// `docker/ca.pem`; names that lead elsewhere are no names.
fn tls_path(path: &str) -> Option<(&str, &str)> {
    let (endpoint, file) = path.split_once('/')?;
    let plain = |name: &str| !name.is_empty() && name != "." && name != ".." && !name.contains('/');
    (plain(endpoint) && plain(file)).then_some((endpoint, file))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar_of(files: &[(&str, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, content) in files {
            let mut header = Header::new_ustar();
            // Written by hand: the library refuses the names that matter here.
            header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(EntryType::Regular);
            header.set_mode(0o600);
            header.set_size(content.len() as u64);
            header.set_cksum();
            builder.append(&header, content.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn check_refused(bytes: &[u8], expect: &str) {
        assert_eq!(parse(bytes.to_vec()).unwrap_err(), expect);
    }

    #[test]
    fn archives_come_back() {
        let mut context = Context::default();
        context.set_description("x");
        let material = TlsMaterial::from([("ca.pem".to_owned(), b"CA".to_vec())]);
        let tls = BTreeMap::from([("docker".to_owned(), material)]);
        let bytes = archive(&context, &tls).unwrap();
        assert_eq!(parse(bytes.clone()).unwrap(), (context.clone(), tls.clone()));
        // As docker leaves it: cut behind the last file's last byte.
        let end = bytes.len() - 1024 - 510;
        assert_eq!(parse(bytes[..end].to_vec()).unwrap(), (context, tls));
    }

    #[test]
    fn bad_archives_are_refused() {
        check_refused(b"", "invalid context: no metadata found");
        check_refused(b"garbage", "unexpected EOF");
        check_refused(&[b'x'; 600], "archive/tar: invalid tar header");
        check_refused(&tar_of(&[("other", "")]), "other: unexpected context file");
        check_refused(&tar_of(&[("meta.json", "{")]), "unexpected end of JSON input");
        for path in ["tls/x", "tls/../x", "tls/docker/..", "tls/docker/a/b", "tls//x", "tls/a/"] {
            check_refused(
                &tar_of(&[("meta.json", "{}"), (path, "k")]),
                "archive format is invalid",
            );
        }
        check_refused(b"PK\x03\x04", "zip: not a valid zip file");
    }
}
