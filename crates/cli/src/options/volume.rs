//! `-v [source:]target[:options]`.

/// What one `-v` asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum VolumeOption {
    /// A new anonymous volume at this path.
    Anonymous(String),
    /// A host path or named volume, as the daemon takes it.
    Bind(String),
}

pub(crate) fn parse_volume(text: &str) -> Result<VolumeOption, String> {
    if text.is_empty() {
        return Err("invalid empty volume spec".to_owned());
    }
    let sections = sections(text);
    if text.len() > 2 {
        if sections.iter().any(|section| section.is_empty()) {
            return Err(format!("invalid spec: {text}: empty section between colons"));
        }
        if sections.len() > 3 {
            return Err(format!("invalid spec: {text}: too many colons"));
        }
    }
    if sections.len() == 1 || text.len() <= 2 {
        return Ok(VolumeOption::Anonymous(text.to_owned()));
    }
    let (source, rest) = text.split_once(':').expect("there are two sections or more");
    if source.starts_with('.') {
        return Ok(VolumeOption::Bind(format!("{}:{rest}", super::files::absolute_path(source))));
    }
    Ok(VolumeOption::Bind(text.to_owned()))
}

/// What is between colons. Compose's parser, which docker uses, takes `a:/b` for a Windows path.
fn sections(text: &str) -> Vec<&str> {
    let mut sections = Vec::new();
    let mut start = 0;
    for (at, _) in text.match_indices(':') {
        let section = &text[start..at];
        let drive = section.len() == 1 && section.starts_with(|c: char| c.is_ascii_alphabetic());
        if !drive {
            sections.push(section);
            start = at + 1;
        }
    }
    sections.push(&text[start..]);
    sections
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_anonymous_or_bound() {
        assert_eq!(parse_volume("/x"), Ok(VolumeOption::Anonymous("/x".to_owned())));
        assert_eq!(parse_volume("v:/x"), Ok(VolumeOption::Anonymous("v:/x".to_owned())));
        for bound in ["/a:/x", "v:/x:ro", "vol:/x", "/a:/x:ro,z", "/a:/b:c:d"] {
            assert_eq!(parse_volume(bound), Ok(VolumeOption::Bind(bound.to_owned())));
        }
        let here = std::env::current_dir().unwrap();
        assert_eq!(
            parse_volume("./a/../b:/x"),
            Ok(VolumeOption::Bind(format!("{}/b:/x", here.display())))
        );
        assert_eq!(parse_volume(""), Err("invalid empty volume spec".to_owned()));
        assert_eq!(
            parse_volume(":/x"),
            Err("invalid spec: :/x: empty section between colons".to_owned())
        );
        assert_eq!(
            parse_volume("/a:/b:/c:/d"),
            Err("invalid spec: /a:/b:/c:/d: too many colons".to_owned())
        );
    }
}
