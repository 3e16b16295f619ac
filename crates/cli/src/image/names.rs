//! The rows that `images` makes of one image: one for each name it has.

use api_types::image::Summary;

/// A name of an image; `<none>` for what it does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    pub repository: String,
    pub tag: String,
    pub digest: String,
}

const NONE: &str = "<none>";

impl Name {
    fn new(repository: &str, tag: &str, digest: &str) -> Self {
        Self { repository: repository.into(), tag: tag.into(), digest: digest.into() }
    }
}

/// Names with tags first, each with its repository's digests when these are wanted; then digests
/// without a tag; then, for an image with neither, one row of `<none>`.
pub(super) fn names(image: &Summary, with_digests: bool) -> Vec<Name> {
    let mut digests: Vec<(String, String)> = image
        .repo_digests
        .iter()
        .filter_map(|reference| reference.split_once('@'))
        .map(|(repository, digest)| (repository.to_owned(), digest.to_owned()))
        .collect();
    digests.retain(|(repository, _)| repository != NONE);
    let mut rows = Vec::new();
    let tags = image.repo_tags.iter().filter(|tag| *tag != "<none>:<none>");
    let mut repositories: Vec<(String, Vec<String>)> = Vec::new();
    for reference in tags {
        let Some((repository, tag)) = reference.rsplit_once(':') else { continue };
        match repositories.iter_mut().find(|(known, _)| known == repository) {
            Some((_, tags)) => tags.push(tag.to_owned()),
            None => repositories.push((repository.to_owned(), vec![tag.to_owned()])),
        }
    }
    for (repository, tags) in &repositories {
        let own: Vec<String> = digests
            .iter()
            .filter(|(of, _)| of == repository)
            .map(|(_, digest)| digest.clone())
            .collect();
        digests.retain(|(of, _)| of != repository);
        for tag in tags {
            if with_digests && !own.is_empty() {
                rows.extend(own.iter().map(|digest| Name::new(repository, tag, digest)));
            } else {
                rows.push(Name::new(repository, tag, NONE));
            }
        }
    }
    rows.extend(digests.iter().map(|(repository, digest)| Name::new(repository, NONE, digest)));
    if rows.is_empty() {
        rows.push(Name::new(NONE, NONE, NONE));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(tags: &[&str], digests: &[&str], with_digests: bool, expect: &[&str]) {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        let image =
            Summary { repo_tags: owned(tags), repo_digests: owned(digests), ..Summary::default() };
        let rows: Vec<String> = names(&image, with_digests)
            .iter()
            .map(|name| format!("{} {} {}", name.repository, name.tag, name.digest))
            .collect();
        assert_eq!(rows, expect, "{tags:?} {digests:?}");
    }

    #[test]
    fn every_name_has_a_row() {
        check(
            &["a:1", "localhost:5000/a:2"],
            &[],
            false,
            &["a 1 <none>", "localhost:5000/a 2 <none>"],
        );
        check(&[], &[], false, &["<none> <none> <none>"]);
        check(&["a:1"], &["a@sha256:x"], false, &["a 1 <none>"]);
        check(&["a:1"], &["a@sha256:x"], true, &["a 1 sha256:x"]);
        check(&["a:1"], &["b@sha256:x"], true, &["a 1 <none>", "b <none> sha256:x"]);
        check(&[], &["b@sha256:x"], false, &["b <none> sha256:x"]);
    }
}
