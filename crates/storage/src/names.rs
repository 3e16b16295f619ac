//! What the names in a layer mean: cleaning them, and telling whiteouts from files.
//!
//! Pure functions over bytes. Names are relative to the layer's root whatever they look like.

/// Splits a name into its components. `.` and empty ones drop out; `..` takes one back; a name
/// that leaves the root is refused, as Docker does.
pub(crate) fn components(path: &[u8]) -> Result<Vec<&[u8]>, &'static str> {
    let mut components = Vec::new();
    for component in path.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                components.pop().ok_or("name leads out of the layer")?;
            }
            name => components.push(name),
        }
    }
    Ok(components)
}

/// What the last component of a name asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Meaning<'name> {
    File,
    /// Hides this name in the layers below.
    Whiteout(&'name [u8]),
    /// Hides everything that the layers below have in the directory of the marker.
    Opaque,
    /// Bookkeeping that AUFS left behind.
    Ignored,
}

pub(crate) fn meaning(name: &[u8]) -> Result<Meaning<'_>, &'static str> {
    match name.strip_prefix(b".wh.") {
        None => Ok(Meaning::File),
        Some(b".wh..opq") => Ok(Meaning::Opaque),
        Some(rest) if rest.starts_with(b".wh.") => Ok(Meaning::Ignored),
        Some(b"" | b"." | b"..") => Err("whiteout of no name"),
        Some(hidden) => Ok(Meaning::Whiteout(hidden)),
    }
}

/// Refuses whiteouts in the place of directories.
pub(crate) fn check_parents(parents: &[&[u8]]) -> Result<(), &'static str> {
    if parents.iter().any(|name| name.starts_with(b".wh.")) {
        return Err("a whiteout cannot be a directory");
    }
    Ok(())
}

pub(crate) fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() }
}

/// Whether an extended attribute of an archive is put on the file. Overlay's own attributes
/// never are: they would redirect or hide what the layer does not own. Labels of the building
/// host's security module mean nothing here.
pub(crate) fn keeps_xattr(name: &[u8]) -> bool {
    let overlay = name.starts_with(b"user.overlay.");
    let kept = name.starts_with(b"user.")
        || name == b"security.capability"
        || name.starts_with(b"system.posix_acl_");
    kept && !overlay && !name.contains(&0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_the_layer() {
        let check = |path: &str, expect: Result<&str, &str>| {
            let got = components(path.as_bytes());
            let joined = got.map(|list| String::from_utf8(list.join(&b'/')).unwrap());
            assert_eq!(joined.as_deref().map_err(|reason| *reason), expect, "{path}");
        };
        let out = Err("name leads out of the layer");
        check("a/b", Ok("a/b"));
        check("./a//b/.", Ok("a/b"));
        check("/a", Ok("a"));
        check("./", Ok(""));
        check("a/../b", Ok("b"));
        check("../x", out);
        check("a/../../x", out);
        check("...", Ok("..."));
    }

    #[test]
    fn whiteouts_are_told_apart() {
        assert_eq!(meaning(b"a.wh.b"), Ok(Meaning::File));
        assert_eq!(meaning(b".wh.a"), Ok(Meaning::Whiteout(b"a")));
        assert_eq!(meaning(b".wh..a"), Ok(Meaning::Whiteout(b".a")));
        assert_eq!(meaning(b".wh..wh..opq"), Ok(Meaning::Opaque));
        assert_eq!(meaning(b".wh..wh.plnk"), Ok(Meaning::Ignored));
        for bad in [&b".wh."[..], b".wh..", b".wh..."] {
            assert_eq!(meaning(bad), Err("whiteout of no name"));
        }
    }

    #[test]
    fn overlay_attributes_are_dropped() {
        for kept in ["user.a", "security.capability", "system.posix_acl_access"] {
            assert!(keeps_xattr(kept.as_bytes()), "{kept}");
        }
        for gone in ["trusted.overlay.opaque", "user.overlay.opaque", "security.selinux", "a"] {
            assert!(!keeps_xattr(gone.as_bytes()), "{gone}");
        }
    }
}
